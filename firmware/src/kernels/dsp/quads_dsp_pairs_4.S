/* quads_dsp_pairs_4: see quads_dsp_linear.h. Eight lower halves stay in place while the upper one passes
 * through all centroids; then the other eight. */
  .syntax unified
  .thumb

  .macro eight_columns
  ldrsb r4, [r3]
  ldrsb r5, [r3, #1]
  ldrsb r6, [r3, #2]
  ldrsb r7, [r3, #3]
  ldrsb r8, [r3, #4]
  ldrsb r9, [r3, #5]
  ldrsb r10, [r3, #6]
  ldrsb r11, [r3, #7]
  mov r2, r0
  add lr, r0, #16
  .balign 4
1:
  ldrsb r12, [r2], #1
  pkhbt r4, r4, r12, lsl #16
  pkhbt r5, r5, r12, lsl #16
  pkhbt r6, r6, r12, lsl #16
  pkhbt r7, r7, r12, lsl #16
  pkhbt r8, r8, r12, lsl #16
  pkhbt r9, r9, r12, lsl #16
  pkhbt r10, r10, r12, lsl #16
  pkhbt r11, r11, r12, lsl #16
  stm r1, {r4-r11}
  add r1, #64
  cmp r2, lr
  bne 1b
  .endm

  .section .text.quads_dsp_pairs_4, "ax", %progbits
  .balign 4
  .global quads_dsp_pairs_4
  .type quads_dsp_pairs_4, %function
quads_dsp_pairs_4:
  push {r4-r11, lr}
  mov r3, r0
  eight_columns
  sub r1, #(16 * 64 - 32)
  add r3, #8
  eight_columns
  pop {r4-r11, pc}
