/* One row of input times packed weights, eight channels at a time: their sums are the even general
 * registers. A gather load turns eight bytes into sixteen weights, so that a vector of products
 * takes three instructions. Two blocks per turn; an odd number enters in the middle. Described in
 * quads_helium.h. */

    .syntax unified
    .thumb
    .text

/* offsets in quads_dot_packed_t */
#define DOT_INDICES 0
#define DOT_TABLE 4
#define DOT_X 8
#define DOT_BLOCKS 12
#define DOT_GROUPS 16
#define DOT_BIAS 20
#define DOT_SUMS 24
#define DOT_BITS 28

/* stack frame */
#define ENTRY 0          /* into the loop */
#define X 4
#define TURNS 8
#define GROUPS 12        /* still to do */
#define FRAME 16

/* Half a block: the products of four channels. r1: indices, r5: table, q0: inputs. */
.macro HALF_8 a, b, c, d
    vldrb.u8 q1, [r1], #16
    vldrb.u8 q2, [r5, q1]
    vldrb.u8 q1, [r1], #16
    vmladava.s8 \a, q0, q2
    vldrb.u8 q3, [r5, q1]
    vldrb.u8 q1, [r1], #16
    vmladava.s8 \b, q0, q3
    vldrb.u8 q2, [r5, q1]
    vldrb.u8 q1, [r1], #16
    vmladava.s8 \c, q0, q2
    vldrb.u8 q3, [r5, q1]
    vmladava.s8 \d, q0, q3
.endm

.macro HALF_4 a, b, c, d
    vldrb.u16 q1, [r1], #8
    vldrh.u16 q2, [r5, q1, uxtw #1]
    vldrb.u16 q1, [r1], #8
    vmladava.s8 \a, q0, q2
    vldrh.u16 q3, [r5, q1, uxtw #1]
    vldrb.u16 q1, [r1], #8
    vmladava.s8 \b, q0, q3
    vldrh.u16 q2, [r5, q1, uxtw #1]
    vldrb.u16 q1, [r1], #8
    vmladava.s8 \c, q0, q2
    vldrh.u16 q3, [r5, q1, uxtw #1]
    vmladava.s8 \d, q0, q3
.endm

/* The fourth channel's pairs lie in the upper two bits of the others' bytes. */
.macro HALF_3 a, b, c, d
    vldrb.u16 q1, [r1], #8
    vldrh.u16 q4, [r5, q1, uxtw #1]
    vldrb.u16 q2, [r1], #8
    vmladava.s8 \a, q0, q4
    vldrh.u16 q4, [r5, q2, uxtw #1]
    vldrb.u16 q3, [r1], #8
    vmladava.s8 \b, q0, q4
    vldrh.u16 q4, [r5, q3, uxtw #1]
    vsri.8  q3, q2, #2
    vmladava.s8 \c, q0, q4
    vsri.8  q3, q1, #4
    vshr.u16 q3, q3, #2
    vldrh.u16 q4, [r5, q3, uxtw #1]
    vmladava.s8 \d, q0, q4
.endm

/* A byte holds pairs of two channels. */
.macro HALF_2 a, b, c, d
    vldrb.u16 q1, [r1], #8
    vldrh.u16 q2, [r5, q1, uxtw #1]
    vshr.u16 q3, q1, #4
    vmladava.s8 \a, q0, q2
    vldrh.u16 q2, [r5, q3, uxtw #1]
    vldrb.u16 q1, [r1], #8
    vmladava.s8 \b, q0, q2
    vldrh.u16 q2, [r5, q1, uxtw #1]
    vshr.u16 q3, q1, #4
    vmladava.s8 \c, q0, q2
    vldrh.u16 q2, [r5, q3, uxtw #1]
    vmladava.s8 \d, q0, q2
.endm

.macro BLOCK bits
    vldrb.u8 q0, [r3], #16
    HALF_\bits r0, r2, r4, r6
    HALF_\bits r8, r10, r12, lr
.endm

.macro GROUPS_OF bits
    adr.w   r0, 2f
    lsrs    r2, r7, #1                  /* an odd block */
    it      cs
    adrcs.w r0, 3f
    add     r0, #1                      /* Thumb */
    add     r7, #1
    lsrs    r7, r7, #1
    strd    r0, r3, [sp, #ENTRY]
    str     r7, [sp, #TURNS]

1:  ldrd    r3, r7, [sp, #X]            /* and TURNS */
    ldm     r9!, {r0, r2, r4, r6, r8, r10, r12, lr}
    ldr     pc, [sp, #ENTRY]
    .p2align 2
2:  BLOCK   \bits
3:  BLOCK   \bits
    subs    r7, #1
    bne     2b
    stm     r11!, {r0, r2, r4, r6, r8, r10, r12, lr}
    ldr     r0, [sp, #GROUPS]
    subs    r0, #1
    str     r0, [sp, #GROUPS]
    bne     1b
    b.w     done
.endm

    .global quads_dot_packed
    .type quads_dot_packed, %function
    .p2align 2
    .thumb_func
quads_dot_packed:
    push    {r4-r11, lr}
    vpush   {d8-d9}
    sub     sp, #FRAME
    ldrd    r9, r11, [r0, #DOT_BIAS]    /* and SUMS */
    ldrd    r7, r2, [r0, #DOT_BLOCKS]   /* and GROUPS */
    str     r2, [sp, #GROUPS]
    ldrd    r1, r5, [r0, #DOT_INDICES]  /* and TABLE */
    ldr     r3, [r0, #DOT_X]
    ldr     r2, [r0, #DOT_BITS]
    cmp     r2, #4
    beq.w   four
    cmp     r2, #3
    beq.w   three
    cmp     r2, #2
    beq.w   two
    GROUPS_OF 8
four:
    GROUPS_OF 4
three:
    GROUPS_OF 3
two:
    GROUPS_OF 2

done:
    add     sp, #FRAME
    vpop    {d8-d9}
    pop     {r4-r11, pc}
    .size quads_dot_packed, . - quads_dot_packed
