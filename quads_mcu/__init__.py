"""Spoken language understanding on microcontrollers, trained and quantized by QUADS."""

__version__ = "0.1.0"
