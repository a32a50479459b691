/* quads_dsp_decode_4: see quads_dsp_linear.h. 19 instructions for 16 weights. */
  .syntax unified
  .thumb
  .section .text.quads_dsp_decode_4, "ax", %progbits
  .balign 4
  .global quads_dsp_decode_4
  .type quads_dsp_decode_4, %function
quads_dsp_decode_4:
  push {r4-r11, lr}
  ldr lr, [sp, #36]
  add r2, r0
turn:
  ldrb r4, [r0], #4
  ldrb r5, [r1], #4
  ldrb r6, [r0, #-3]
  ldrb r7, [r1, #-3]
  ldrb r8, [r0, #-2]
  ldrb r9, [r1, #-2]
  ldrb r10, [r0, #-1]
  ldrb r11, [r1, #-1]
  ldr r4, [r3, r4, lsl #2]
  ldr r5, [r3, r5, lsl #2]
  ldr r6, [r3, r6, lsl #2]
  ldr r7, [r3, r7, lsl #2]
  ldr r8, [r3, r8, lsl #2]
  ldr r9, [r3, r9, lsl #2]
  ldr r10, [r3, r10, lsl #2]
  ldr r11, [r3, r11, lsl #2]
  stm lr!, {r4-r11}
  cmp r0, r2
  bne turn
  pop {r4-r11, pc}
