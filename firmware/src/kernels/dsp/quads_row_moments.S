/* int64_t quads_row_moments(const int16_t *x, size_t d_model, int32_t *sum);
 *
 * Interface: quads_dsp.h.
 */
    .syntax unified
    .thumb

    .macro add_pair pair
    smlad  r12, \pair, r3, r12
    smlald r8, r9, \pair, \pair
    .endm

    .section .text.quads_row_moments, "ax", %progbits
    .global quads_row_moments
    .type quads_row_moments, %function
    .thumb_func
quads_row_moments:
    push  {r4-r9, lr}
    mov   r3, #0x00010001
    mov   r12, #0
    mov   r8, #0
    mov   r9, #0
.Leight:
    ldm   r0!, {r4-r7}
    add_pair r4
    add_pair r5
    add_pair r6
    add_pair r7
    subs  r1, #8
    bne   .Leight
    str   r12, [r2]
    mov   r0, r8
    mov   r1, r9
    pop   {r4-r9, pc}
    .size quads_row_moments, . - quads_row_moments
