/* Two vectors times four rows in the general registers: eight sums, the even ones. Each block of
 * lanes takes six loads and eight multiply-accumulates; loads and products alternate because the
 * core overlaps them. The loop is unrolled eightfold and entered in its middle, so that it needs
 * no remainder. Described in quads_helium.h. */

    .syntax unified
    .thumb
    .text

/* offsets in quads_dot_t */
#define DOT_TILE 0
#define DOT_X 4
#define DOT_X_STRIDE 8
#define DOT_ROWS 12
#define DOT_LENGTH 16
#define DOT_SUMS 20
#define DOT_SUMS_STRIDE 24
#define DOT_START 28
#define DOT_PAIRS 32

/* stack frame */
#define START 0          /* 4 times the first vector's start, 4 times the second's */
#define ENTRY 32         /* into the unrolled loop */
#define AFTER 36         /* the loop */
#define TURNS 40
#define TILE 44
#define SUMS_STEP 48     /* from behind four sums of a vector to those of the other, bytes */
#define X_STEP 52        /* from the end of a row to the row four below, bytes */
#define SUMS 56
#define SUMS_END 60      /* behind the first vector's sums of whole groups, later of all */
#define REST 64          /* rows behind the last whole group, still to do */
#define BACK 68          /* the other 4 - REST rows of their group, bytes */
#define ROWS 72          /* addresses of the first four rows */
#define PAIRS 88         /* still to do, this one included */
#define NEXT_START 92
#define BASE 96          /* of the pair's sums */
#define WHOLE 100        /* bytes of a vector's sums of whole groups */
#define REST_ROWS 104
#define PAIR_STEP 108    /* of the sums, bytes */
#define TILE_STEP 112    /* bytes */
#define FRAME 120

/* load_w, load_x: instructions; x_bytes: of a row per block */
.macro BLOCK load_w, load_x, type, x_bytes
    \load_w  q0, [r9], #16
    \load_x  q2, [r1], #\x_bytes
    vmladava.\type r0, q0, q2
    \load_w  q1, [r9], #16
    vmladava.\type r8, q1, q2
    \load_x  q3, [r3], #\x_bytes
    vmladava.\type r2, q0, q3
    \load_x  q2, [r5], #\x_bytes
    vmladava.\type r10, q1, q3
    vmladava.\type r4, q0, q2
    \load_x  q3, [r7], #\x_bytes
    vmladava.\type r12, q1, q2
    vmladava.\type r6, q0, q3
    vmladava.\type lr, q1, q3
.endm

.macro DOT name, load_w, load_x, type, x_bytes, log2_lanes
    .global \name
    .type \name, %function
    .p2align 2
    .thumb_func
\name:
    push    {r4-r11, lr}
    sub     sp, #FRAME

    /* blocks, turns of the loop and where the first turn begins */
    ldr     r6, [r0, #DOT_LENGTH]
    lsrs    r1, r6, #\log2_lanes        /* whole blocks */
    adds    r2, r1, #7
    lsrs    r2, r2, #3                  /* turns */
    rsb     r3, r1, r2, lsl #3          /* blocks that the first turn leaves out */
    movs    r4, #56
    adr.w   r5, 2f
    adds    r5, #1                      /* Thumb */
    mla     r3, r3, r4, r5
    adr.w   r4, 4f
    lsls    r5, r1, #5                  /* bytes of a pair in the tile */
    ands    r6, r6, #(1 << \log2_lanes) - 1
    itt     ne
    adrne.w r4, 3f
    addne   r5, #32
    adds    r4, #1
    cmp     r1, #0
    it      eq
    moveq   r3, r4
    strd    r3, r4, [sp, #ENTRY]
    ldr     r3, [r0, #DOT_TILE]
    strd    r2, r3, [sp, #TURNS]
    str     r5, [sp, #TILE_STEP]

    ldrd    r2, r4, [r0, #DOT_X_STRIDE] /* and ROWS */
    ldrd    r5, r6, [r0, #DOT_SUMS]     /* and SUMS_STRIDE */
    lsls    r7, r6, #3
    lsls    r6, r6, #2
    subs    r6, #16
    ands    r8, r4, #3
    bics    r9, r4, #3
    itt     eq                          /* less than four rows: one group */
    moveq   r8, #0
    moveq   r9, #4
    lsl     r9, r9, #2
    strd    r5, r9, [sp, #BASE]         /* and WHOLE */
    strd    r8, r7, [sp, #REST_ROWS]    /* and PAIR_STEP */
    rsb     r8, r8, #4
    mul     r8, r8, r2
    str     r8, [sp, #BACK]
    lsls    r7, r2, #2
    movs    r3, #\x_bytes
    mls     r7, r1, r3, r7
    strd    r6, r7, [sp, #SUMS_STEP]    /* and X_STEP */
    ldrd    r5, r6, [r0, #DOT_START]    /* and PAIRS */
    strd    r6, r5, [sp, #PAIRS]        /* and NEXT_START */

    /* the first four rows; a row that is not there is the one above */
    ldr     r1, [r0, #DOT_X]
    mov     r3, r1
    cmp     r4, #2
    it      hs
    addhs   r3, r2
    mov     r5, r3
    cmp     r4, #3
    it      hs
    addhs   r5, r2
    mov     r7, r5
    cmp     r4, #4
    it      hs
    addhs   r7, r2
    strd    r1, r3, [sp, #ROWS]
    strd    r5, r7, [sp, #ROWS + 8]

0:  /* a pair of vectors */
    ldr     r0, [sp, #NEXT_START]
    ldrd    r2, r4, [r0], #8
    str     r0, [sp, #NEXT_START]
    vdup.32 q0, r2
    vdup.32 q1, r4
    vstrw.32 q0, [sp, #START]
    vstrw.32 q1, [sp, #START + 16]
    ldrd    r0, r2, [sp, #BASE]         /* and WHOLE */
    add     r2, r0
    strd    r0, r2, [sp, #SUMS]         /* and SUMS_END */
    ldr     r0, [sp, #REST_ROWS]
    str     r0, [sp, #REST]

1:  ldrd    r11, r9, [sp, #TURNS]       /* and TILE */
    ldm     sp, {r0, r2, r4, r6, r8, r10, r12, lr}
    ldr     pc, [sp, #ENTRY]

    .p2align 2
2:
    .rept 8
    BLOCK   \load_w, \load_x, \type, \x_bytes
    .endr
    subs    r11, #1
    bne     2b
    ldr     pc, [sp, #AFTER]

    .p2align 2
3:  /* half a block: the rows' other lanes read as zero */
    .if \log2_lanes == 4
    mov     r11, #0xFF
    vmsr    p0, r11
    vldrb.u8 q0, [r9]
    vldrb.u8 q1, [r9, #16]
    vpst
    vldrbt.u8 q2, [r1]
    vmladava.s8 r0, q0, q2
    vmladava.s8 r8, q1, q2
    vpst
    vldrbt.u8 q3, [r3]
    vmladava.s8 r2, q0, q3
    vmladava.s8 r10, q1, q3
    vpst
    vldrbt.u8 q2, [r5]
    vmladava.s8 r4, q0, q2
    vmladava.s8 r12, q1, q2
    vpst
    vldrbt.u8 q3, [r7]
    vmladava.s8 r6, q0, q3
    vmladava.s8 lr, q1, q3
    .endif

    .p2align 2
4:  ldr     r11, [sp, #SUMS]
    stm     r11!, {r0, r2, r4, r6}
    str     r11, [sp, #SUMS]
    ldrd    r0, r2, [sp, #SUMS_STEP]    /* and X_STEP */
    ldr     r4, [sp, #SUMS_END]
    cmp     r11, r4
    add     r11, r0
    stm     r11, {r8, r10, r12, lr}
    add     r1, r2
    add     r3, r2
    add     r5, r2
    add     r7, r2
    bne     1b

    /* the last rows together with those just above them, whose sums are the same again */
    ldrd    r0, r2, [sp, #REST]         /* and BACK */
    cbz     r0, 5f
    subs    r1, r1, r2
    subs    r3, r3, r2
    subs    r5, r5, r2
    subs    r7, r7, r2
    add     r4, r4, r0, lsl #2
    sub     r2, r4, #16
    strd    r2, r4, [sp, #SUMS]         /* and SUMS_END */
    movs    r0, #0
    str     r0, [sp, #REST]
    b       1b

5:  ldr     r0, [sp, #PAIRS]
    subs    r0, #1
    beq     6f
    str     r0, [sp, #PAIRS]
    ldr     r0, [sp, #TILE]
    ldrd    r2, r4, [sp, #PAIR_STEP]    /* and TILE_STEP */
    add     r0, r4
    str     r0, [sp, #TILE]
    ldr     r0, [sp, #BASE]
    add     r0, r2
    str     r0, [sp, #BASE]
    ldrd    r1, r3, [sp, #ROWS]
    ldrd    r5, r7, [sp, #ROWS + 8]
    b       0b

6:  add     sp, #FRAME
    pop     {r4-r11, pc}
    .size \name, . - \name
.endm

    DOT quads_dot_2x4_s8, vldrb.u8, vldrb.u8, s8, 16, 4
    DOT quads_dot_2x4_s16, vldrh.u16, vldrb.s16, s16, 8, 3
