"""Metrics on videos, latents and features: arrays in, numbers out.

A metric that is a function of arrays belongs here. This room knows `common`
alone: features of networks, generated videos and real clips come in as arrays,
and which sets are compared, cached and written is decided in `evaluation`. Any
room above may call it.
"""
