/* The part of the Arduino API that the library uses; names and types as in ArduinoCore-API,
 * api/Common.h and api/HardwareSerial.h. host.cpp defines it on a PC. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <stddef.h>
#include <stdint.h>

typedef enum { LOW = 0, HIGH = 1 } PinStatus;
typedef enum { INPUT = 0, OUTPUT = 1 } PinMode;
typedef uint8_t pin_size_t;

#define LED_BUILTIN 13

extern "C" {
void pinMode(pin_size_t pinNumber, PinMode pinMode);
void digitalWrite(pin_size_t pinNumber, PinStatus status);
unsigned long micros(void);
void delay(unsigned long ms);
void yield(void);
}

class HardwareSerial {
 public:
  void begin(unsigned long baudrate);
  int available(void);
  int read(void);
  size_t write(const uint8_t *buffer, size_t size);
};

extern HardwareSerial Serial;

void setup(void);
void loop(void);

#endif
