"""A data set of clips to batches. Grain's workers import this room: no jax."""
