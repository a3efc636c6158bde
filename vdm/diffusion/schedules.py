"""Noise schedules: log-SNR as a function of time, 0 for clean, 1 for noise.

    cosine   l(t) = -2 log tan(pi t / 2)     alpha = cos, sigma = sin
    flow     l(t) = 2 log((1 - t) / t)       z / (alpha + sigma) is linear in t
    linear   DDPM's table of 1000 betas      interpolated in l

(Nichol & Dhariwal 2021, arXiv:2102.09672, in the continuous form of Salimans &
Ho 2022; Lipman et al. 2023, arXiv:2210.02747; Ho et al. 2020,
arXiv:2006.11239.) A shift s applies to all three,

    l(t) <- l(t) - 2 log s,

which multiplies sigma / alpha by s and is, for flow, the shift of time
t <- s t / (1 + (s - 1) t) of Esser et al. 2024 (arXiv:2403.03206, eq. 23). More
tokens average more noise away, so larger and longer clips need
s = sqrt(tokens / base) (Hoogeboom et al. 2023, arXiv:2301.11093). A normal
density of log(sigma / alpha) follows the same rule with mean + log s.

The shifted curve lies within [logsnr_min, logsnr_max]: cosine uses a narrower
range of angles that ends there, flow and the linear table are clipped (the
table's own ends are 9.2 and -10.1: a wider range does not extend it).
"""

from collections.abc import Callable
import dataclasses
import math

from etils.array_types import FloatArray
import jax.numpy as jnp
import numpy as np

from vdm.diffusion import process


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Log-SNR over time and the inverse, for arrays of any shape.

  Attributes:
    logsnr: time in [0, 1] -> log-SNR.
    time: log-SNR -> time in [0, 1].
  """

  logsnr: Callable[..., FloatArray['*b']]
  time: Callable[..., FloatArray['*b']]


def cosine(low: float, high: float) -> Schedule:
  """Returns the cosine curve over the angles of log-SNR in [low, high]."""
  # The angle and its complement, each computed from its own small end: tan of
  # a float32 near pi / 2 has no correct digit.
  angle_0, angle_1 = (math.atan(math.exp(-end / 2)) for end in (high, low))
  rest_0, rest_1 = (math.atan(math.exp(end / 2)) for end in (high, low))

  def logsnr(time):
    angle = angle_0 + time * (angle_1 - angle_0)
    rest = rest_1 + (1 - time) * (rest_0 - rest_1)
    value = 2 * (jnp.log(jnp.sin(rest)) - jnp.log(jnp.sin(angle)))
    # `make_schedule` clips the ends to the exact numbers.
    value = jnp.where(time <= 0, jnp.inf, value)
    return jnp.where(time >= 1, -jnp.inf, value)

  def time(logsnr):
    return (jnp.arctan(jnp.exp(-logsnr / 2)) - angle_0) / (angle_1 - angle_0)

  return Schedule(logsnr, time)


def flow(low: float, high: float) -> Schedule:
  """Returns the straight path z / (alpha + sigma) = (1 - t) x0 + t eps."""
  del low, high  # `make_schedule` clips the curve.

  def logsnr(time):
    return 2 * (jnp.log1p(-time) - jnp.log(time))

  def time(logsnr):
    return 1 / (1 + jnp.exp(logsnr / 2))

  return Schedule(logsnr, time)


def linear(low: float, high: float) -> Schedule:
  """Returns DDPM's betas 1e-4 ... 0.02; level n of 1000 is at time n / 999."""
  del low, high  # `make_schedule` clips the curve.
  log_alpha2 = np.cumsum(np.log1p(-np.linspace(1e-4, 0.02, 1000)))
  table = log_alpha2 - np.log(-np.expm1(log_alpha2))  # Falls from 9.2 to -10.1.
  times = np.linspace(0, 1, 1000)

  def logsnr(time):
    return jnp.interp(time, times, table)

  def time(logsnr):
    return jnp.interp(-logsnr, -table, times)

  return Schedule(logsnr, time)


CURVES = {'cosine': cosine, 'flow': flow, 'linear': linear}


def make_schedule(
  name: str, *, logsnr_min: float, logsnr_max: float, shift: float = 1.0
) -> Schedule:
  """Returns a schedule by name.

  Args:
    name: cosine | flow | linear.
    logsnr_min: level at time 1; -40 is zero terminal SNR.
    logsnr_max: level at time 0; at most 40.
    shift: factor on sigma / alpha, see `shift_for`.

  Raises:
    ValueError: an unknown name, or an impossible range or shift.
  """
  if name not in CURVES:
    raise ValueError(f'Unknown schedule {name!r}: use one of {tuple(CURVES)}.')
  if not process.NOISE <= logsnr_min < logsnr_max <= process.CLEAN:
    raise ValueError(
      f'logsnr_min {logsnr_min} and logsnr_max {logsnr_max} must rise within '
      f'[{process.NOISE}, {process.CLEAN}].'
    )
  if shift <= 0:
    raise ValueError(f'shift {shift} must be positive; 1 means no shift.')
  offset = 2 * math.log(shift)
  curve = CURVES[name](logsnr_min + offset, logsnr_max + offset)

  def logsnr(time):
    levels = curve.logsnr(process.at_least_float32(time)) - offset
    return jnp.clip(levels, logsnr_min, logsnr_max)

  def time(logsnr):
    times = curve.time(process.at_least_float32(logsnr) + offset)
    return jnp.clip(times, 0, 1)

  return Schedule(logsnr, time)


def shift_for(
  tokens_t: int, tokens_h: int, tokens_w: int, base: int | tuple[int, ...]
) -> float:
  """Returns the shift of a latent clip of t x h x w tokens.

  Args:
    tokens_t: its frames.
    tokens_h: its height.
    tokens_w: its width.
    base: tokens, or (t, h, w), of a clip that needs no shift; 0 for no shift
      of any clip.
  """
  if not np.prod(base):
    return 1.0
  return math.sqrt(tokens_t * tokens_h * tokens_w / np.prod(base))
