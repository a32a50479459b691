/* Reset, register window vectors and stack of an Xtensa core, for QEMU's machine `sim`. */

/* The assembler does not know the instruction. */
.macro SIMCALL
  .byte 0x00, 0x51, 0x00
.endm

  .section .reset, "ax"
  .global _reset
_reset:
  j 1f
  .p2align 2
2:
  .long start
1:
  l32r a2, 2b
  jx a2

  /* Window vectors: offsets from VECBASE are the architecture's. */
  .section .vectors, "ax"
  .p2align 10
vectors:
  /* overflow of 4 */
  s32e a0, a5, -16
  s32e a1, a5, -12
  s32e a2, a5, -8
  s32e a3, a5, -4
  rfwo

  /* 0x40: underflow of 4 */
  .p2align 6
underflow4:
  l32e a0, a5, -16
  l32e a1, a5, -12
  l32e a2, a5, -8
  l32e a3, a5, -4
  rfwu

  /* 0x80: overflow of 8 */
  .p2align 6
  s32e a0, a9, -16
  l32e a0, a1, -12
  s32e a1, a9, -12
  s32e a2, a9, -8
  s32e a3, a9, -4
  s32e a4, a0, -32
  s32e a5, a0, -28
  s32e a6, a0, -24
  s32e a7, a0, -20
  rfwo

  /* 0xC0: underflow of 8 */
  .p2align 6
underflow8:
  l32e a0, a9, -16
  l32e a1, a9, -12
  l32e a2, a9, -8
  l32e a7, a1, -12
  l32e a3, a9, -4
  l32e a4, a7, -32
  l32e a5, a7, -28
  l32e a6, a7, -24
  l32e a7, a7, -20
  rfwu

  /* 0x100: overflow of 12 */
  .p2align 6
  s32e a0, a13, -16
  l32e a0, a1, -12
  s32e a1, a13, -12
  s32e a2, a13, -8
  s32e a3, a13, -4
  s32e a4, a0, -48
  s32e a5, a0, -44
  s32e a6, a0, -40
  s32e a7, a0, -36
  s32e a8, a0, -32
  s32e a9, a0, -28
  s32e a10, a0, -24
  s32e a11, a0, -20
  rfwo

  /* 0x140: underflow of 12 */
  .p2align 6
underflow12:
  l32e a0, a13, -16
  l32e a1, a13, -12
  l32e a2, a13, -8
  l32e a11, a1, -12
  l32e a3, a13, -4
  l32e a4, a11, -48
  l32e a5, a11, -44
  l32e a6, a11, -40
  l32e a7, a11, -36
  l32e a8, a11, -32
  l32e a9, a11, -28
  l32e a10, a11, -24
  l32e a11, a11, -20
  rfwu

  /* 0x300: exceptions end the program with code 70. */
  .p2align 8
  .space 0x100
failed:
  movi a3, 70
  movi a2, 1
  SIMCALL

  /* 0x340: exception in user mode; cause 5 is a MOVSP whose caller's registers are in memory. */
  .p2align 6
  wsr a0, excsave1
  rsr a0, exccause
  beqi a0, 5, move_stack
  j failed

  /* 0x3C0: exception in an exception */
  .p2align 7
  .space 0x40
  j failed

  /* Make the interrupted MOVSP an underflow: PS.OWB becomes the window of the function, and the
   * handler for the size of its call, of the two upper bits of its a0, loads the caller's registers
   * and comes back to it. */
move_stack:
  rsr a0, windowbase
  rotw -1
  rsr a2, ps
  extui a3, a2, 8, 4
  xor a3, a3, a4
  rsr a4, excsave1
  slli a3, a3, 8
  xor a2, a2, a3
  wsr a2, ps
  rsync
  bbsi a4, 31, 1f
  j underflow4
1:
  rotw -1
  bbsi a8, 30, 2f
  j underflow8
2:
  rotw -1
  j underflow12

  .text
  .literal_position
  .literal .Lvectors, vectors
  .literal .Lstack, stack_end
  .literal .Lmain, main
  /* window overflow enabled, user mode, no exception pending */
  .literal .Lstatus, 0x40020
  .global start
  .p2align 2
start:
  l32r a2, .Lvectors
  wsr a2, vecbase
  movi a2, 0
  wsr a2, windowbase
  rsync
  movi a2, 1
  wsr a2, windowstart
  rsync
  l32r a2, .Lstatus
  wsr a2, ps
  movi a2, 255
  wsr a2, cpenable
  rsync
  movi a0, 0
  l32r a1, .Lstack
  l32r a4, .Lmain
  callx4 a4
  /* exit with what main returned */
  or a3, a6, a6
  movi a2, 1
  SIMCALL

  /* int32_t simcall(number, a, b, c) */
  .global simcall
  .p2align 2
simcall:
  entry a1, 32
  SIMCALL
  retw

  /* uint32_t files_ticks(void): cycles of the core, which QEMU makes of its virtual time */
  .global files_ticks
  .p2align 2
files_ticks:
  entry a1, 32
  rsr a2, ccount
  retw

  .section .note.GNU-stack, "", @progbits
