/* The part of ArduinoCore-mbed's libraries/PDM/src/PDM.h that the library uses. */
#ifndef PDM_H
#define PDM_H

#include <Arduino.h>

class PDMClass {
 public:
  int begin(int channels, int sampleRate);
  virtual int available();
  virtual int read(void *buffer, size_t size);
  void onReceive(void (*)(void));
  void setGain(int gain);
};

extern PDMClass PDM;

#endif
