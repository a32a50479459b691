"""Sound in, int8 log-mel features out."""
