"""Turns NumPy arrays into files for people: mp4, GIF, PNG and HTML.

Any room may call this one; it knows `common` alone, and imports no jax, as
processes of the preparation import it. What decides how a video or a page is
shown belongs here, what decides which one is shown does not. Metrics never read
mp4 or GIF, which lose colours: they read the arrays of `samples.npz`.
"""
