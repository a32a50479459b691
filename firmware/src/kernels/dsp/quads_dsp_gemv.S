/* quads_dsp_gemv_s8: see quads_dsp_linear.h.
 *
 * Four channels at a time, their weights looked up and used at once: 25 instructions for 16
 * products. The loop is unrolled for BYTES of every row and entered in its midst when n_in does not
 * divide, with the rows set back. Offsets begin at 1 so that the last load of a turn can move
 * its pointer on. Sums are bounded at export.
 *
 *   r0-r3 rows - 1   r4-r7 sums   r8 x   r9 table   r10, r11 inputs   r12, lr weights
 */
#define BYTES 16
#define BLOCK_BYTES 100 /* of code, for two bytes of every row */

#define END 0     /* r0 after the last step */
#define X 4       /* r8 before the first; it moves on with every step */
#define ENTRY 8
#define ROW 12    /* bytes */
#define AHEAD 16  /* bytes by which rows are set back */
#define BIAS 20
#define BIAS_END 24
#define MULTIPLIER 28 /* and its step */
#define Y 36
#define FRAME 40

  .syntax unified
  .thumb

  .macro channel row, sum, offset
  ldrb r12, [\row, #(\offset + 1)]
  ldrb lr, [\row, #(\offset + 2)]
  ldr r12, [r9, r12, lsl #2]
  ldr lr, [r9, lr, lsl #2]
  smlad \sum, r12, r10, \sum
  smlad \sum, lr, r11, \sum
  .endm

  .macro last_of_channel row, sum
  ldrb r12, [\row, #(BYTES - 1)]
  ldrb lr, [\row, #BYTES]!
  ldr r12, [r9, r12, lsl #2]
  ldr lr, [r9, lr, lsl #2]
  smlad \sum, r12, r10, \sum
  smlad \sum, lr, r11, \sum
  .endm

  .section .text.quads_dsp_gemv_s8, "ax", %progbits
  .balign 4
  .global quads_dsp_gemv_s8
  .type quads_dsp_gemv_s8, %function
quads_dsp_gemv_s8:
  push {r4-r11, lr}
  sub sp, #FRAME
  ldm r0, {r1-r9} /* indices, row, x, table, bias, its end, multiplier, step, y */
  str r2, [sp, #ROW]
  strd r5, r6, [sp, #BIAS]
  strd r7, r8, [sp, #MULTIPLIER]
  str r9, [sp, #Y]
  mov r9, r4
  rsb r5, r2, #0
  and r5, #(BYTES - 1) /* bytes left out */
  str r5, [sp, #AHEAD]
  str r3, [sp, #X]
  mov r6, #(BLOCK_BYTES / 2)
  adr.w r4, turn
  mla r4, r5, r6, r4
  orr r4, #1
  str r4, [sp, #ENTRY]
  sub r3, r1, #1 /* where the fourth row before the first would have ended */

channels:
  ldrd r12, lr, [sp, #ROW] /* and AHEAD */
  ldr r10, [sp, #BIAS]
  add r8, r3, r12
  str r8, [sp, #END]
  ldm r10!, {r4-r7}
  str r10, [sp, #BIAS]
  sub r0, r3, lr
  add r1, r0, r12
  add r2, r1, r12
  add r3, r2, r12
  ldr r8, [sp, #X]
  ldr pc, [sp, #ENTRY]

  .balign 4
turn:
  .set at, 0
  .rept BYTES / 2 - 1
  ldrd r10, r11, [r8], #8
  channel r0, r4, at
  channel r1, r5, at
  channel r2, r6, at
  channel r3, r7, at
  .set at, at + 2
  .endr
  ldrd r10, r11, [r8], #8
  last_of_channel r0, r4
  last_of_channel r1, r5
  last_of_channel r2, r6
  last_of_channel r3, r7
  ldr r12, [sp, #END]
  cmp r0, r12
  bne turn

  ldrd r0, r1, [sp, #MULTIPLIER]
  ldm r0, {r8, r10, r11, r12}
  add r0, r1
  str r0, [sp, #MULTIPLIER]
  smmulr r4, r4, r8
  smmulr r5, r5, r10
  smmulr r6, r6, r11
  smmulr r7, r7, r12
  ssat r4, #8, r4
  ssat r5, #8, r5
  ssat r6, #8, r6
  ssat r7, #8, r7
  bfi r4, r5, #8, #8
  bfi r6, r7, #8, #8
  pkhbt r4, r4, r6, lsl #16
  ldr r0, [sp, #Y]
  str r4, [r0], #4
  str r0, [sp, #Y]
  ldrd r10, r11, [sp, #BIAS] /* and BIAS_END */
  cmp r10, r11
  bne channels
  add sp, #FRAME
  pop {r4-r11, pc}
