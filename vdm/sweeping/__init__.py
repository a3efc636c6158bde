"""Several runs of one configuration in which one key is varied.

`plan` decides what runs, and refuses what cannot before anything has; `execute`
runs it here, one run after the other, and `slurm` writes a script for a
cluster. Between runs `halving` may stop the worse half of the values, at the
steps of the `ladder`. What came out is for `vdm.reporting` to say.
"""
