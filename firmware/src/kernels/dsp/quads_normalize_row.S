/* void quads_normalize_row(const int16_t *x, const int16_t *gamma, const int32_t *beta, int8_t *y,
 *                          size_t d_model, const quads_row_constants_t *constants);
 *
 * Interface: quads_dsp.h.
 */
    .syntax unified
    .thumb

#define D_MODEL 36
#define CONSTANTS 40

/* x r0, gamma r1, y r3; power r4, offset r5, inverse r6, rounding r7; scratch r12, lr */
    .macro normalize beta
    ldrsh r12, [r0], #2
    ldrsh lr, [r1], #2
    mla   r12, r12, r4, r5
    smmulr r12, r12, r6
    mla   r12, r12, lr, \beta
    smmulr r12, r12, r7
    ssat  r12, #8, r12
    strb  r12, [r3], #1
    .endm

    .section .text.quads_normalize_row, "ax", %progbits
    .global quads_normalize_row
    .type quads_normalize_row, %function
    .thumb_func
quads_normalize_row:
    push  {r4-r11, lr}
    ldr   r12, [sp, #CONSTANTS]
    ldm   r12, {r4-r7}
    ldr   r12, [sp, #D_MODEL]
    add   r12, r0, r12, lsl #1
    str   r12, [sp, #D_MODEL] /* now the end of x */
.Leight:
    ldm   r2!, {r8-r11}
    normalize r8
    normalize r9
    normalize r10
    normalize r11
    ldm   r2!, {r8-r11}
    normalize r8
    normalize r9
    normalize r10
    normalize r11
    ldr   r12, [sp, #D_MODEL]
    cmp   r0, r12
    bne   .Leight
    pop   {r4-r11, pc}
    .size quads_normalize_row, . - quads_normalize_row
