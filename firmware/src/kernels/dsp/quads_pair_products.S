/* void quads_pair_products(const void *rows, size_t n_pairs, const void *columns, size_t n_steps,
 *                          int32_t *sums, size_t sums_stride);
 *
 * Interface: quads_dsp.h. A pair of rows and four columns fill the registers: per step 3 loads and
 * 8 dual multiplications, 16 products. The first pass may begin at its middle, since n_steps is a
 * multiple of 4 and a pass has 8.
 */
    .syntax unified
    .thumb

#define END 0
#define COLUMNS 4
#define PAIRS 8
#define HALF 12
#define FRAME_BYTES 16
#define SUMS (FRAME_BYTES + 36)
#define SUMS_STRIDE (SUMS + 4)

/* rows r0, columns r1; row words r12, lr; column words r2, r3; sums r4-r7 and r8-r11 */
    .macro step
    ldrd  r12, lr, [r0], #8
    ldrd  r2, r3, [r1], #16
    smlad r4, r12, r2, r4
    smlad r5, r12, r3, r5
    smlad r8, lr, r2, r8
    smlad r9, lr, r3, r9
    ldrd  r2, r3, [r1, #-8]
    smlad r6, r12, r2, r6
    smlad r7, r12, r3, r7
    smlad r10, lr, r2, r10
    smlad r11, lr, r3, r11
    .endm

    .section .text.quads_pair_products, "ax", %progbits
    .global quads_pair_products
    .type quads_pair_products, %function
    .thumb_func
quads_pair_products:
    push  {r4-r11, lr}
    sub   sp, #FRAME_BYTES
    add   r12, r2, r3, lsl #4
    strd  r12, r2, [sp, #END]
    and   r3, #4
    strd  r1, r3, [sp, #PAIRS]
    mov   r1, r2

.Lpair:
    movs  r4, #0
    movs  r5, #0
    movs  r6, #0
    movs  r7, #0
    mov   r8, r4
    mov   r9, r4
    mov   r10, r4
    mov   r11, r4
    cmp   r3, #0
    bne   .Lhalf
.Lpass:
    step
    step
    step
    step
.Lhalf:
    step
    step
    step
    step
    ldr   r12, [sp, #END]
    cmp   r1, r12
    bne   .Lpass

    ldrd  r2, r3, [sp, #SUMS]
    stm   r2, {r4-r11}
    add   r2, r3
    str   r2, [sp, #SUMS]
    ldrd  r1, r2, [sp, #COLUMNS]
    ldr   r3, [sp, #HALF]
    subs  r2, #1
    str   r2, [sp, #PAIRS]
    bne   .Lpair

    add   sp, #FRAME_BYTES
    pop   {r4-r11, pc}
    .size quads_pair_products, . - quads_pair_products
