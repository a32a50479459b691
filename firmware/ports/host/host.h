/* host.h - between the files of this port. */
#ifndef QUADS_HOST_H
#define QUADS_HOST_H

/* Map a file as two model slots, made if there is none. Returns 0 or an exit code. */
int host_open_model_slots(const char *path);

#endif
