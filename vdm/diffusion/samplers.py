"""From noise to a clip, frame by frame at its own level.

The probability flow (Song et al. 2021, arXiv:2011.13456) is one equation in
many coordinates; of a step from level l to m, with x0 the denoiser's output:

    y = z / alpha           dy / d(sigma/alpha)         = eps         (EDM)
    y = z / (alpha+sigma)   dy / d(sigma/(alpha+sigma)) = eps - x0    (flow)

An Euler step holds x0 and eps, and so is the same step in both, DDIM's:

    z' = (sigma'/sigma) z - alpha' expm1((l - m) / 2) x0.

`ddim`   arXiv:2010.02502; with eta a share of the noise is drawn anew, and
         eta = 1 is the ancestral sampler of DDPM. Order 1.
`heun`   the trapezoid rule in flow's coordinates, whose velocity eps - x0
         stays bounded down to zero SNR, where EDM's eps is multiplied by an
         unbounded sigma / alpha. Two evaluations a step, order 2.
`dpmpp`  DPM-Solver++(2M), arXiv:2211.01095, algorithm 2: x0 extrapolated in
         l / 2 from the step before. One evaluation a step, order 2.

The step to CLEAN is x0 itself: first order, in every method, since eps is not
known there. A frame whose level does not change is returned bit-equal, and
what dpmpp remembers of it is not used: x0 of two evaluations at one level (the
other frames moved) has no slope in l, so the frame's next step is first order.
Heun remembers nothing and needs no such rule.
"""

import jax
import jax.numpy as jnp

from vdm.diffusion import process


def make_grid(
  kind, steps, schedule, *, rho=7.0, sigma_min=0.02, sigma_max=80.0
):
  """Returns log-SNR levels [steps + 1], from noise to CLEAN.

  To hold frames, `given` [t], clean throughout:
  `jnp.where(given, process.CLEAN, grid[:, None, None])` is [steps + 1, 1, t].

  Args:
    kind: uniform in 'time' (of the schedule), in 'logsnr' (between the
      schedule's ends), or in (sigma/alpha)^(1/rho) between sigma_max and
      sigma_min: 'rho' (Karras et al. 2022, eq. 5).
    steps: how many; the last one is the step to CLEAN.
    schedule: a `schedules.Schedule`.
    rho: 'rho' alone; 1 is uniform in sigma / alpha, infinity in log-SNR.
    sigma_min: last sigma / alpha of 'rho' before CLEAN.
    sigma_max: first sigma / alpha of 'rho'.
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


def move(z, x0, level, target, eta=0.0):
  """Returns DDIM's step without its noise, and the noise's deviation.

  With h = m - l, of arXiv:2010.02502, eq. 12 and 16:

      z' = (sigma' q / sigma) z + alpha' (1 - exp(-h/2) q) x0 + s n,
      s^2 = eta^2 sigma'^2 (1 - exp(-h)),    q^2 = 1 - eta^2 (1 - exp(-h)).

  Args:
    z: [b t h w c].
    x0: [b t h w c], the denoiser's.
    level: [b t], of z.
    target: [b t], at least `level`.
    eta: 0 deterministic, 1 ancestral.
  """
  level, target = process.per_frame(level, z), process.per_frame(target, z)
  alpha, sigma = process.alpha_sigma(target)
  fresh = -(eta**2) * jnp.expm1(level - target)  # s^2 / sigma'^2.
  log_q = jnp.log1p(-fresh) / 2
  keep = jnp.exp(log_q) * sigma / process.alpha_sigma(level)[1]
  mean = keep * z - alpha * jnp.expm1((level - target) / 2 + log_q) * x0
  return mean, sigma * jnp.sqrt(fresh)


def settle(z, x0, moved, level, target):
  """Returns `moved`, but x0 where a frame is at CLEAN, z where it stood."""
  level, target = process.per_frame(level, z), process.per_frame(target, z)
  moved = jnp.where(target >= process.CLEAN, x0, moved)
  return jnp.where(target == level, z, moved)


def ddim_step(denoise, z, last, level, target, *, eta, draw):
  """DDIM: Euler's step, with a share eta of the noise drawn anew."""
  x0 = denoise(z, level)
  moved, deviation = move(z, x0, level, target, eta)
  if eta:
    moved = moved + deviation * draw()
  return settle(z, x0, moved, level, target), last


def flow_coordinates(levels):
  """Returns flow's time sigma / (alpha + sigma), and alpha + sigma."""
  alpha, sigma = process.alpha_sigma(levels)
  return sigma / (alpha + sigma), alpha + sigma


def heun_step(denoise, z, last, level, target, **_):
  """Heun's method: Euler's step, then the mean of the two velocities."""
  x0 = denoise(z, level)
  euler = settle(z, x0, move(z, x0, level, target)[0], level, target)
  correctable = (target < process.CLEAN) & (target != level)

  def correct():
    x0_after = denoise(euler, target)
    before = process.convert('x0', 'flow', x0, z, level)
    after = process.convert('x0', 'flow', x0_after, euler, target)
    time, _ = flow_coordinates(process.per_frame(level, z))
    time_after, scale = flow_coordinates(process.per_frame(target, z))
    change = scale * (time_after - time) * (after - before) / 2
    return jnp.where(process.per_frame(correctable, z), euler + change, euler)

  # The last step, where every frame becomes clean, needs no second evaluation.
  return jax.lax.cond(correctable.any(), correct, lambda: euler), last


def dpmpp_step(denoise, z, last, level, target, **_):
  """DPM-Solver++(2M): x0 extrapolated to the middle of the step."""
  x0 = denoise(z, level)
  last_x0, last_level = last
  past = level - last_level
  usable = past != 0  # Not at first, nor after standing still.
  # 1 / (2 r) of the paper: this step over twice the last, in log-SNR.
  ahead = jnp.where(
    usable, (target - level) / jnp.where(usable, 2 * past, 1), 0
  )
  middle = x0 + process.per_frame(ahead, z) * (x0 - last_x0)
  moved = move(z, middle, level, target)[0]
  return settle(z, x0, moved, level, target), (x0, level)


STEPS = {'ddim': ddim_step, 'heun': heun_step, 'dpmpp': dpmpp_step}


def sample(denoise, z, levels, key=None, *, method='ddim', eta=0.0):
  """Returns z moved along `levels`, in float32 at least.

  Args:
    denoise: (z [b t h w c], levels [b t]) -> x0 [b t h w c]; conditioning and
      guidance are bound in it.
    z: [b t h w c], the state at levels[0], with given frames in it.
    levels: [steps + 1, b or 1, t], log-SNR that never falls; CLEAN at the end
      for clips, and throughout for frames that are given.
    key: for eta > 0, a typed key, or one a row [b]: then a row can be remade
      alone. Not the key that drew z.
    method: ddim | heun | dpmpp.
    eta: of ddim.

  Raises:
    ValueError: an unknown method, eta without ddim or without a key.
  """
  if method not in STEPS:
    raise ValueError(f'Unknown method {method!r}: use one of {tuple(STEPS)}.')
  if eta and method != 'ddim':
    raise ValueError(f'eta {eta} is for ddim, not {method}: set it to 0.')
  if eta and key is None:
    raise ValueError(f'eta {eta} draws noise: give a key.')
  z = process.at_least_float32(z)
  levels = jnp.asarray(levels, z.dtype)
  levels = jnp.broadcast_to(levels, (len(levels), *z.shape[:2]))

  def step(carry, inputs):
    index, level, target = inputs

    def draw():
      fresh = process.noise(process.fold_in(key, index), z.shape)
      return fresh.astype(z.dtype)

    return STEPS[method](
      lambda z, level: denoise(z, level).astype(z.dtype),
      *carry,
      level,
      target,
      eta=eta,
      draw=draw,
    ), None

  # What the step before left: its x0 and level. None yet: they differ by 0.
  last = (jnp.zeros_like(z), levels[0]) if method == 'dpmpp' else ()
  steps = (jnp.arange(len(levels) - 1), levels[:-1], levels[1:])
  (z, _), _ = jax.lax.scan(step, (z, last), steps)
  return z
