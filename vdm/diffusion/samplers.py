"""Samplers: from noise to a clip, with each frame at its own level.

The probability flow (Song et al. 2021, arXiv:2011.13456) is one equation in
many coordinates; for a step from level l to m, with x0 the denoiser's output:

    y = z / alpha           dy / d(sigma/alpha)         = eps         (EDM)
    y = z / (alpha+sigma)   dy / d(sigma/(alpha+sigma)) = eps - x0    (flow)

An Euler step, with x0 and eps constant, is the same in both: that of DDIM,

    z' = (sigma'/sigma) z - alpha' expm1((l - m) / 2) x0.

`ddim`   arXiv:2010.02502; eta is the share of the noise that is drawn anew, and
         eta = 1 is the ancestral sampler of DDPM. Order 1.
`heun`   the trapezoid rule in flow's coordinates, whose velocity eps - x0 is
         bounded down to zero SNR, while EDM's eps is multiplied by an
         unbounded sigma / alpha. Two evaluations per step, order 2.
`dpmpp`  DPM-Solver++(2M), arXiv:2211.01095, algorithm 2: x0 extrapolated in
         l / 2 from the previous step. One evaluation per step, order 2.

A consistency model (`consistency`) needs no integration:

`consistency`  x0, and noise drawn anew for the next level: algorithm 1 of Song
         et al. 2023, arXiv:2303.01469. One evaluation per step.

The step to CLEAN returns x0: first order in every method, since eps is not
known there. A frame whose level does not change is returned bit-equal, and the
next step of dpmpp on that frame is first order: x0 of two evaluations at one
level differs only because other frames changed, which gives no slope in l.
Heun uses one step alone and needs no such rule.
"""

from collections.abc import Callable

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp

from vdm.diffusion import process
from vdm.diffusion import schedules


def make_grid(
  kind: str,
  steps: int,
  schedule: schedules.Schedule,
  *,
  rho: float = 7.0,
  sigma_min: float = 0.02,
  sigma_max: float = 80.0,
) -> FloatArray[' n']:
  """Returns steps + 1 log-SNR levels, from noise to CLEAN.

  For a mask `given` [t] of frames that are clean throughout, the levels are
  `jnp.where(given, process.CLEAN, grid[:, None, None])` [steps + 1, 1, t].

  Args:
    kind: uniform in 'time' (of the schedule), in 'logsnr' (between the
      schedule's ends), or in (sigma/alpha)^(1/rho) between sigma_max and
      sigma_min: 'rho' (Karras et al. 2022, eq. 5).
    steps: their number; the last one is the step to CLEAN.
    schedule: of 'time' and 'logsnr'.
    rho: of 'rho'; 1 is uniform in sigma / alpha, infinity in log-SNR.
    sigma_min: of 'rho': the last sigma / alpha before CLEAN.
    sigma_max: of 'rho': the first sigma / alpha.
  """
  if steps < 1:
    raise ValueError(f'{steps} steps: take at least 1.')
  if kind == 'time':
    levels = schedule.logsnr(jnp.linspace(1.0, 0.0, steps + 1)[:-1])
  elif kind == 'logsnr':
    levels = jnp.linspace(schedule.logsnr(1.0), schedule.logsnr(0.0), steps)
  elif kind == 'rho':
    root = jnp.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps)
    levels = jnp.clip(-2 * rho * jnp.log(root), process.NOISE, process.CLEAN)
  else:
    raise ValueError(f'Unknown grid {kind!r}: use time, logsnr or rho.')
  return jnp.append(levels, process.CLEAN)


def make_levels(
  method: str, kind: str, steps: int, *args, **kwargs
) -> FloatArray[' n']:
  """Returns the levels of `make_grid` from which a method makes its steps.

  The others end at a level that is nearly clean, from where the last step is
  small. A consistency model leaves every level for CLEAN: of one more step, it
  goes without the last level, so that one step starts from pure noise, the
  second of two from the middle of the grid, and so on.

  Args:
    method: see `sample`.
    kind: see `make_grid`, as are the rest.
    steps: number of steps.
    *args: of `make_grid`.
    **kwargs: likewise.
  """
  if method != 'consistency':
    return make_grid(kind, steps, *args, **kwargs)
  grid = make_grid(kind, steps + 1, *args, **kwargs)
  return jnp.delete(grid, -2)


def sample(
  denoise: Callable[..., FloatArray['b t h w c']],
  z: FloatArray['b t h w c'],
  levels: FloatArray['n rows t'],
  key: jax.Array | None = None,
  *,
  method: str = 'ddim',
  eta: float = 0.0,
) -> FloatArray['b t h w c']:
  """Integrates z along `levels`, in float32 or wider.

  Args:
    denoise: (z [b t h w c], levels [b t]) -> x0 [b t h w c], with conditioning
      and guidance bound in.
    z: the state at levels[0], with given frames in it.
    levels: log-SNR at the ends of the n - 1 steps, of each of the b rows or one
      row for all; never decreasing, CLEAN at the end for clips and throughout
      for frames that are given.
    key: for eta > 0 and for consistency, a typed key, or one per row [b], which
      makes a row independent of the others. Not the key that drew z.
    method: ddim | heun | dpmpp | consistency.
    eta: of ddim.

  Raises:
    ValueError: an unknown method, eta without ddim, or no key to draw noise
      with.
  """
  if method not in STEPS:
    raise ValueError(f'Unknown method {method!r}: use one of {tuple(STEPS)}.')
  if eta and method != 'ddim':
    raise ValueError(f'eta {eta} is for ddim, not {method}: set it to 0.')
  if eta and key is None:
    raise ValueError(f'eta {eta} draws noise: give a key.')
  if method == 'consistency' and key is None:
    raise ValueError('Method consistency draws noise: give a key.')
  z = process.at_least_float32(z)
  levels = jnp.asarray(levels, z.dtype)
  levels = jnp.broadcast_to(levels, (len(levels), *z.shape[:2]))

  def step(carry, inputs):
    index, level, target = inputs

    def draw_noise():
      eps = process.noise(process.fold_in(key, index), z.shape)
      return eps.astype(z.dtype)

    return STEPS[method](
      lambda z, level: denoise(z, level).astype(z.dtype),
      *carry,
      level,
      target,
      eta=eta,
      draw_noise=draw_noise,
    ), None

  # dpmpp keeps x0 and its level. At first there is no slope: levels are equal.
  previous = (jnp.zeros_like(z), levels[0]) if method == 'dpmpp' else ()
  steps = (jnp.arange(len(levels) - 1), levels[:-1], levels[1:])
  (z, _), _ = jax.lax.scan(step, (z, previous), steps)
  return z


def ddim_mean_std(
  z: FloatArray['b t h w c'],
  x0: FloatArray['b t h w c'],
  level: FloatArray['b t'],
  target: FloatArray['b t'],
  eta: float = 0.0,
) -> tuple[FloatArray['b t h w c'], FloatArray['b t 1 1 1']]:
  """Returns the mean and standard deviation of z after a step of DDIM.

  With h = m - l, of arXiv:2010.02502, eq. 12 and 16:

      z' = (sigma' q / sigma) z + alpha' (1 - exp(-h/2) q) x0 + s n,
      s^2 = eta^2 sigma'^2 (1 - exp(-h)),    q^2 = 1 - eta^2 (1 - exp(-h)).

  Args:
    z: the state.
    x0: the denoiser's output for it.
    level: log-SNR l of z.
    target: log-SNR m after the step, at least `level`.
    eta: 0 deterministic, 1 ancestral.
  """
  level, target = process.per_frame(level, z), process.per_frame(target, z)
  alpha, sigma = process.alpha_sigma(target)
  fresh = -(eta**2) * jnp.expm1(level - target)  # s^2 / sigma'^2.
  log_q = jnp.log1p(-fresh) / 2
  keep = jnp.exp(log_q) * sigma / process.alpha_sigma(level)[1]
  mean = keep * z - alpha * jnp.expm1((level - target) / 2 + log_q) * x0
  return mean, sigma * jnp.sqrt(fresh)


def euler_step(
  z: FloatArray['b t h w c'],
  x0: FloatArray['b t h w c'],
  level: FloatArray['b t'],
  target: FloatArray['b t'],
) -> FloatArray['b t h w c']:
  """Returns z after a step of DDIM without noise; see `ddim_mean_std`."""
  mean, _ = ddim_mean_std(z, x0, level, target)
  return _set_exact_frames(mean, z, x0, level, target)


def _set_exact_frames(updated, z, x0, level, target):
  """Returns `updated` with x0 in frames at CLEAN and z in unchanged ones."""
  level, target = process.per_frame(level, z), process.per_frame(target, z)
  updated = jnp.where(target >= process.CLEAN, x0, updated)
  return jnp.where(target == level, z, updated)


# A step takes `previous`, which the step before it returned beside z.


def _ddim_step(denoise, z, previous, level, target, *, eta, draw_noise):
  """DDIM: Euler's step, with a share eta of the noise drawn anew."""
  x0 = denoise(z, level)
  updated, std = ddim_mean_std(z, x0, level, target, eta)
  if eta:
    updated = updated + std * draw_noise()
  return _set_exact_frames(updated, z, x0, level, target), previous


def _heun_step(denoise, z, previous, level, target, **_):
  """Heun's method: Euler's step, then the mean of the two velocities."""
  x0 = denoise(z, level)
  euler = euler_step(z, x0, level, target)
  correctable = (target < process.CLEAN) & (target != level)

  def correct():
    x0_after = denoise(euler, target)
    before = process.convert('x0', 'flow', x0, z, level)
    after = process.convert('x0', 'flow', x0_after, euler, target)
    time, _ = _flow_coordinates(process.per_frame(level, z))
    time_after, scale = _flow_coordinates(process.per_frame(target, z))
    change = scale * (time_after - time) * (after - before) / 2
    return jnp.where(process.per_frame(correctable, z), euler + change, euler)

  # The last step, where every frame becomes clean, needs no second evaluation.
  return jax.lax.cond(correctable.any(), correct, lambda: euler), previous


def _flow_coordinates(levels):
  """Returns flow's time sigma / (alpha + sigma), and alpha + sigma."""
  alpha, sigma = process.alpha_sigma(levels)
  return sigma / (alpha + sigma), alpha + sigma


def _dpmpp_step(denoise, z, previous, level, target, **_):
  """DPM-Solver++(2M): x0 extrapolated to the middle of the step."""
  x0 = denoise(z, level)
  previous_x0, previous_level = previous
  previous_step = level - previous_level
  has_slope = previous_step != 0  # False at first and after no change of level.
  # 1 / (2 r) of the paper: this step over twice the previous one, in log-SNR.
  ratio = jnp.where(
    has_slope, (target - level) / jnp.where(has_slope, 2 * previous_step, 1), 0
  )
  middle = x0 + process.per_frame(ratio, z) * (x0 - previous_x0)
  updated, _ = ddim_mean_std(z, middle, level, target)
  return _set_exact_frames(updated, z, x0, level, target), (x0, level)


def _consistency_step(denoise, z, previous, level, target, *, draw_noise, **_):
  """To the clip, and back to the next level with other noise."""
  x0 = denoise(z, level)
  updated = process.add_noise(x0, draw_noise(), target)
  return _set_exact_frames(updated, z, x0, level, target), previous


STEPS = {
  'ddim': _ddim_step,
  'heun': _heun_step,
  'dpmpp': _dpmpp_step,
  'consistency': _consistency_step,
}
