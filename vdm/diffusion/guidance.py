"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598).

    x0 = x0_null + scale (x0_cond - x0_null)

At a given z every prediction is affine in x0, so this is the same guidance
whether it is written for x0, eps, v or the flow velocity.
"""

import jax
import jax.numpy as jnp

from vdm.diffusion import process


def guided(
  denoise_cond,
  cond,
  null,
  *,
  scale,
  interval=(process.NOISE, process.CLEAN),
  rescale=0.0,
):
  """Returns a denoiser for `samplers.sample` with its conditioning bound in.

  Args:
    denoise_cond: (z [b t h w c], levels [b t], cond) -> x0 [b t h w c].
    cond: dict of arrays [b ...].
    null: the same dict with every key's null, the same shapes.
    scale: 1 is no guidance, and one evaluation; otherwise conditional and null
      run as one batch of 2 b.
    interval: (low, high), the log-SNR of the frames that are guided; the
      others are conditional (Kynkaanniemi et al. 2024, arXiv:2404.07724).
    rescale: share of the way from the guided clip to one with the conditional
      clip's deviation (Lin et al. 2023, arXiv:2305.08891, eq. 15, 16), over
      all frames, so that they keep their brightness beside each other.
  """
  if scale == 1:
    return lambda z, levels: denoise_cond(z, levels, cond)
  low, high = interval
  both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), cond, null)

  def denoise(z, levels):
    twice = denoise_cond(
      jnp.concatenate([z, z]), jnp.concatenate([levels, levels]), both
    )
    conditional, without = jnp.split(process.at_least_float32(twice), 2)
    x0 = without + scale * (conditional - without)
    if rescale:
      axes = tuple(range(1, x0.ndim))
      wanted, got = (
        jnp.std(x, axis=axes, keepdims=True) for x in (conditional, x0)
      )
      ratio = wanted / jnp.maximum(got, jnp.finfo(x0.dtype).tiny)
      x0 = x0 * (1 + rescale * (ratio - 1))
    inside = process.per_frame((low <= levels) & (levels <= high), x0)
    return jnp.where(inside, x0, conditional)

  return denoise
