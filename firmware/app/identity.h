/* identity.h - the answer to hello: which board, build and model this is. */
#ifndef QUADS_IDENTITY_H
#define QUADS_IDENTITY_H

#include "quads_link.h"

void identity_send(quads_sender_t *answer, uint16_t max_payload_bytes);

#endif
