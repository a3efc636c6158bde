"""A run's network, bound to its sampler, for one window of a video.

`denoised` is of diffusion and of consistency models, `unmasked` of masked
tokens; `enlarged` has what networks are told that enlarge smaller videos. Each
of the first two has a `make_windows` that returns the same function, so that
`by_windows` knows windows and neither kind:

  make_window(task, window, params, worse_params, cond, seeds, number, known)
    -> latents [n t h w c], those of held frames as they were
"""
