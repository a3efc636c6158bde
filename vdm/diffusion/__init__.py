"""Diffusion over per-frame noise levels: pure functions of arrays.

`schedules` maps time to log-SNR, `process` adds noise and converts between
predictions, `losses` draws the levels to train and weights errors, `samplers`
integrates from noise to a clip, `consistency` says how a network learns to do
so in few steps, and `masking` hides tokens in place of adding noise.
`conditions` lists what a network is told, `cascade` makes what it is told of a
small video, and `guidance` combines predictions. `rollouts` says which frames
of a longer video, or of one with given frames, a clip holds.
A denoiser is an argument here: no module imports a network. `training` and
`sampling` call these functions; nothing here reads a configuration or a file.
"""
