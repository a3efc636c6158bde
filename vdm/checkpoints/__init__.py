"""Checkpoints, verified; they hold arrays and know nothing of training."""
