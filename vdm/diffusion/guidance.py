"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598).

    x0 = x0_null + scale (x0_cond - x0_null)

At a given z every prediction is affine in x0, so guidance is the same whether
it is written for x0, eps, v or the flow velocity.
"""

from collections.abc import Callable

from etils.array_types import Array, FloatArray
import jax
import jax.numpy as jnp

from vdm.diffusion import process


def guided(
  denoise_cond: Callable[..., FloatArray['b t h w c']],
  cond: dict[str, Array['b ...']],
  null: dict[str, Array['b ...']],
  *,
  scale: float,
  interval: tuple[float, float] = (process.NOISE, process.CLEAN),
  rescale: float = 0.0,
) -> Callable[..., FloatArray['b t h w c']]:
  """Returns a denoiser for `samplers.sample` with its conditioning bound in.

  Args:
    denoise_cond: (z [b t h w c], levels [b t], cond) -> x0 [b t h w c].
    cond: the conditioning.
    null: the null value of every key of `cond`, with the same shapes.
    scale: 1 means no guidance, and one evaluation per call; otherwise the
      conditional and null inputs run as one batch of 2 b.
    interval: (low, high) log-SNR of the frames to guide; other frames get the
      conditional prediction (Kynkaanniemi et al. 2024, arXiv:2404.07724).
    rescale: share of the way from the guided clip to one with the standard
      deviation of the conditional clip (Lin et al. 2023, arXiv:2305.08891, eq.
      15, 16), taken over all frames to preserve their relative brightness.
  """
  if scale == 1:
    return lambda z, levels: denoise_cond(z, levels, cond)
  low, high = interval
  both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), cond, null)

  def denoise(z, levels):
    outputs = denoise_cond(
      jnp.concatenate([z, z]), jnp.concatenate([levels, levels]), both
    )
    conditional, unconditional = jnp.split(process.at_least_float32(outputs), 2)
    x0 = unconditional + scale * (conditional - unconditional)
    if rescale:
      axes = tuple(range(1, x0.ndim))
      target_std, std = (
        jnp.std(x, axis=axes, keepdims=True) for x in (conditional, x0)
      )
      ratio = target_std / jnp.maximum(std, jnp.finfo(x0.dtype).tiny)
      x0 = x0 * (1 + rescale * (ratio - 1))
    inside = process.per_frame((low <= levels) & (levels <= high), x0)
    return jnp.where(inside, x0, conditional)

  return denoise
