/* A PC as an Arduino: `program` serves Serial on a TCP port of 127.0.0.1 whose number it prints;
 * `program pcm.raw` has a microphone that brings that recording (int16, 16 kHz), and Serial is
 * standard output. Every change of the LED is told on standard error. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "Arduino.h"
#include "quads_arduino.h"

#define PIECE_SAMPLES 97
#define END_YIELDS 1000

static int client = -1;
static FILE *recording;
static int microphone_runs;
HardwareSerial Serial;

static void serve(void) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  socklen_t size = sizeof address;
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr *>(&address), size) != 0 ||
      listen(listener, 1) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr *>(&address), &size) != 0) {
    exit(1);
  }
  printf("port %d\n", ntohs(address.sin_port));
  fflush(stdout);
  client = accept(listener, NULL, NULL);
  const int one = 1;
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static bool waiting(void) {
  pollfd entry = {client, POLLIN, 0};
  return client >= 0 && poll(&entry, 1, 0) > 0;
}

void HardwareSerial::begin(unsigned long) {
}

int HardwareSerial::available(void) {
  return waiting() ? 1 : 0;
}

int HardwareSerial::read(void) {
  uint8_t byte;
  if (::read(client, &byte, 1) != 1) {
    exit(0); /* the other end hung up */
  }
  return byte;
}

size_t HardwareSerial::write(const uint8_t *buffer, size_t size) {
  const ssize_t written = ::write(client >= 0 ? client : STDOUT_FILENO, buffer, size);
  return written > 0 ? static_cast<size_t>(written) : 0;
}

extern "C" {

void pinMode(pin_size_t, PinMode) {
}

void digitalWrite(pin_size_t pin, PinStatus status) {
  fprintf(stderr, "pin %d %d\n", pin, status);
}

unsigned long micros(void) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<unsigned long>(now.tv_sec) * 1000000u +
         static_cast<unsigned long>(now.tv_nsec) / 1000u;
}

void delay(unsigned long ms) {
  usleep(static_cast<useconds_t>(ms * 1000));
}

void yield(void) {
  static int16_t pcm[PIECE_SAMPLES];
  static int yields_left = END_YIELDS;
  if (recording == NULL) {
    usleep(50);
  } else if (microphone_runs) {
    const size_t n = fread(pcm, sizeof pcm[0], PIECE_SAMPLES, recording);
    microphone_put(pcm, n);
    if (n == 0 && yields_left-- == 0) {
      exit(0);
    }
  }
}

int microphone_start(void) {
  microphone_runs = recording != NULL;
  return microphone_runs ? 0 : -1;
}
}

int main(int argc, char **argv) {
  if (argc == 2) {
    recording = fopen(argv[1], "rb");
  } else {
    serve();
  }
  setup();
  for (;;) {
    loop();
  }
}
