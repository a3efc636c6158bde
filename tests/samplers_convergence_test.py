"""Samplers converge, each at its own order, to closed forms in float64.

Three problems whose denoiser and whose probability flow are known:

  Gaussian   x0 ~ N(mu, s^2): the flow is affine. So is every sampler: its map
             is read off two states, and noise is replaced by unit vectors.
  Mixture    of N(-1, s^2) and N(1, s^2), on the line, where the flow is the
             map that keeps the quantile.
  Joint      Gaussian over frames, each at its own level, some of them given.

A grid of n steps is padded by repeating its end, where a sampler stands still;
so all n run as rows of one batch, compiled once.
"""

import functools

import closed_forms
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vdm.diffusion import process
from vdm.diffusion import samplers

ORDERS = dict(ddim=1, heun=2, dpmpp=2)
COUNTS = (16, 32, 64, 128)
LOW, HIGH = -6.0, 4.0
MEAN, DEVIATION = 0.7, 0.5  # Of the Gaussian.


def pad_grids(grid, counts=COUNTS):
  """Grids of n steps from `grid(share)`, as levels [steps + 1, rows, 1]."""
  most = max(counts)
  steps = np.arange(most + 1)
  rows = [grid(np.minimum(steps / n, 1)) for n in counts]
  return np.stack(rows, axis=1)[..., None]


def even_in_logsnr(share):
  """Returns the level of a share of the steps."""
  return LOW + share * (HIGH - LOW)


def assert_order(errors, order, counts, tolerance):
  """Asserts that errors fall as count^-order, at the finest two counts."""
  slopes = -np.diff(np.log(np.abs(errors))) / np.diff(np.log(counts))
  assert abs(slopes[-1] - order) < tolerance, (errors, slopes)


@functools.partial(
  jax.jit, static_argnums=(0,), static_argnames=('method', 'eta')
)
def sample(denoise, z, levels, key=None, **kwargs):
  return samplers.sample(denoise, z, levels, key, **kwargs)


def denoise_gaussian(z, levels):
  """Returns E[x0 | z] of x0 ~ N(MEAN, DEVIATION^2)."""
  alpha, sigma = process.alpha_sigma(process.per_frame(levels, z))
  gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
  return MEAN + gain * (z - alpha * MEAN)


@pytest.mark.parametrize('method', ORDERS)
def test_gaussian_moments_converge_at_the_methods_order(method):
  with jax.enable_x64(True):
    levels = pad_grids(even_in_logsnr)
    # z -> gain z + offset, from the states 0 and 1.
    states = np.broadcast_to([0.0, 1.0], (len(COUNTS), 1, 2))
    ends = np.asarray(
      sample(
        denoise_gaussian, closed_forms.video(states), levels, method=method
      )
    )[:, 0, :, 0, 0]
  assert ends.dtype == np.float64
  offset, gain = ends[:, 0], ends[:, 1] - ends[:, 0]
  (alpha, sigma), (alpha_end, sigma_end) = map(
    closed_forms.coefficients, (LOW, HIGH)
  )
  start = np.hypot(alpha * DEVIATION, sigma)
  # Every step keeps the mean of a Gaussian: it is where x0 and z / alpha meet.
  mean = gain * alpha * MEAN + offset
  np.testing.assert_allclose(mean, alpha_end * MEAN, rtol=1e-12)
  error = gain * start / np.hypot(alpha_end * DEVIATION, sigma_end) - 1
  assert_order(error, ORDERS[method], COUNTS, tolerance=0.1)
  assert abs(error[-1]) < (0.02 if ORDERS[method] == 1 else 1e-3)


@pytest.mark.parametrize('method', ORDERS)
def test_mixture_is_carried_to_its_quantiles(method):
  (alpha, sigma), (alpha_end, sigma_end) = map(
    closed_forms.coefficients, (LOW, HIGH)
  )
  start = np.hypot(alpha * closed_forms.SPREAD, sigma)
  end = np.hypot(alpha_end * closed_forms.SPREAD, sigma_end)

  def cdf(z, alpha, scale):
    halves = [scipy.special.ndtr((z - m * alpha) / scale) for m in (-1, 1)]
    return np.mean(halves, axis=0)

  # Starts; the flow takes each to the end that has its quantile.
  nodes = np.linspace(-6, 6, 961)
  with jax.enable_x64(True):
    states = np.broadcast_to(nodes, (len(COUNTS), 1, len(nodes)))
    levels = pad_grids(even_in_logsnr)
    ends = np.asarray(
      sample(
        closed_forms.denoise_mixture,
        closed_forms.video(states),
        levels,
        method=method,
      )
    )[:, 0, :, 0, 0]
  inner = np.abs(nodes) < 4
  quantile = cdf(nodes, alpha, start)
  wrong = np.abs(cdf(ends, alpha_end, end) - quantile)[:, inner].max(1)
  # The moments: an integral over the starts, exact for smooth densities.
  density = sum(
    np.exp(-(((nodes - m * alpha) / start) ** 2) / 2) for m in (-1, 1)
  )
  density /= density.sum()
  second = ends**2 @ density - (alpha_end**2 + end**2)
  fourth = ends**4 @ density - (
    alpha_end**4 + 6 * alpha_end**2 * end**2 + 3 * end**4
  )
  for error in (wrong, second, fourth):
    assert_order(error, ORDERS[method], COUNTS, tolerance=0.1)
    assert abs(error[-1]) < (0.05 if ORDERS[method] == 1 else 1e-3)


def test_ancestral_gaussian_has_weak_order_one(monkeypatch):
  # Row 0 starts at 0, row 1 at 1, row 2 + i is moved by step i's noise alone.
  counts = (8, 16, 32, 64)
  (alpha, sigma), (alpha_end, sigma_end) = map(
    closed_forms.coefficients, (LOW, HIGH)
  )
  most = max(counts)

  def unit_noise(index, shape):
    rows = jnp.arange(shape[0]).reshape(-1, 1, 1, 1, 1)
    return jnp.broadcast_to(rows == index + 2, shape).astype(jnp.float64)

  closed_forms.replace_noise(monkeypatch, unit_noise)
  with jax.enable_x64(True):
    levels = pad_grids(even_in_logsnr, counts)
    levels = levels[:, None].repeat(most + 2, axis=1)[..., 0]  # t: the counts.
    states = np.zeros((most + 2, len(counts), 1))
    states[1] = 1.0
    ends = np.asarray(
      samplers.sample(
        denoise_gaussian,
        closed_forms.video(states),
        levels,
        jax.random.key(0),
        eta=1.0,
      )
    )[..., 0, 0, 0]
  offset, gains = ends[0], ends[1:] - ends[0]
  start = alpha**2 * DEVIATION**2 + sigma**2
  variance = gains[0] ** 2 * start + (gains[1:] ** 2).sum(0)
  wanted = alpha_end**2 * DEVIATION**2 + sigma_end**2
  mean = gains[0] * alpha * MEAN + offset
  np.testing.assert_allclose(mean, alpha_end * MEAN, rtol=1e-12)
  assert_order(variance / wanted - 1, 1, counts, tolerance=0.1)


def test_ancestral_mixture_has_weak_order_one(monkeypatch):
  # Every step of every grid is one row: its mean map, and its deviation. The
  # density is then carried through the kernels on a grid of states.
  counts = (16, 32, 64)
  nodes = np.linspace(-6, 6, 601)
  grids = [even_in_logsnr(np.arange(n + 1) / n) for n in counts]
  before = np.concatenate([grid[:-1] for grid in grids])
  after = np.concatenate([grid[1:] for grid in grids])
  closed_forms.replace_noise(
    monkeypatch,
    lambda index, shape: (
      jnp.arange(2.0).reshape(1, 2, 1, 1, 1) * jnp.ones(shape)
    ),
  )
  with jax.enable_x64(True):
    states = np.broadcast_to(nodes, (len(before), 2, len(nodes)))
    levels = np.stack([before, after])[..., None].repeat(2, axis=2)
    ends = np.asarray(
      samplers.sample(
        closed_forms.denoise_mixture,
        closed_forms.video(states),
        levels,
        jax.random.key(0),
        eta=1.0,
      )
    )[..., 0, 0]
  means, deviations = ends[:, 0], (ends[:, 1] - ends[:, 0])[:, 0]
  (alpha, sigma), (alpha_end, sigma_end) = map(
    closed_forms.coefficients, (LOW, HIGH)
  )
  start = np.hypot(alpha * closed_forms.SPREAD, sigma)
  end = np.hypot(alpha_end * closed_forms.SPREAD, sigma_end)
  density = sum(
    np.exp(-(((nodes - m * alpha) / start) ** 2) / 2) for m in (-1, 1)
  )
  moments, row = [], 0
  for n in counts:
    mass = density / density.sum()
    for _ in range(n):
      kernel = np.exp(
        -(((nodes[:, None] - means[row]) / deviations[row]) ** 2) / 2
      )
      mass = (kernel / kernel.sum(0)) @ mass
      row += 1
    moments.append([mass @ nodes**2, mass @ nodes**4])
  exact = [
    alpha_end**2 + end**2,
    alpha_end**4 + 6 * alpha_end**2 * end**2 + 3 * end**4,
  ]
  for error in (np.array(moments) - exact).T:
    assert_order(error, 1, counts, tolerance=0.15)


# Four frames of a stationary process, none independent of another.
COVARIANCE = 0.8 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))


def denoise_joint(z, levels):
  """E[x0 | z] = C A (A C A + S^2)^-1 z, over frames at their own levels."""
  alpha, sigma = process.alpha_sigma(levels)
  cross = COVARIANCE[None] * alpha[:, None, :]
  total = cross * alpha[:, :, None] + jax.vmap(jnp.diag)(sigma**2)
  return jnp.einsum(
    'btu,buhwc->bthwc', jnp.linalg.solve(total.mT, cross.mT).mT, z
  )


@pytest.mark.parametrize('method', ORDERS)
def test_given_frames_are_kept_and_condition_the_others(method):
  # Two frames given, two free, of which the second waits a third of the way.
  given = 2
  counts = (48, 96, 192)
  steps = np.arange(max(counts) + 1)

  def grid(share):
    free = LOW + np.minimum(1.5 * share, 1) * (HIGH - LOW)
    late = LOW + np.maximum(1.5 * share - 0.5, 0) * (HIGH - LOW)
    kept = np.full_like(share, process.CLEAN)
    return np.stack([kept, kept, free, late], axis=-1)

  levels = np.stack([grid(np.minimum(steps / n, 1)) for n in counts], axis=1)
  with jax.enable_x64(True):
    # The identity's columns [t n]: the sampler is linear.
    states = np.broadcast_to(np.eye(4), (len(counts), 4, 4))
    ends = np.asarray(
      sample(denoise_joint, closed_forms.video(states), levels, method=method)
    )[..., 0, 0]
  assert np.array_equal(ends[:, :given], states[:, :given])
  blocks = np.split(COVARIANCE, [given], axis=0)
  (known, _), (cross, free) = (np.split(b, [given], axis=1) for b in blocks)
  pull = cross @ np.linalg.inv(known)  # Conditional mean, of the given.
  schur = free - pull @ cross.T
  (alpha, sigma), (alpha_end, sigma_end) = map(
    closed_forms.coefficients, (LOW, HIGH)
  )
  start = alpha**2 * schur + sigma**2 * np.eye(2)
  wanted = alpha_end**2 * schur + sigma_end**2 * np.eye(2)
  on_given, on_free = ends[:, given:, :given], ends[:, given:, given:]
  mean = on_given + on_free @ (alpha * pull) - alpha_end * pull
  covariance = on_free @ start @ on_free.mT - wanted
  np.testing.assert_allclose(mean, 0, atol=1e-12)
  error = np.abs(covariance).max((1, 2))
  assert_order(error, ORDERS[method], counts, tolerance=0.15)
  assert error[-1] < (0.03 if ORDERS[method] == 1 else 1e-3)
