"""Guidance: combinations of predictions, each a denoiser for the samplers.

    x0 = x0_cond + (scale - 1) (x0_cond - x0_worse)
                 + (history - 1) (x0_partial - x0_without)

`x0_worse` is that of the null condition (classifier-free guidance, Ho &
Salimans 2022, arXiv:2207.12598) or of a worse network (autoguidance, Karras et
al. 2024, arXiv:2406.02507), which needs no condition. The second line is
history guidance (Song et al. 2025, arXiv:2502.06764): `x0_without` is predicted
with pure noise in place of the frames that are held, `x0_partial` with these
frames as they are held or, the fractional variant, with more noise, which
guides by what is left in them of low frequency.

At a given z every prediction is affine in x0, so guidance is the same whether
it is written for x0, eps, v or the flow velocity.
"""

from collections.abc import Callable
from typing import NamedTuple

from etils.array_types import Array, BoolArray, FloatArray
import jax
import jax.numpy as jnp

from vdm.diffusion import process

Denoiser = Callable[..., FloatArray['b t h w c']]


class History(NamedTuple):
  """History guidance of a clip in which some frames are held.

  Attributes:
    scale: 1 is none.
    without: (z, levels) -> the same with pure noise in the held frames.
    partial: likewise with more noise; None: as they are held.
  """

  scale: float
  without: Callable[..., tuple[Array, Array]]
  partial: Callable[..., tuple[Array, Array]] | None = None


def replace_held(
  held: BoolArray['1 t'],
  frames: FloatArray['b t h w c'],
  level: FloatArray['1 t'],
) -> Callable[..., tuple[Array, Array]]:
  """Returns (z, levels) -> both with other frames, at `level`, where held."""

  def replace(z, levels):
    return (
      jnp.where(process.per_frame(held, z), frames, z),
      jnp.where(held, level, levels),
    )

  return replace


def guided(
  denoise_cond: Denoiser,
  cond: dict[str, Array['b ...']],
  null: dict[str, Array['b ...']],
  *,
  scale: float,
  interval: tuple[float, float] = (process.NOISE, process.CLEAN),
  rescale: float = 0.0,
  worse: Denoiser | None = None,
  history: History | None = None,
) -> Denoiser:
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
    worse: as `denoise_cond`, of the network to guide against, with the same
      condition; None: against the null condition.
    history: adds one row or two to the batch for each of b.
  """
  history = history if history and history.scale != 1 else None
  conditions, replacements = [cond], [None]
  if scale != 1 and worse is None:
    conditions.append(null)
    replacements.append(None)
  if history:
    for replace in filter(None, (history.partial, history.without)):
      conditions.append(cond)
      replacements.append(replace)
  if scale == 1 and not history:
    return lambda z, levels: denoise_cond(z, levels, cond)
  low, high = interval
  all_conditions = jax.tree.map(lambda *x: jnp.concatenate(x), *conditions)

  def denoise(z, levels):
    inputs = [f(z, levels) if f else (z, levels) for f in replacements]
    outputs = denoise_cond(
      *(jnp.concatenate(x) for x in zip(*inputs)), all_conditions
    )
    outputs = jnp.split(process.at_least_float32(outputs), len(inputs))
    x0 = conditional = outputs.pop(0)
    if scale != 1:
      other = outputs.pop(0) if worse is None else worse(z, levels, cond)
      x0 = x0 + (scale - 1) * (conditional - process.at_least_float32(other))
    if history:
      partial = outputs.pop(0) if history.partial else conditional
      x0 = x0 + (history.scale - 1) * (partial - outputs.pop(0))
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


def guided_logits(
  predict: Callable[..., FloatArray['b ...']],
  cond: dict[str, Array['b ...']],
  null: dict[str, Array['b ...']],
  *,
  scale: float,
  worse: Callable[..., FloatArray['b ...']] | None = None,
) -> Callable[..., FloatArray['b ...']]:
  """Returns a predictor for `masking.sample` with its conditioning bound in.

  With logits in place of x0 it is the formula above, and the probabilities are
  p_cond (p_cond / p_worse)^(scale - 1), up to their sum.

  Args:
    predict: (tokens [b ...], masked [b ...], cond) -> logits.
    cond: see `guided`, as is the rest.
    null: likewise.
    scale: likewise.
    worse: likewise.
  """
  if scale == 1:
    return lambda tokens, masked: predict(tokens, masked, cond)
  both = jax.tree.map(lambda *x: jnp.concatenate(x), cond, null)

  def predict_guided(tokens, masked):
    if worse is None:
      twice = (jnp.concatenate([x, x]) for x in (tokens, masked))
      own, other = jnp.split(predict(*twice, both), 2)
    else:
      own, other = (f(tokens, masked, cond) for f in (predict, worse))
    own, other = map(process.at_least_float32, (own, other))
    return own + (scale - 1) * (own - other)

  return predict_guided
