"""What a training run is made of: steps, state, checkpoints, logs."""
