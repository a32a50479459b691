/* Two vectors times four rows in the general registers: eight sums, the even ones. Each block of 16
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

/* stack frame */
#define START 0          /* 4 times start[0], 4 times start[1] */
#define ENTRY 32         /* into the unrolled loop */
#define AFTER 36         /* the loop */
#define TURNS 40
#define TILE 44
#define SUMS 48
#define SUMS_STEP 52     /* from behind the sums of vector 0 to those of vector 1, bytes */
#define X_STEP 56        /* from the end of a row to the row four below, bytes */
#define GROUPS 60        /* of four rows, still to do */
#define REST 64          /* rows behind the last whole group */
#define STRIDE 68        /* of rows, bytes */
#define FRAME 72

/* load_w, load_x: instructions; x_bytes: of a row per block; w0, w1, x: vectors */
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
    mov     r12, r0
    ldrd    r1, r2, [r12, #DOT_START]
    mov     r3, r1
    strd    r1, r3, [sp, #START]
    strd    r1, r3, [sp, #START + 8]
    mov     r3, r2
    strd    r2, r3, [sp, #START + 16]
    strd    r2, r3, [sp, #START + 24]

    /* blocks, turns of the loop and where the first turn begins */
    ldr     r0, [r12, #DOT_LENGTH]
    lsrs    r1, r0, #\log2_lanes        /* whole blocks */
    adds    r2, r1, #7
    lsrs    r2, r2, #3                  /* turns */
    rsb     r3, r1, r2, lsl #3          /* blocks that the first turn leaves out */
    movs    r4, #56
    mul     r3, r3, r4
    adr.w   r4, 2f
    add     r3, r4
    add     r3, #1                      /* Thumb */
    adr.w   r4, 4f
    tst     r0, #(1 << \log2_lanes) - 1
    it      ne
    adrne.w r4, 3f
    add     r4, #1
    cmp     r1, #0
    it      eq
    moveq   r3, r4
    strd    r3, r4, [sp, #ENTRY]

    ldr     r6, [r12, #DOT_SUMS_STRIDE]
    lsls    r6, r6, #2
    subs    r6, #16
    ldr     r5, [r12, #DOT_SUMS]
    ldr     r3, [r12, #DOT_TILE]
    strd    r2, r3, [sp, #TURNS]
    strd    r5, r6, [sp, #SUMS]

    /* the first four rows; a row that is not there is the one above */
    ldr     r2, [r12, #DOT_X_STRIDE]
    ldr     r4, [r12, #DOT_ROWS]
    lsls    r0, r2, #2
    movs    r3, #\x_bytes
    mls     r0, r1, r3, r0
    ldr     r1, [r12, #DOT_X]
    lsrs    r6, r4, #2
    and     r8, r4, #3
    cmp     r6, #0
    itt     eq
    moveq   r6, #1
    moveq   r8, #0
    strd    r0, r6, [sp, #X_STEP]
    strd    r8, r2, [sp, #REST]
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

1:  ldrd    r11, r9, [sp, #TURNS]
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
    add     r11, r0
    stm     r11, {r8, r10, r12, lr}
    add     r1, r2
    add     r3, r2
    add     r5, r2
    add     r7, r2
    ldr     r4, [sp, #GROUPS]
    subs    r4, #1
    str     r4, [sp, #GROUPS]
    bne     1b

    /* the last rows together with those just above them, whose sums are the same again */
    ldrd    r0, r2, [sp, #REST]         /* and STRIDE */
    cbz     r0, 5f
    movs    r4, #0
    str     r4, [sp, #REST]
    movs    r4, #1
    str     r4, [sp, #GROUPS]
    rsb     r0, r0, #4
    muls    r2, r0, r2
    subs    r1, r1, r2
    subs    r3, r3, r2
    subs    r5, r5, r2
    subs    r7, r7, r2
    ldr     r4, [sp, #SUMS]
    sub     r4, r4, r0, lsl #2
    str     r4, [sp, #SUMS]
    b       1b

5:  add     sp, #FRAME
    pop     {r4-r11, pc}
    .size \name, . - \name
.endm

    DOT quads_dot_2x4_s8, vldrb.u8, vldrb.u8, s8, 16, 4
    DOT quads_dot_2x4_s16, vldrh.u16, vldrb.s16, s16, 8, 3
