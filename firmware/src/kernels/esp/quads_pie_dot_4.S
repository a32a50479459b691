/* void quads_pie_dot_4(const int8_t *tile, const int8_t *x, size_t n_in, const int32_t *bias,
 *                      int32_t *sums)                                            quads_esp.h
 *
 * ESP32-S3 alone: its processor instruction extensions ("PIE", TRM chapter 1) multiply 16 int8 by 16
 * int8 and add all products to ACCX, 40 bits wide: exact, for |sum| <= n_in * 2^14 < 2^30. The tile
 * is read by 16 bytes from multiples of 16, x by 8 from multiples of 8, and nothing beyond their
 * ends: of an odd group of eight the upper half of q0 keeps what it held, and meets weights of zero.
 *
 * Never executed on a chip; tests/pie.py executes this file by the instructions' description. */
#if QUADS_PIE
        .text
        .align  4
        .global quads_pie_dot_4
        .type   quads_pie_dot_4, @function
quads_pie_dot_4:                        /* a2 tile, a3 x, a4 n_in, a5 bias, a6 sums */
        entry   a1, 32
        srli    a7, a4, 4               /* whole groups of 16 */
        movi    a8, 4                   /* channels */
.Lchannel:
        mov     a9, a3
        ee.zero.accx
        loopgtz a7, .Lgroups_end
        ee.vld.l.64.ip q0, a9, 8
        ee.vld.128.ip q1, a2, 16
        ee.vld.h.64.ip q0, a9, 8
        ee.vmulas.s8.accx q0, q1
.Lgroups_end:
        bbci    a4, 3, .Leven
        ee.vld.l.64.ip q0, a9, 8
        ee.vld.128.ip q1, a2, 16
        ee.vmulas.s8.accx q0, q1
.Leven:
        l32i    a10, a5, 0
        rur.accx_0 a11
        add     a10, a10, a11
        s32i    a10, a6, 0
        addi    a5, a5, 4
        addi    a6, a6, 4
        addi    a8, a8, -1
        bnez    a8, .Lchannel
        retw
        .size   quads_pie_dot_4, . - quads_pie_dot_4
#endif
