"""Diffusion over per-frame noise levels; knows no network, only functions.

`schedules` says which log-SNR belongs to which time, `process` what a level
does to a clip and what a network may predict, `losses` which levels are
trained and how errors are weighted, `samplers` how noise becomes a clip, and
`guidance` how conditioning is strengthened on the way.
"""
