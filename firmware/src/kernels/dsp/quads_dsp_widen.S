/* quads_dsp_widen, quads_dsp_widen_row: see quads_dsp_linear.h. Four bytes a b c d of a row become the pairs a b and c d. */
  .syntax unified
  .thumb

  .macro pairs x, first, second
  ldr r12, [\x], #4
  sxtb16 \second, r12, ror #8
  sxtb16 r12, r12
  pkhbt \first, r12, \second, lsl #16
  pkhtb \second, \second, r12, asr #16
  .endm

  .macro four_columns
  pairs r0, r4, r8
  pairs r1, r5, r9
  pairs r2, r6, r10
  pairs r3, r7, r11
  stm lr!, {r4-r11}
  .endm

  .section .text.quads_dsp_widen, "ax", %progbits
  .balign 4
  .global quads_dsp_widen
  .type quads_dsp_widen, %function
quads_dsp_widen:
  push {r4-r11, lr}
  mov lr, r2
  ldr r12, [r0]
  add r1, r12
  push {r1, r2} /* end of the first row; sp stays a multiple of 8 */
  ldm r0, {r0-r3}
turn:
  four_columns
  four_columns
  ldr r12, [sp]
  cmp r0, r12
  bne turn
  add sp, #8
  pop {r4-r11, pc}

  .section .text.quads_dsp_widen_row, "ax", %progbits
  .balign 4
  .global quads_dsp_widen_row
  .type quads_dsp_widen_row, %function
quads_dsp_widen_row:
  push {r4-r7}
  add r1, r0
next:
  pairs r0, r4, r5
  pairs r0, r6, r7
  stm r2!, {r4-r7}
  cmp r0, r1
  bne next
  pop {r4-r7}
  bx lr
