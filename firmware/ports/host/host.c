/* A PC process as a board: the link is a TCP socket on 127.0.0.1 or a pseudo terminal.
 *
 *     firmware --tcp 0 --clips test.qclp      prints "port 40123"
 *     firmware --pty                          prints "pty /dev/pts/4"
 *     firmware --tcp 0 --model-slots FILE     slots.c; the model comes from there
 */
#define _GNU_SOURCE

#include "host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "quads_port.h"

#define EXIT_USAGE 2
#define NONE (-1)

static int listener = NONE; /* TCP only */
static int client = NONE;   /* connected socket, or the pty's master end */
static FILE *storage;
static uint32_t storage_bytes;

/* 100 ns, so that the counter wraps after seven minutes instead of four seconds. */
const quads_port_tick_t quads_port_tick = {100, 1, QUADS_TICK_NANOSECONDS};

static int open_tcp(const char *text) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t address_bytes = sizeof address;
  char *end;
  const long port = strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0' || port < 0 || port > 65535) {
    fprintf(stderr, "--tcp %s: a port is a number from 0 to 65535\n", text);
    return EXIT_USAGE;
  }
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons((uint16_t)port);
  const int one = 1;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
      listen(listener, 1) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &address_bytes) != 0) {
    fprintf(stderr, "port %ld: %s\n", port, strerror(errno));
    return EXIT_FAILURE;
  }
  printf("port %u\n", (unsigned)ntohs(address.sin_port));
  return 0;
}

static int open_pty(void) {
  struct termios settings;
  client = posix_openpt(O_RDWR | O_NOCTTY);
  if (client < 0 || grantpt(client) != 0 || unlockpt(client) != 0) {
    fprintf(stderr, "pseudo terminal: %s\n", strerror(errno));
    return EXIT_FAILURE;
  }
  /* Holding the other end open keeps the line up while no host is connected. */
  const char *name = ptsname(client);
  const int other_end = name != NULL ? open(name, O_RDWR | O_NOCTTY) : NONE;
  if (other_end < 0 || tcgetattr(other_end, &settings) != 0) {
    fprintf(stderr, "pseudo terminal: %s\n", strerror(errno));
    return EXIT_FAILURE;
  }
  cfmakeraw(&settings);
  tcsetattr(other_end, TCSANOW, &settings);
  printf("pty %s\n", name);
  return 0;
}

static int open_storage(const char *path) {
  storage = fopen(path, "rb");
  if (storage == NULL || fseek(storage, 0, SEEK_END) != 0) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return EXIT_FAILURE;
  }
  const long size = ftell(storage);
  if (size < 0 || (unsigned long)size > UINT32_MAX) {
    fprintf(stderr, "%s: %ld bytes, the limit is %lu\n", path, size, (unsigned long)UINT32_MAX);
    return EXIT_FAILURE;
  }
  storage_bytes = (uint32_t)size;
  return 0;
}

int quads_port_init(int argc, char **argv) {
  int error = 0;
  for (int i = 1; i < argc && error == 0; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--pty") == 0) {
      error = open_pty();
    } else if (strcmp(argv[i], "--tcp") == 0 && value != NULL) {
      error = open_tcp(value);
      i++;
    } else if (strcmp(argv[i], "--clips") == 0 && value != NULL) {
      error = open_storage(value);
      i++;
    } else if (strcmp(argv[i], "--model-slots") == 0 && value != NULL) {
      error = host_open_model_slots(value);
      i++;
    } else {
      error = EXIT_USAGE;
    }
  }
  if (error == 0 && (listener == NONE) == (client == NONE)) {
    error = EXIT_USAGE;
  }
  if (error == EXIT_USAGE) {
    fprintf(stderr, "usage: %s --tcp PORT | --pty [--clips FILE] [--model-slots FILE]\n", argv[0]);
  }
  fflush(stdout);
  return error;
}

static void drop_client(void) {
  if (listener != NONE) {
    close(client);
    client = NONE;
  }
}

static int wait_for(int descriptor, short events, int timeout_ms) {
  struct pollfd entry = {.fd = descriptor, .events = events};
  return poll(&entry, 1, timeout_ms) > 0;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  if (client == NONE) {
    if (wait_for(listener, POLLIN, 0)) {
      const int one = 1;
      client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return 0;
  }
  if (!wait_for(client, POLLIN, 0)) {
    return 0;
  }
  const ssize_t n_bytes = read(client, bytes, capacity);
  if (n_bytes == 0 || (n_bytes < 0 && errno != EINTR && errno != EAGAIN)) {
    drop_client();
  }
  return n_bytes > 0 ? (size_t)n_bytes : 0;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  while (n_bytes > 0 && client != NONE) {
    const ssize_t written = listener != NONE ? send(client, bytes, n_bytes, MSG_NOSIGNAL)
                                             : write(client, bytes, n_bytes);
    if (written >= 0) {
      bytes += written;
      n_bytes -= (size_t)written;
    } else if (errno != EINTR) {
      drop_client();
      return;
    }
  }
}

void quads_port_idle(void) {
  (void)wait_for(client != NONE ? client : listener, POLLIN, -1);
}

uint32_t quads_port_ticks(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)((uint64_t)now.tv_sec * 10000000u + (uint64_t)now.tv_nsec / 100u);
}

uint32_t quads_port_stack_bytes(void) {
  return 0;
}

uint32_t quads_port_stack_used(void) {
  return 0;
}

uint32_t quads_port_storage_bytes(void) {
  return storage_bytes;
}

int quads_port_storage_read(uint32_t offset, uint8_t *bytes, size_t n_bytes) {
  if (storage == NULL || fseek(storage, (long)offset, SEEK_SET) != 0) {
    return -1;
  }
  return fread(bytes, 1, n_bytes, storage) == n_bytes ? 0 : -1;
}

void quads_port_exit(int code) {
  exit(code);
}
