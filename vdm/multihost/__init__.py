"""The processes of a run: joining, exchanging values, stopping together.

Everything that uses jax's distributed service or moves arrays between processes
belongs here, and nothing about training. Every room above may call it; Grain
workers and preparation may not, because it imports jax. With one process every
call returns at once.
"""
