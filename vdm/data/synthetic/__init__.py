"""Procedural clips with exact truth: what is drawn, how it moves, its pixels.

`scenes.render` is the entry, for the builder of the data set and for tests that
need truth; `paths`, `mechanics`, `shapes` and `painting` serve it alone. NumPy
only. `vdm.metrics.laws` measures generated clips against the same laws of
motion and imports nothing from here. `captions` says in words what a scene
shows.
"""
