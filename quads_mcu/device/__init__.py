"""Boards, builds, and the serial link to them."""
