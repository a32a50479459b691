/* esp_app_desc_t of ESP-IDF: 256 bytes at the start of the constants, first their magic word. */
  .section .app_description, "a"
  .p2align 4
  .long 0xABCD5432
  .long 0
  .long 0, 0
  .ascii "1.0"
  .space 29
  .ascii "quads"
  .space 27
  .space 256 - 80
