"""Measurements of a video while it decodes, and the rules over them.

`prepare_file` calls `observe` with every frame, then `letterbox` and `rules`;
nothing here decodes or writes.
"""
