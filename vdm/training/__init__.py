"""Training: state, step, stages, checkpoints and what is logged."""

"""What a training run is made of: steps, state, checkpoints, logs."""
