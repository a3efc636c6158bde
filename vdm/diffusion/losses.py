"""Draws the levels to train and weights the error at each of them.

A loss is an expectation over levels of a weighted squared error of x0,

    E_l [ w(l) |x0_hat - x0|^2 ].

Given z, the error of any prediction is a known multiple of the error of x0. A
weighting is named after the prediction whose plain squared error it is; of
SNR = exp(l),

    x0        w = 1
    eps       w = SNR                       |eps_hat - eps|^2
    v         w = 1 + SNR                   |v_hat - v|^2
    flow      w = (1 + sqrt(SNR))^2         |u_hat - u|^2
    min_snr   w = min(SNR, 5)               Hang et al. 2023, arXiv:2303.09556
    edm       w = 1 + sigma_data^2 SNR      Karras et al. 2022, table 1, times
                                            sigma_data^2

so a network output has the same loss whichever prediction it is converted to.
With sigma_data = 1, the deviation of latents, EDM's weighting is that of v.

The error is computed in the network's own prediction and then weighted by the
ratio w(l) / w_kind(l), a difference of logarithms. Converted to x0, a v
network's error would be multiplied by sigma, lost in the rounding of x0, and
divided by sigma again: in float32 the loss of an error of 0.01 is then wrong by
2e-3 at l = 15 and 300-fold at l = 30; computed directly, by 2e-6 at any level.
"""

from collections.abc import Mapping, Sequence
import math

from etils.array_types import BoolArray, FloatArray, IntArray
import jax
import jax.numpy as jnp

from vdm.diffusion import process
from vdm.diffusion import schedules

MIN_SNR = 5.0  # Gamma of min-SNR.
BOTH_ENDS = 0.25  # Share of 'context' rows that may have their end given, too.
ENDS_ALONE = 0.5  # Share of those with the first and the last frame only.
CLEAN_CONTEXT = 0.5  # Share of 'context' rows whose given frames stay clean.
WEIGHTINGS = ('x0', 'eps', 'v', 'flow', 'min_snr', 'edm')
FRAME_LEVELS = ('shared', 'context', 'independent', 'first')


def log_weight(
  name: str, levels: FloatArray['*b'], sigma_data: float = 1.0
) -> FloatArray['*b']:
  """Returns log w(l) of the weighting `name` on the squared error of x0."""
  levels = process.at_least_float32(levels)
  if name == 'x0':
    return jnp.zeros_like(levels)
  if name == 'eps':
    return levels
  if name == 'v':
    return jax.nn.softplus(levels)
  if name == 'flow':
    return 2 * jax.nn.softplus(levels / 2)
  if name == 'min_snr':
    return jnp.minimum(levels, math.log(MIN_SNR))
  if name == 'edm':
    return jax.nn.softplus(levels + 2 * math.log(sigma_data))
  raise ValueError(f'Unknown weighting {name!r}: use one of {WEIGHTINGS}.')


def weight(
  name: str, levels: FloatArray['*b'], sigma_data: float = 1.0
) -> FloatArray['*b']:
  """Returns w(l) of the weighting `name` on the squared error of x0."""
  return jnp.exp(log_weight(name, levels, sigma_data))


def check(
  prediction: str, weighting: str, schedule: schedules.Schedule
) -> None:
  """Checks that the loss is defined and trains x0 at every level.

  Raises:
    ValueError: unknown names; or a schedule with zero terminal SNR, with a
      prediction (eps) or weighting (eps, min_snr) that does not train x0 there.
  """
  if prediction not in process.PREDICTIONS:
    raise ValueError(
      f'Unknown prediction {prediction!r}: use one of {process.PREDICTIONS}.'
    )
  at_noise = weight(weighting, process.NOISE)
  if schedule.logsnr(1.0) > process.NOISE:
    return
  if prediction == 'eps':
    raise ValueError(
      'Zero terminal SNR (logsnr_min=-40) leaves prediction eps without x0 at '
      'pure noise: predict v, flow or x0, or raise logsnr_min.'
    )
  if at_noise < 1e-6:
    raise ValueError(
      f'Weighting {weighting} vanishes at zero terminal SNR (logsnr_min=-40): '
      'weight by v, flow, x0 or edm, or raise logsnr_min.'
    )


def loss(
  kind: str,
  output: FloatArray['b t h w c'],
  x0: FloatArray['b t h w c'],
  eps: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  loss_mask: FloatArray['b t'],
  weighting: str,
  sigma_data: float = 1.0,
) -> tuple[FloatArray[''], FloatArray[''], FloatArray['b t']]:
  """Returns the weighted squared error, as sums that add up over devices.

  The error of masked frames is set to zero before it is weighted, so that
  neither the loss nor its gradient contains 0 x inf.

  Args:
    kind: what `output` predicts.
    output: of the network, in any float dtype.
    x0: the clip.
    eps: the noise that was added to it.
    levels: log-SNR.
    loss_mask: 1 where a frame counts, 0 where it was given.
    weighting: its name, see `log_weight`.
    sigma_data: of both, where they are edm.

  Returns:
    (total, count, frames): the sum over frames, the number that counted, and
    the mean over (h w c) of each frame. The loss is total / count, both summed
    over all parts of a batch.
  """
  counts = loss_mask > 0
  target = process.from_x0_eps(kind, x0, eps, levels, sigma_data)
  error = process.at_least_float32(output) - target
  error = jnp.where(process.per_frame(counts, error), error, 0)
  log_ratio = log_weight(weighting, levels, sigma_data)
  log_ratio = log_ratio - log_weight(kind, levels, sigma_data)
  ratio = jnp.exp(jnp.where(counts, log_ratio, 0))
  frames = ratio * jnp.mean(error**2, axis=range(2, error.ndim))
  return frames.sum(), counts.sum(dtype=frames.dtype), frames


def level_bins(
  levels: FloatArray['b t'],
  frames: FloatArray['b t'],
  loss_mask: FloatArray['b t'],
  edges: Sequence[float],
) -> tuple[FloatArray[' bins'], FloatArray[' bins']]:
  """Returns sums and counts of the loss of frames, in bins of their levels.

  Bin i of len(edges) + 1 has the levels in [edges[i - 1], edges[i]); the first
  and the last are unbounded below and above.
  """
  edges = jnp.asarray(edges, levels.dtype)
  index = jnp.searchsorted(edges, levels, side='right')
  index = jnp.where(loss_mask > 0, index, -1)
  inside = index[..., None] == jnp.arange(len(edges) + 1)[None, None]
  sums = jnp.where(inside, frames[..., None], 0).sum((0, 1))
  return sums, inside.sum((0, 1), dtype=frames.dtype)


def stratified_uniform(
  key: jax.Array, rows: BoolArray[' b'], columns: int
) -> FloatArray['b columns']:
  """Returns uniform values, each column stratified over the selected rows.

  The n rows where `rows` is true get (rank + u) / n in every column, with an
  offset u and an order of its own (VDM, arXiv:2107.00630, I.1, permuted).
  Permuted, because a row's index in the batch may correlate with its clip (a
  process, a file) and must not correlate with its level.
  """
  key_offset, key_rank = jax.random.split(key)
  scores = jax.random.uniform(key_rank, (rows.shape[0], columns))
  scores = jnp.where(rows[:, None], scores, 2.0)  # Unselected rows rank last.
  ranks = jnp.argsort(jnp.argsort(scores, axis=0), axis=0)
  offset = jax.random.uniform(key_offset, (1, columns))
  return (ranks + offset) / jnp.maximum(rows.sum(), 1)


def draw_kinds(
  key: jax.Array, batch: int, frame_levels: Mapping[str, float]
) -> IntArray[' b']:
  """Returns the kind of each row, an index into FRAME_LEVELS.

  Each kind gets its share of the rows to within one row, and exactly on
  average.
  """
  unknown = set(frame_levels) - set(FRAME_LEVELS)
  shares = [frame_levels.get(name, 0.0) for name in FRAME_LEVELS]
  if unknown or min(shares) < 0 or sum(shares) <= 0:
    raise ValueError(
      f'frame_levels {dict(frame_levels)} must give shares of {FRAME_LEVELS}, '
      'none negative and not all zero.'
    )
  bounds = jnp.cumsum(jnp.asarray(shares) / sum(shares))[:-1]
  places = stratified_uniform(key, jnp.ones(batch, bool), 1)[:, 0]
  kinds = jnp.searchsorted(bounds, places, side='right')
  # In float32 a place may be rounded up to 1, or the last bound to less.
  return jnp.minimum(kinds, max(i for i, x in enumerate(shares) if x > 0))


def draw_context(key: jax.Array, batch: int, frames: int) -> BoolArray['b t']:
  """Returns which frames are given: a prefix, and for some rows the end too.

  The prefix has 1 to t - 1 frames; at least one frame is not given. Drawn by
  its length alone, the task of interpolation, from the first and the last frame
  only, would be rare: so it has rows of its own.
  """
  key_first, key_last, key_both = jax.random.split(key, 3)
  first = jax.random.randint(key_first, (batch, 1), 1, frames)
  last = jax.random.uniform(key_last, (batch, 1)) * (frames - first)
  both = jax.random.uniform(key_both, (batch, 1)) < BOTH_ENDS
  index = jnp.arange(frames)[None]
  given = (index < first) | (both & (index >= frames - jnp.floor(last)))
  if frames < 3:
    return given
  key_ends = jax.random.fold_in(key_both, 0)
  ends = both & (jax.random.uniform(key_ends, (batch, 1)) < ENDS_ALONE)
  return jnp.where(ends, (index == 0) | (index == frames - 1), given)


def draw_context_level(
  key: jax.Array, batch: int, context_noise: float
) -> FloatArray['b 1']:
  """Returns the level of each row's given frames; see `draw_levels`."""
  key_clean, key_sigma = jax.random.split(key)
  clean = jax.random.uniform(key_clean, (batch, 1)) < CLEAN_CONTEXT
  sigma = context_noise * jax.random.uniform(key_sigma, (batch, 1))
  return jnp.where(clean, process.CLEAN, process.level_of_sigma(sigma))


def draw_times(
  key: jax.Array,
  batch: int,
  frames: int,
  frame_levels: Mapping[str, float],
) -> tuple[FloatArray['b t'], BoolArray['b t']]:
  """Draws each frame's time, and which frames are given.

  Args:
    key: a typed key.
    batch: rows b of the global batch, over all devices, processes and parts.
    frames: latent frames t of a clip.
    frame_levels: shares of rows, over FRAME_LEVELS: one time for the clip; one
      for all but the frames that are given (`draw_context`); a time for each
      frame; one time for all but the first frame, which is given. Single frames
      are always 'shared'.

  Returns:
    (times, given): uniform in [0, 1), stratified over the rows of each kind,
    with one column or one for each frame.
  """
  key_kind, key_context, *keys = jax.random.split(key, 5)
  kinds = draw_kinds(key_kind, batch, frame_levels)
  if frames == 1:
    kinds = jnp.zeros_like(kinds)
  shared, context, independent = (
    stratified_uniform(k, kinds == i, frames if i == 2 else 1)
    for i, k in enumerate(keys)
  )
  # The keys above are 0 to 4 of the same parent; `draw_levels` has 5.
  first = stratified_uniform(jax.random.fold_in(key, 6), kinds == 3, 1)
  times = jnp.select(
    [(kinds == i)[:, None] for i in range(len(FRAME_LEVELS))],
    [shared, context, independent, first],
  )
  if frames == 1:
    return times, jnp.zeros_like(times, bool)
  given = (kinds == 1)[:, None] & draw_context(key_context, batch, frames)
  given |= (kinds == 3)[:, None] & (jnp.arange(frames)[None] == 0)
  return times, given


def draw_levels(
  key: jax.Array,
  batch: int,
  frames: int,
  *,
  density: str,
  mean: float,
  std: float,
  schedule: schedules.Schedule,
  frame_levels: Mapping[str, float],
  context_noise: float = 0.0,
) -> tuple[FloatArray['b t'], FloatArray['b t']]:
  """Draws the levels of a whole global batch from one key.

  Args:
    key: a typed key.
    batch: rows b of the global batch, over all devices, processes and parts.
    frames: latent frames t of a clip.
    density: 'normal': log(sigma / alpha) ~ N(mean, std^2), whatever the
      schedule's curve; 'uniform': in the schedule's time.
    mean: of 'normal'.
    std: of 'normal'.
    schedule: its ends bound every level.
    frame_levels: see `draw_times`.
    context_noise: largest sigma of frames that are given: half of the rows
      keep them clean, the others draw one sigma below it, which is what
      rollouts show the network (see `rollouts`).

  Returns:
    (levels, loss_mask), float32; in frames that are given CLEAN, or the level
    of the drawn sigma, and 0.
  """
  if density not in ('normal', 'uniform'):
    raise ValueError(f'Unknown density {density!r}: use normal or uniform.')
  uniform, given = draw_times(key, batch, frames, frame_levels)
  if density == 'normal':
    levels = -2 * (mean + std * jax.scipy.special.ndtri(uniform))
    levels = jnp.clip(levels, schedule.logsnr(1.0), schedule.logsnr(0.0))
  else:
    levels = schedule.logsnr(uniform)
  if frames == 1:
    return levels, jnp.ones_like(levels)
  held = process.CLEAN
  if context_noise:
    held = draw_context_level(jax.random.fold_in(key, 5), batch, context_noise)
  return jnp.where(given, held, levels), 1.0 - given
