"""From a checkpoint to the packed model, its integer reference and its C source."""
