"""The Whisper-shaped encoder, its sizes, its weight files and its codebooks."""
