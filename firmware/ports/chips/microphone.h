/* microphone.h - the ring between a microphone's interrupt and quads_port_audio_read.
 *
 * A port defines microphone_start and calls microphone_put from one interrupt, callback or thread;
 * microphone.c does the rest. */
#ifndef QUADS_MICROPHONE_H
#define QUADS_MICROPHONE_H

#include <stddef.h>
#include <stdint.h>

/* Begin to bring samples. Returns 0, or -1 when there is no microphone. */
int microphone_start(void);

/* Take n_samples of 16 kHz PCM, one channel. */
void microphone_put(const int16_t *pcm, size_t n_samples);

/* The upper bits of a 24-bit sample that lies at the top of `word`, four times as loud: digital
 * microphones have 12 dB to spare above loud speech. */
int16_t microphone_sample(int32_t word);

#endif
