/* Half of each packed block, four channels of sixteen inputs, to a tile; the last load of a half
 * skips the other one. Described in quads_helium.h.
 * r0: packed, r1: table, r2: blocks, r3: tile, first argument on the stack: bits */

    .syntax unified
    .thumb
    .text

/* r4: the tile's second pair of channels */

.macro DECODE_8
    vldrb.u8 q0, [r0], #16
    vldrb.u8 q1, [r1, q0]
    vldrb.u8 q0, [r0], #16
    vstrb.8 q1, [r3], #16
    vldrb.u8 q2, [r1, q0]
    vldrb.u8 q0, [r0], #16
    vstrb.8 q2, [r3], #16
    vldrb.u8 q1, [r1, q0]
    vldrb.u8 q0, [r0], #80
    vstrb.8 q1, [r4], #16
    vldrb.u8 q2, [r1, q0]
    vstrb.8 q2, [r4], #16
.endm

.macro DECODE_4
    vldrb.u16 q0, [r0], #8
    vldrh.u16 q1, [r1, q0, uxtw #1]
    vldrb.u16 q0, [r0], #8
    vstrb.8 q1, [r3], #16
    vldrh.u16 q2, [r1, q0, uxtw #1]
    vldrb.u16 q0, [r0], #8
    vstrb.8 q2, [r3], #16
    vldrh.u16 q1, [r1, q0, uxtw #1]
    vldrb.u16 q0, [r0], #40
    vstrb.8 q1, [r4], #16
    vldrh.u16 q2, [r1, q0, uxtw #1]
    vstrb.8 q2, [r4], #16
.endm

/* The fourth channel's pairs lie in the upper two bits of the others' bytes. */
.macro DECODE_3
    vldrb.u16 q0, [r0], #8
    vldrh.u16 q3, [r1, q0, uxtw #1]
    vldrb.u16 q1, [r0], #8
    vstrb.8 q3, [r3], #16
    vldrh.u16 q3, [r1, q1, uxtw #1]
    vldrb.u16 q2, [r0], #32
    vstrb.8 q3, [r3], #16
    vldrh.u16 q3, [r1, q2, uxtw #1]
    vsri.8  q2, q1, #2
    vstrb.8 q3, [r4], #16
    vsri.8  q2, q0, #4
    vshr.u16 q2, q2, #2
    vldrh.u16 q3, [r1, q2, uxtw #1]
    vstrb.8 q3, [r4], #16
.endm

/* A byte holds pairs of two channels. */
.macro DECODE_2
    vldrb.u16 q0, [r0], #8
    vldrh.u16 q1, [r1, q0, uxtw #1]
    vshr.u16 q0, q0, #4
    vstrb.8 q1, [r3], #16
    vldrh.u16 q2, [r1, q0, uxtw #1]
    vldrb.u16 q0, [r0], #24
    vstrb.8 q2, [r3], #16
    vldrh.u16 q1, [r1, q0, uxtw #1]
    vshr.u16 q0, q0, #4
    vstrb.8 q1, [r4], #16
    vldrh.u16 q2, [r1, q0, uxtw #1]
    vstrb.8 q2, [r4], #16
.endm

    .global quads_decode_blocks
    .type quads_decode_blocks, %function
    .p2align 2
    .thumb_func
quads_decode_blocks:
    push    {r4, lr}
    ldr     r12, [sp, #8]
    add     r4, r3, r2, lsl #5
    dls     lr, r2
    cmp     r12, #4
    beq.w   4f
    cmp     r12, #3
    beq.w   3f
    cmp     r12, #2
    beq.w   2f
8:  DECODE_8
    le      lr, 8b
    pop     {r4, pc}
4:  DECODE_4
    le      lr, 4b
    pop     {r4, pc}
3:  DECODE_3
    le      lr, 3b
    pop     {r4, pc}
2:  DECODE_2
    le      lr, 2b
    pop     {r4, pc}
    .size quads_decode_blocks, . - quads_decode_blocks
