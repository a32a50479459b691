/* void quads_soften_pair(const int32_t *scores, size_t tokens, int32_t multiplier,
 *                        uint32_t *powers, uint32_t *sums);
 *
 * Interface: quads_dsp.h. z = RQ((top - score) << 4, multiplier); the power is 2^(-z / 64), by
 * table and shift. From z = 14 * 64 on every power is zero, so that saturating z to 1023 changes
 * none.
 */
    .syntax unified
    .thumb

#define SCORES 0
#define COUNT 4
#define FRAME_BYTES 8
#define SUMS (FRAME_BYTES + 36)

    .macro raise top, score
    cmp   \score, \top
    it    gt
    movgt \top, \score
    .endm

/* score becomes its power; r0 multiplier, r1 table */
    .macro soften top, score, scratch
    sub   \score, \top, \score, lsl #4
    smmulr \score, \score, r0
    usat  \score, #10, \score
    and   \scratch, \score, #63
    ldrh  \scratch, [r1, \scratch, lsl #1]
    lsr   \score, #6
    lsr   \score, \scratch, \score
    .endm

/* Four scores of one query; r2 scores, r4 a pair of ones */
    .macro soften_four top, sum, power0, power1
    ldm   r2!, {r5-r8}
    soften \top, r5, r9
    soften \top, r6, r9
    soften \top, r7, r9
    soften \top, r8, r9
    pkhbt r5, r5, r6, lsl #16
    pkhbt r7, r7, r8, lsl #16
    smlad \sum, r5, r4, \sum
    smlad \sum, r7, r4, \sum
    str   r5, [r3, #\power0]
    str   r7, [r3, #\power1]
    .endm

    .section .text.quads_soften_pair, "ax", %progbits
    .global quads_soften_pair
    .type quads_soften_pair, %function
    .thumb_func
quads_soften_pair:
    push  {r4-r11, lr}
    sub   sp, #FRAME_BYTES
    lsr   r12, r1, #3
    strd  r0, r12, [sp, #SCORES]
    add   r12, r0, r1, lsl #3
    ldr   r10, [r0]
    ldr   r11, [r0, #16]
.Lgreatest:
    ldm   r0!, {r4-r7}
    raise r10, r4
    raise r10, r5
    raise r10, r6
    raise r10, r7
    ldm   r0!, {r4-r7}
    raise r11, r4
    raise r11, r5
    raise r11, r6
    raise r11, r7
    cmp   r0, r12
    bne   .Lgreatest

    lsl   r10, #4
    lsl   r11, #4
    mov   r0, r2
    ldr   r1, =quads_exp_table
    ldr   r2, [sp, #SCORES]
    mov   r4, #0x00010001
    mov   r12, #0
    mov   lr, #0
.Leight:
    soften_four r10, r12, 0, 8
    soften_four r11, lr, 4, 12
    soften_four r10, r12, 16, 24
    soften_four r11, lr, 20, 28
    add   r3, #32
    ldr   r5, [sp, #COUNT]
    subs  r5, #1
    str   r5, [sp, #COUNT]
    bne   .Leight

    ldr   r0, [sp, #SUMS]
    strd  r12, lr, [r0]
    add   sp, #FRAME_BYTES
    pop   {r4-r11, pc}
    .ltorg
    .size quads_soften_pair, . - quads_soften_pair
