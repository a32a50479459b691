/* void quads_widen_keys(const int8_t *k0, const int8_t *k1, const int8_t *k2, const int8_t *k3,
 *                       size_t d_head, uint32_t *out);
 *
 * Interface: quads_dsp.h.
 */
    .syntax unified
    .thumb

    .macro four
    ldr     r8, [r0], #4
    ldr     r9, [r1], #4
    ldr     r10, [r2], #4
    ldr     r11, [r3], #4
    sxtb16  r4, r8
    sxtb16  r5, r9
    sxtb16  r6, r10
    sxtb16  r7, r11
    sxtb16  r8, r8, ror #8
    sxtb16  r9, r9, ror #8
    sxtb16  r10, r10, ror #8
    sxtb16  r11, r11, ror #8
    stm     r12!, {r4-r11}
    .endm

    .section .text.quads_widen_keys, "ax", %progbits
    .global quads_widen_keys
    .type quads_widen_keys, %function
    .thumb_func
quads_widen_keys:
    push  {r4-r11, lr}
    ldr   lr, [sp, #36]
    ldr   r12, [sp, #40]
    add   lr, r0
.Lloop:
    four
    four
    cmp   r0, lr
    bne   .Lloop
    pop   {r4-r11, pc}
    .size quads_widen_keys, . - quads_widen_keys
