"""Which log-SNR belongs to which time: 0 is clean, 1 is noise.

    cosine   l(t) = -2 log tan(pi t / 2)     alpha = cos, sigma = sin
    flow     l(t) = 2 log((1 - t) / t)       z / (alpha + sigma) is linear in t
    linear   DDPM's table of 1000 betas      interpolated in l

(Nichol & Dhariwal 2021, arXiv:2102.09672, in the continuous form of Salimans &
Ho 2022; Lipman et al. 2023, arXiv:2210.02747; Ho et al. 2020,
arXiv:2006.11239.) A shift s, the same for all three, moves

    l(t) <- l(t) - 2 log s,

which multiplies sigma / alpha by s and is, for flow, the shift of time
t <- s t / (1 + (s - 1) t) of Esser et al. 2024 (arXiv:2403.03206, eq. 23). More
tokens average more noise away, so larger and longer clips need
s = sqrt(tokens / base) (Hoogeboom et al. 2023, arXiv:2301.11093). A normal
density of log(sigma / alpha) follows the same rule with mean + log s.

The shifted curve lies within [logsnr_min, logsnr_max]: cosine runs through a
narrower range of angles to end there, flow and the linear table are cut (the
table's own ends are 9.2 and -10.1: a wider range does not lengthen it).
"""

from collections.abc import Callable
import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from vdm.diffusion import process


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Two functions of arrays, each the other's inverse between the ends.

  Attributes:
    logsnr: time in [0, 1] -> log-SNR.
    time: log-SNR -> time in [0, 1].
  """

  logsnr: Callable
  time: Callable


def cosine(low, high):
  """The cosine curve over the angles whose log-SNR is within [low, high]."""
  # The angle and its complement, each built up from its own small end: tan of
  # a float32 near pi / 2 has no correct digit.
  angle_0, angle_1 = (math.atan(math.exp(-end / 2)) for end in (high, low))
  rest_0, rest_1 = (math.atan(math.exp(end / 2)) for end in (high, low))

  def logsnr(time):
    angle = angle_0 + time * (angle_1 - angle_0)
    rest = rest_1 + (1 - time) * (rest_0 - rest_1)
    value = 2 * (jnp.log(jnp.sin(rest)) - jnp.log(jnp.sin(angle)))
    # At the ends the shifted value is cut to the exact number.
    value = jnp.where(time <= 0, jnp.inf, value)
    return jnp.where(time >= 1, -jnp.inf, value)

  def time(logsnr):
    return (jnp.arctan(jnp.exp(-logsnr / 2)) - angle_0) / (angle_1 - angle_0)

  return logsnr, time


def flow(low, high):
  """The straight path z / (alpha + sigma) = (1 - t) x0 + t eps."""
  del low, high  # The path is cut at them, not fitted to them.

  def logsnr(time):
    return 2 * (jnp.log1p(-time) - jnp.log(time))

  def time(logsnr):
    return 1 / (1 + jnp.exp(logsnr / 2))

  return logsnr, time


def linear(low, high):
  """DDPM's betas 1e-4 ... 0.02; the n-th of 1000 levels is at n / 999."""
  del low, high  # The table is cut at them, not fitted to them.
  log_alpha2 = np.cumsum(np.log1p(-np.linspace(1e-4, 0.02, 1000)))
  table = log_alpha2 - np.log(-np.expm1(log_alpha2))  # Falls from 9.2 to -10.1.
  times = np.linspace(0, 1, 1000)

  def logsnr(time):
    return jnp.interp(time, times, table)

  def time(logsnr):
    return jnp.interp(-logsnr, -table, times)

  return logsnr, time


CURVES = {'cosine': cosine, 'flow': flow, 'linear': linear}


def make_schedule(name, *, logsnr_min, logsnr_max, shift=1.0) -> Schedule:
  """Returns a schedule by name.

  Args:
    name: cosine | flow | linear.
    logsnr_min: level at time 1; -40 is zero terminal SNR.
    logsnr_max: level at time 0; at most 40.
    shift: factor on sigma / alpha, see `shift_for`.

  Raises:
    ValueError: an unknown name, or a range or shift that cannot be.
  """
  if name not in CURVES:
    raise ValueError(f'Unknown schedule {name!r}: use one of {tuple(CURVES)}.')
  if not process.NOISE <= logsnr_min < logsnr_max <= process.CLEAN:
    raise ValueError(
      f'logsnr_min {logsnr_min} and logsnr_max {logsnr_max} must rise within '
      f'[{process.NOISE}, {process.CLEAN}].'
    )
  if shift <= 0:
    raise ValueError(f'shift {shift} must be positive; 1 shifts nothing.')
  offset = 2 * math.log(shift)
  curve, inverse = CURVES[name](logsnr_min + offset, logsnr_max + offset)

  def logsnr(time):
    levels = curve(process.at_least_float32(time)) - offset
    return jnp.clip(levels, logsnr_min, logsnr_max)

  def time(logsnr):
    return jnp.clip(inverse(process.at_least_float32(logsnr) + offset), 0, 1)

  return Schedule(logsnr=logsnr, time=time)


def shift_for(tokens_t, tokens_h, tokens_w, base) -> float:
  """Returns the shift of a clip of t x h x w tokens.

  Args:
    tokens_t: frames of the latent clip.
    tokens_h: its height.
    tokens_w: its width.
    base: tokens, or (t, h, w), of the clip that needs no shift; 0: shift none.
  """
  if not np.prod(base):
    return 1.0
  return math.sqrt(tokens_t * tokens_h * tokens_w / np.prod(base))
