"""Checkpoints: saved, verified and restored; the only room with Orbax.

It knows trees of arrays and JSON values, and nothing of training. Training,
sampling and evaluation use `manager.Checkpoints`; the other modules are its
parts.
"""
