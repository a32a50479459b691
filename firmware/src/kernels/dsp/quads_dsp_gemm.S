/* quads_dsp_gemm_s8, quads_dsp_gemm_add_s16: see quads_dsp_linear.h.
 *
 * Two channels times four rows in eight accumulators: 11 instructions for 16 products, with every
 * register in use. The loop is unrolled STEPS times and entered in its midst when n_in does not
 * divide, with the pointers set back by the steps left out. Offsets begin at 8 so that the last
 * load of a turn can move its pointer on. Sums are bounded at export.
 *
 *   r0, r3 weights   r12, lr inputs   r1 tile - 8   r2 panel - 8   r4-r7, r8-r11 sums
 */
#define QUADS_GROUP 4
#define STEPS 16
#define STEP_BYTES 44

#define END 0         /* r1 after the last step */
#define TILE 4        /* r1 before the first */
#define BACK 8        /* bytes by which r2 is set back */
#define ENTRY 12      /* where the loop is entered */
#define BIAS 16
#define MULTIPLIER 24
#define Y 32          /* and its stride */
#define ROWS 40
#define FINISH 44     /* where the sums are requantized */
#define FRAME 48

  .syntax unified
  .thumb
  .text

  .macro products
  smlad r4, r0, r12, r4
  smlad r8, r3, r12, r8
  smlad r5, r0, lr, r5
  smlad r9, r3, lr, r9
  .endm

  .macro products_of_the_others
  smlad r6, r0, r12, r6
  smlad r10, r3, r12, r10
  smlad r7, r0, lr, r7
  smlad r11, r3, lr, r11
  .endm

  .section .text.quads_dsp_gemm, "ax", %progbits
  .balign 4
  .global quads_dsp_gemm_s8
  .type quads_dsp_gemm_s8, %function
quads_dsp_gemm_s8:
  push {r4-r11, lr}
  sub sp, #FRAME
  adr.w r12, finish_s8
  b begin

  .global quads_dsp_gemm_add_s16
  .type quads_dsp_gemm_add_s16, %function
quads_dsp_gemm_add_s16:
  push {r4-r11, lr}
  sub sp, #FRAME
  adr.w r12, finish_add_s16

begin:
  orr r12, #1
  str r12, [sp, #FINISH]
  ldm r0, {r3-r11}
  strd r5, r6, [sp, #BIAS]
  strd r7, r8, [sp, #MULTIPLIER]
  strd r9, r10, [sp, #Y]
  str r11, [sp, #ROWS]
  sub r2, r1, #8
  sub r3, #8
  add r0, r3, r4, lsl #3
  str r0, [sp, #END]
  rsb r0, r4, #0
  and r0, #(STEPS - 1) /* steps left out */
  sub r3, r3, r0, lsl #3
  str r3, [sp, #TILE]
  lsl r3, r0, #4
  str r3, [sp, #BACK]
  adr.w r3, turn
  mov r4, #STEP_BYTES
  mla r3, r0, r4, r3
  orr r3, #1
  str r3, [sp, #ENTRY]

group:
  ldrd r4, r8, [sp, #BIAS]
  ldrd r1, r12, [sp, #TILE]
  mov r5, r4
  mov r6, r4
  mov r7, r4
  mov r9, r8
  mov r10, r8
  mov r11, r8
  sub r2, r2, r12
  ldr pc, [sp, #ENTRY]

  .balign 4
turn:
  .set at, 0
  .rept STEPS - 1
  ldrd r0, r3, [r1, #(8 + 8 * at)]
  ldrd r12, lr, [r2, #(8 + 16 * at)]
  products
  ldrd r12, lr, [r2, #(16 + 16 * at)]
  products_of_the_others
  .set at, at + 1
  .endr
  ldrd r0, r3, [r1, #(8 * STEPS)]!
  ldrd r12, lr, [r2, #(16 * STEPS - 8)]
  products
  ldrd r12, lr, [r2, #(16 * STEPS)]!
  products_of_the_others
  ldr r0, [sp, #END]
  cmp r1, r0
  bne turn
  ldrd r0, r1, [sp, #Y]
  ldrd r3, r12, [sp, #MULTIPLIER]
  ldr pc, [sp, #FINISH]

/* y[t] = sat8(RQ(sum)) of both channels, for four rows or as many as are left */
  .macro requantize_s8 a, b
  smmulr \a, \a, r3
  smmulr \b, \b, r12
  ssat \a, #8, \a
  ssat \b, #8, \b
  bfi \a, \b, #8, #8
  .endm

  .balign 4
finish_s8:
  ldr lr, [sp, #ROWS]
  requantize_s8 r4, r8
  requantize_s8 r5, r9
  requantize_s8 r6, r10
  requantize_s8 r7, r11
  strh r4, [r0]
  cmp lr, #QUADS_GROUP
  blt last_s8
  strh r5, [r0, r1]
  strh r6, [r0, r1, lsl #1]
  add r0, r0, r1, lsl #2
  sub r3, r0, r1
  strh r7, [r3]
  subs lr, #QUADS_GROUP
  str r0, [sp, #Y]
  str lr, [sp, #ROWS]
  bne group
  b done
last_s8:
  cmp lr, #2
  it ge
  strhge r5, [r0, r1]
  it gt
  strhgt r6, [r0, r1, lsl #1]
  b done

/* y[t] = sat16(y[t] + RQ(sum)) */
  .macro requantize_add_s16 a, b
  ldr lr, [r0]
  smmulr \a, \a, r3
  smmulr \b, \b, r12
  sxtah \a, \a, lr
  add \b, \b, lr, asr #16
  ssat \a, #16, \a
  ssat \b, #16, \b
  pkhbt \a, \a, \b, lsl #16
  str \a, [r0]
  .endm

  .balign 4
finish_add_s16:
  requantize_add_s16 r4, r8
  ldr r4, [sp, #ROWS]
  cmp r4, #QUADS_GROUP
  blt last_add_s16
  add r0, r1
  requantize_add_s16 r5, r9
  add r0, r1
  requantize_add_s16 r6, r10
  add r0, r1
  requantize_add_s16 r7, r11
  add r0, r1
  subs r4, #QUADS_GROUP
  str r0, [sp, #Y]
  str r4, [sp, #ROWS]
  bne group
  b done
last_add_s16:
  cmp r4, #2
  blt done
  add r0, r1
  requantize_add_s16 r5, r9
  cmp r4, #3
  blt done
  add r0, r1
  requantize_add_s16 r6, r10

done:
  add sp, #FRAME
  pop {r4-r11, pc}
