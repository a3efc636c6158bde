"""The processes of a run: joining them, talking, and ending together.

The only room that uses jax's distributed service. With one process every call
returns at once.
"""
