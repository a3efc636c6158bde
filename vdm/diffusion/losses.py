"""Which levels are trained, and what an error at each of them costs.

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
    edm       w = SNR + 1 / sigma_data^2    Karras et al. 2022, table 1

so one network output has one loss, whichever prediction it is converted to.
Normalised latents have sigma_data = 1, where EDM's weighting is that of v.

The error is computed where the network made it and then weighted by the ratio
w(l) / w_kind(l), taken as a difference of logarithms. Through x0 instead, a
v network's error would be multiplied by sigma, lost in the rounding of x0, and
divided by sigma again: in float32 the loss of an error of 0.01 is then wrong by
2e-3 at l = 15 and 300-fold at l = 30; as it is, by 2e-6 at every level.
"""

import math

import jax
import jax.numpy as jnp

from vdm.diffusion import process

MIN_SNR = 5.0  # Gamma of min-SNR.
SIGMA_DATA = 1.0  # Deviation of normalised latents.
BOTH_ENDS = 0.25  # Share of 'context' rows that may get their end given, too.
WEIGHTINGS = ('x0', 'eps', 'v', 'flow', 'min_snr', 'edm')
FRAME_LEVELS = ('shared', 'context', 'independent')


def log_weight(name, levels):
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
    return jnp.logaddexp(levels, -2 * math.log(SIGMA_DATA))
  raise ValueError(f'Unknown weighting {name!r}: use one of {WEIGHTINGS}.')


def weight(name, levels):
  """Returns w(l) of the weighting `name` on the squared error of x0."""
  return jnp.exp(log_weight(name, levels))


def check(prediction, weighting, schedule):
  """Refuses a loss that is undefined or blind where the signal ends.

  Args:
    prediction: what the network predicts.
    weighting: the loss's.
    schedule: a `schedules.Schedule`.

  Raises:
    ValueError: an unknown name; or a schedule with zero terminal SNR and a
      prediction (eps) or weighting (eps, min_snr) that says nothing about x0
      there.
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


def loss(kind, output, x0, eps, levels, loss_mask, weighting):
  """Returns the weighted squared error, as sums that add up over devices.

  Masked frames are replaced by zeros before they are weighted, so that neither
  the loss nor a gradient ever holds 0 x inf.

  Args:
    kind: what `output` predicts.
    output: [b t h w c], the network's, of any float dtype.
    x0: [b t h w c], the clip.
    eps: [b t h w c], the noise that was added to it.
    levels: [b t], log-SNR.
    loss_mask: [b t], 1 where a frame counts, 0 where it was given.
    weighting: its name, see `log_weight`.

  Returns:
    (total, count, frames): the sum over frames, how many counted, and [b t] the
    mean over (h w c) of each. The loss is total / count, both summed over
    everything that makes up one batch.
  """
  counts = loss_mask > 0
  target = process.from_x0_eps(kind, x0, eps, levels)
  error = process.at_least_float32(output) - target
  error = jnp.where(process.per_frame(counts, error), error, 0)
  log_ratio = log_weight(weighting, levels) - log_weight(kind, levels)
  ratio = jnp.exp(jnp.where(counts, log_ratio, 0))
  frames = ratio * jnp.mean(error**2, axis=range(2, error.ndim))
  return frames.sum(), counts.sum(dtype=frames.dtype), frames


def level_bins(levels, frames, loss_mask, edges):
  """Returns sums and counts [len(edges) + 1] of a [b t] loss, by level.

  Bin i holds the levels in [edges[i - 1], edges[i]); the outer two are open.
  """
  edges = jnp.asarray(edges, levels.dtype)
  index = jnp.searchsorted(edges, levels, side='right')
  index = jnp.where(loss_mask > 0, index, -1)
  inside = index[..., None] == jnp.arange(len(edges) + 1)[None, None]
  sums = jnp.where(inside, frames[..., None], 0).sum((0, 1))
  return sums, inside.sum((0, 1), dtype=frames.dtype)


def stratify(key, rows, columns):
  """Returns uniform [b columns], each column stratified over some rows.

  The n rows where `rows` [b] is true get (rank + u) / n in every column, with
  an offset u and an order of its own (VDM, arXiv:2107.00630, I.1, permuted).
  Permuted, because a row's place in the batch may say something about its clip
  (a host, a file), and must then say nothing about its level.
  """
  key_offset, key_rank = jax.random.split(key)
  scores = jax.random.uniform(key_rank, (rows.shape[0], columns))
  scores = jnp.where(rows[:, None], scores, 2.0)  # The others rank behind.
  ranks = jnp.argsort(jnp.argsort(scores, axis=0), axis=0)
  offset = jax.random.uniform(key_offset, (1, columns))
  return (ranks + offset) / jnp.maximum(rows.sum(), 1)


def draw_kinds(key, batch, frame_levels):
  """Returns the kind [b] of each row, an index into FRAME_LEVELS.

  Every kind gets its share of the rows to within one, and exactly on average.
  """
  unknown = set(frame_levels) - set(FRAME_LEVELS)
  shares = [frame_levels.get(name, 0.0) for name in FRAME_LEVELS]
  if unknown or min(shares) < 0 or sum(shares) <= 0:
    raise ValueError(
      f'frame_levels {dict(frame_levels)} must give shares of {FRAME_LEVELS}, '
      'none negative and not all zero.'
    )
  bounds = jnp.cumsum(jnp.asarray(shares) / sum(shares))[:-1]
  places = stratify(key, jnp.ones(batch, bool), 1)[:, 0]
  return jnp.searchsorted(bounds, places, side='right')


def draw_context(key, batch, frames):
  """Returns which frames [b t] are given: a prefix, at times the end as well.

  The prefix has 1 to t - 1 frames; at least one frame is never given.
  """
  key_first, key_last, key_both = jax.random.split(key, 3)
  first = jax.random.randint(key_first, (batch, 1), 1, frames)
  last = jax.random.uniform(key_last, (batch, 1)) * (frames - first)
  both = jax.random.uniform(key_both, (batch, 1)) < BOTH_ENDS
  index = jnp.arange(frames)[None]
  return (index < first) | (both & (index >= frames - jnp.floor(last)))


def draw_levels(
  key, batch, frames, *, density, mean, std, schedule, frame_levels
):
  """Returns the levels of a whole global batch, from one key.

  Args:
    key: a typed key.
    batch: rows b of the global batch, over all devices, hosts and parts.
    frames: latent frames t of a clip.
    density: 'normal': log(sigma / alpha) ~ N(mean, std^2), whatever the
      schedule's curve; 'uniform': in the schedule's time.
    mean: of 'normal'.
    std: of 'normal'.
    schedule: a `schedules.Schedule`; its ends bound every level.
    frame_levels: shares of rows, over {'shared', 'context', 'independent'}: one
      level for the clip; one level for all but the frames that are given; a
      level for every frame. Single frames are always 'shared'.

  Returns:
    (levels, loss_mask), float32 [b t]; CLEAN and 0 for the frames given.
  """
  if density not in ('normal', 'uniform'):
    raise ValueError(f'Unknown density {density!r}: use normal or uniform.')
  key_kind, key_context, *keys = jax.random.split(key, 5)
  kinds = draw_kinds(key_kind, batch, frame_levels)
  if frames == 1:
    kinds = jnp.zeros_like(kinds)
  shared, context, independent = (
    stratify(k, kinds == i, frames if i == 2 else 1) for i, k in enumerate(keys)
  )
  uniform = jnp.where(
    (kinds == 2)[:, None],
    independent,
    jnp.where((kinds == 1)[:, None], context, shared),
  )
  if density == 'normal':
    levels = -2 * (mean + std * jax.scipy.special.ndtri(uniform))
    levels = jnp.clip(levels, schedule.logsnr(1.0), schedule.logsnr(0.0))
  else:
    levels = schedule.logsnr(uniform)
  if frames == 1:
    return levels, jnp.ones_like(levels)
  given = (kinds == 1)[:, None] & draw_context(key_context, batch, frames)
  return jnp.where(given, process.CLEAN, levels), 1.0 - given
