"""Guidance: combinations of predictions, each a denoiser for the samplers.

    x0 = x0_cond + sum_i w_i (x0_cond - x0_i)
                 + (history - 1) (x0_partial - x0_without)

With one contrast `x0_i`, of weight scale - 1, it is the prediction of the null
condition (classifier-free guidance, Ho & Salimans 2022, arXiv:2207.12598) or of
a worse network (autoguidance, Karras et al. 2024, arXiv:2406.02507), which
needs no condition.

With a scale s_i for each group of conditions c_1 .. c_n, told one after the
other (Brooks et al. 2023, arXiv:2211.09800, eq. 3; of independent ones Liu et
al. 2022, arXiv:2206.01714),

    x0 = x0(null) + sum_i s_i (x0(c_1 .. c_i) - x0(c_1 .. c_i-1)),

which is the first line with x0(c_1 .. c_i-1) as contrasts, of weights
s_i - s_i-1 where s_0 = 1: between groups of one scale there is none.

The second line is history guidance (Song et al. 2025, arXiv:2502.06764):
`x0_without` is predicted with pure noise in place of the frames that are held,
`x0_partial` with these frames as they are held or, the fractional variant, with
more noise, which guides by what is left in them of low frequency.

At a given z every prediction is affine in x0, so guidance is the same whether
it is written for x0, eps, v or the flow velocity.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from etils.array_types import Array, BoolArray, FloatArray
import jax
import jax.numpy as jnp

from vdm.diffusion import conditions
from vdm.diffusion import process

Denoiser = Callable[..., FloatArray['b t h w c']]
GIVEN = 'given'  # The group of held frames, which are no entry of the dict.


class Contrast(NamedTuple):
  """A prediction to guide away from.

  Attributes:
    weight: of the difference; a scale less 1, if there is no other contrast.
    cond: what the network is told, in the shapes of the conditioning.
    replace: (z, levels) -> what it sees in place of these; None: these.
    predict: another network; None: the one that is guided.
  """

  weight: float
  cond: dict[str, Array['b ...']]
  replace: Callable[..., tuple[Array, Array]] | None = None
  predict: Callable[..., Array] | None = None


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


def by_groups(
  cond: dict[str, Array['b ...']],
  scales: Mapping[str, float],
  without_given: Callable[..., tuple[Array, Array]] | None = None,
) -> list[Contrast]:
  """Returns the contrasts of guidance with a scale for each group.

  Args:
    cond: the conditioning.
    scales: by group of `conditions` or `GIVEN`, in the order in which they are
      told. Others are told in every prediction, and so are those of scale 1.
    without_given: (z, levels) -> the same with pure noise in the held frames,
      if `GIVEN` is among the scales.
  """
  scales = {name: scale for name, scale in scales.items() if scale != 1}
  found, before = [], 1.0
  for i, scale in enumerate(scales.values()):
    untold = tuple(scales)[i:]
    replace = without_given if GIVEN in untold else None
    told = conditions.without(cond, untold)
    found.append(Contrast(scale - before, told, replace))
    before = scale
  return found


def guided(
  denoise_cond: Denoiser,
  cond: dict[str, Array['b ...']],
  contrasts: Sequence[Contrast] = (),
  *,
  interval: tuple[float, float] = (process.NOISE, process.CLEAN),
  rescale: float = 0.0,
  history: History | None = None,
) -> Denoiser:
  """Returns a denoiser for `samplers.sample` with its conditioning bound in.

  Args:
    denoise_cond: (z [b t h w c], levels [b t], cond) -> x0 [b t h w c].
    cond: the conditioning.
    contrasts: those of weight 0 are left out, and without any other there is
      no guidance. Those of the same network run with the conditional inputs as
      one batch, each adding b rows to it.
    interval: (low, high) log-SNR of the frames to guide; other frames get the
      conditional prediction (Kynkaanniemi et al. 2024, arXiv:2404.07724). Where
      no frame but clean ones is in it, that is all that is evaluated.
    rescale: share of the way from the guided clip to one with the standard
      deviation of the conditional clip (Lin et al. 2023, arXiv:2305.08891, eq.
      15, 16), taken over all frames to preserve their relative brightness.
    history: adds one row or two to the batch for each of b.
  """
  contrasts = [contrast for contrast in contrasts if contrast.weight]
  history = history if history and history.scale != 1 else None
  if not contrasts and not history:
    return lambda z, levels: denoise_cond(z, levels, cond)
  own = [contrast for contrast in contrasts if contrast.predict is None]
  told = [cond, *(contrast.cond for contrast in own)]
  replacements = [None, *(contrast.replace for contrast in own)]
  if history:
    for replace in filter(None, (history.partial, history.without)):
      told.append(cond)
      replacements.append(replace)
  low, high = interval
  all_told = jax.tree.map(lambda *x: jnp.concatenate(x), *told)

  def denoise(z, levels):
    inputs = [f(z, levels) if f else (z, levels) for f in replacements]
    outputs = denoise_cond(
      *(jnp.concatenate(x) for x in zip(*inputs)), all_told
    )
    outputs = jnp.split(process.at_least_float32(outputs), len(inputs))
    conditional = outputs[0]
    x0, outputs = _contrasted(contrasts, outputs, z, levels)
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

  if low <= process.NOISE and process.CLEAN <= high:
    return denoise

  def unguided(z, levels):
    return process.at_least_float32(denoise_cond(z, levels, cond))

  def denoise_within(z, levels):
    # A frame that is clean is known: no sampler asks what it is.
    inside = (low <= levels) & (levels <= high) & (levels < process.CLEAN)
    return jax.lax.cond(inside.any(), denoise, unguided, z, levels)

  return denoise_within


def guided_logits(
  predict: Callable[..., FloatArray['b ...']],
  cond: dict[str, Array['b ...']],
  contrasts: Sequence[Contrast] = (),
) -> Callable[..., FloatArray['b ...']]:
  """Returns a predictor for `masking.sample` with its conditioning bound in.

  With logits in place of x0 it is the formula above, and the probabilities are
  p_cond prod_i (p_cond / p_i)^w_i, up to their sum.

  Args:
    predict: (tokens [b ...], masked [b ...], cond) -> logits.
    cond: see `guided`.
    contrasts: likewise; none of them replaces tokens.
  """
  contrasts = [contrast for contrast in contrasts if contrast.weight]
  if not contrasts:
    return lambda tokens, masked: predict(tokens, masked, cond)
  told = [cond, *(x.cond for x in contrasts if x.predict is None)]
  all_told = jax.tree.map(lambda *x: jnp.concatenate(x), *told)

  def predict_guided(tokens, masked):
    inputs = (jnp.concatenate([x] * len(told)) for x in (tokens, masked))
    outputs = process.at_least_float32(predict(*inputs, all_told))
    outputs = jnp.split(outputs, len(told))
    return _contrasted(contrasts, outputs, tokens, masked)[0]

  return predict_guided


def _contrasted(contrasts, outputs, *inputs):
  """Returns the conditional output guided by contrasts, and what is left.

  Args:
    contrasts: of weights other than 0.
    outputs: of the network: the conditional one, those of contrasts without a
      network of their own, and any others.
    *inputs: for the networks of the others, besides the conditioning.
  """
  conditional, *left = outputs
  found = conditional
  for contrast in contrasts:
    if contrast.predict is None:
      other = left.pop(0)
    else:
      other = contrast.predict(*inputs, contrast.cond)
    change = conditional - process.at_least_float32(other)
    found = found + contrast.weight * change
  return found, left
