/* void quads_widen_values(const int8_t *value, size_t d_head, size_t n_fours, uint32_t *out);
 *
 * Interface: quads_dsp.h.
 */
    .syntax unified
    .thumb

    .section .text.quads_widen_values, "ax", %progbits
    .global quads_widen_values
    .type quads_widen_values, %function
    .thumb_func
quads_widen_values:
    cbz   r2, .Lnothing
    push  {r4-r11, lr}
    add   r12, r1, r1, lsl #1
.Lloop:
    ldr   r4, [r0] /* channels 0 .. 3 of four tokens */
    ldr   r5, [r0, r1]
    ldr   r10, [r0, r1, lsl #1]
    ldr   r11, [r0, r12]
    add   r0, r0, r1, lsl #2
    pkhbt lr, r4, r5, lsl #16 /* channels 0 and 1 of the first two */
    pkhtb r7, r5, r4, asr #16 /* channels 2 and 3 */
    sxtb16 r4, lr
    sxtb16 r5, lr, ror #8
    sxtb16 r6, r7
    sxtb16 r7, r7, ror #8
    pkhbt r9, r10, r11, lsl #16
    pkhtb r11, r11, r10, asr #16
    sxtb16 r8, r9
    sxtb16 r9, r9, ror #8
    sxtb16 r10, r11
    sxtb16 r11, r11, ror #8
    stm   r3!, {r4-r11}
    subs  r2, #1
    bne   .Lloop
    pop   {r4-r11, pc}
.Lnothing:
    bx    lr
    .size quads_widen_values, . - quads_widen_values
