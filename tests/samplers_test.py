"""What samplers promise, step by step, and that diffusers does the same."""

import functools
import importlib.util
import pathlib

import closed_forms
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import process
from vdm.diffusion import samplers
from vdm.diffusion import schedules

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'diffusers_schedulers.npz'
METHODS = ('ddim', 'heun', 'dpmpp')


@functools.partial(
  jax.jit, static_argnums=(0,), static_argnames=('method', 'eta')
)
def sample(denoise, z, levels, key=None, **kwargs):
  return samplers.sample(denoise, z, levels, key, **kwargs)


def grow_rows(levels):
  """[steps + 1] as [steps + 1, steps + 1, 1]: row k stops after k steps."""
  steps = np.arange(len(levels))
  return levels[np.minimum.outer(steps, steps)][..., None]


@pytest.mark.parametrize(
  'name,method',
  [
    ('ddim', 'ddim'),
    ('zero_snr', 'ddim'),
    ('edm_euler', 'ddim'),
    ('flow_euler', 'ddim'),
    ('flow_heun', 'heun'),
    ('dpmpp', 'dpmpp'),
    ('ancestral', 'ddim'),
  ],
)
def test_every_state_is_that_of_diffusers(name, method, monkeypatch):
  golden = np.load(GOLDEN)
  states, levels = golden[f'{name}/z'], golden[f'{name}/levels']
  key, eta = None, 0.0
  if name == 'ancestral':
    draws = jnp.asarray(golden['ancestral/noise'])
    closed_forms.replace_noise(
      monkeypatch,
      lambda index, shape: jnp.broadcast_to(
        draws[index].reshape(1, 1, -1, 1, 1), shape
      ),
    )
    key, eta = jax.random.key(0), 1.0
  start = np.broadcast_to(states[0], (len(states), 1, states.shape[1]))
  ends = samplers.sample(
    functools.partial(closed_forms.denoise_mixture, spread=0.3),
    closed_forms.video(start),
    grow_rows(levels.astype(np.float32)),
    key,
    method=method,
    eta=eta,
  )[:, 0, :, 0, 0]
  # Both are float32; diffusers' tables are too.
  np.testing.assert_allclose(ends, states, rtol=0, atol=1e-5)


@pytest.mark.oracle
def test_golden_arrays_are_what_diffusers_gives():
  pytest.importorskip('diffusers')
  spec = importlib.util.spec_from_file_location(
    'make_diffusers_schedulers', GOLDEN.parent / 'make_diffusers_schedulers.py'
  )
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  golden = np.load(GOLDEN)
  for name, values in script.make().items():
    if name != 'versions':
      np.testing.assert_allclose(golden[name], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype,tolerance', [('f4', 1e-5), ('f8', 1e-12)])
def test_ddim_is_eulers_step_for_flow_and_for_edm(dtype, tolerance):
  levels = np.linspace(-7, 5, 13)
  alpha, sigma = closed_forms.coefficients(levels)
  nodes = np.linspace(-2, 2, 21)
  with jax.enable_x64(dtype == 'f8'):
    start = closed_forms.video(
      np.broadcast_to(nodes.astype(dtype), (13, 1, 21))
    )
    ends = samplers.sample(
      closed_forms.denoise_mixture, start, grow_rows(levels.astype(dtype))
    )[:, 0, :, 0, 0]
  assert ends.dtype == dtype

  def denoise(z, i):
    variance = (alpha[i] * closed_forms.SPREAD) ** 2 + sigma[i] ** 2
    bend = np.tanh(alpha[i] * z / variance)
    return (
      alpha[i] * closed_forms.SPREAD**2 * z + sigma[i] ** 2 * bend
    ) / variance

  # Flow: y = z / (alpha + sigma) and its time run straight along eps - x0.
  scale, time = alpha + sigma, sigma / (alpha + sigma)
  flow = [nodes / scale[0]]
  for i in range(12):
    x0 = denoise(flow[-1] * scale[i], i)
    velocity = (flow[-1] - x0) / time[i]
    flow.append(flow[-1] + (time[i + 1] - time[i]) * velocity)
  np.testing.assert_allclose(
    ends, flow * scale[:, None], rtol=0, atol=tolerance
  )
  # EDM: dy / dsigma = (y - x0) / sigma (Karras et al. 2022, eq. 3).
  noise = sigma / alpha
  edm = [nodes / alpha[0]]
  for i in range(12):
    slope = (edm[-1] - denoise(edm[-1] * alpha[i], i)) / noise[i]
    edm.append(edm[-1] + (noise[i + 1] - noise[i]) * slope)
  np.testing.assert_allclose(ends, edm * alpha[:, None], rtol=0, atol=tolerance)


def test_eta_one_is_ddpms_posterior():
  # Ho et al. 2020, eq. 6 and 7, over the whole table of betas.
  betas = np.linspace(1e-4, 0.02, 1000)
  products = np.cumprod(1 - betas)
  n = np.arange(1, 1000)
  before = products[n - 1]
  variance = (1 - before) / (1 - products[n]) * betas[n]
  on_x0 = before**0.5 * betas[n] / (1 - products[n])
  on_z = (1 - betas[n]) ** 0.5 * (1 - before) / (1 - products[n])
  level = np.log(products) - np.log1p(-products)
  with jax.enable_x64(True):
    clip = np.ones((999, 1, 1, 1, 1))
    args = level[n][:, None], level[n - 1][:, None], 1.0
    with_z, deviation = samplers.ddim_mean_std(clip, 0 * clip, *args)
    with_x0, _ = samplers.ddim_mean_std(0 * clip, clip, *args)
  np.testing.assert_allclose(with_z.ravel(), on_z, rtol=1e-9)
  np.testing.assert_allclose(with_x0.ravel(), on_x0, rtol=1e-9)
  np.testing.assert_allclose(deviation.ravel() ** 2, variance, rtol=1e-9)


@pytest.mark.parametrize(
  'method,eta',
  [(m, 0.0) for m in METHODS] + [('ddim', 1.0), ('consistency', 0.0)],
)
def test_a_frame_that_stands_still_is_returned_bit_equal(method, eta):
  # Frames: given, held at a level, moving throughout.
  levels = np.stack(
    [np.full(5, process.CLEAN), np.full(5, -1.3), np.linspace(-5, 5, 5)],
    axis=-1,
  )[:, None].astype(np.float32)
  z = process.noise(jax.random.key(0), (2, 3, 2, 2, 1))
  end = sample(
    closed_forms.denoise_mixture,
    z,
    levels,
    jax.random.key(1),
    method=method,
    eta=eta,
  )
  assert end.dtype == jnp.float32
  assert np.array_equal(end[:, :2], z[:, :2])
  assert not np.any(end[:, 2] == z[:, 2])


@pytest.mark.parametrize('method', METHODS)
def test_the_step_to_clean_is_the_denoisers_clip(method):
  levels = np.array([-3.0, 0.0, 2.0, process.CLEAN], np.float32)[:, None, None]
  z = process.noise(jax.random.key(0), (2, 1, 2, 2, 1))
  before = sample(closed_forms.denoise_mixture, z, levels[:3], method=method)
  end = sample(closed_forms.denoise_mixture, z, levels, method=method)
  wanted = closed_forms.denoise_mixture(before, jnp.full((2, 1), 2.0))
  np.testing.assert_allclose(end, wanted, rtol=0, atol=1e-6)


def test_multistep_is_first_order_after_standing_still():
  # The frame moves, stands while another moves, and moves again.
  other = np.array([-5.0, -4.0, -3.0, -2.0])
  moving = np.array([-5.0, -3.0, -3.0, 0.0])
  levels = np.stack([moving, other], axis=-1)[:, None]
  z = np.random.default_rng(0).normal(size=(1, 2, 1, 1, 1))
  with jax.enable_x64(True):
    end = sample(closed_forms.denoise_mixture, z, levels, method='dpmpp')
    middle = sample(closed_forms.denoise_mixture, z, levels[:3], method='dpmpp')
    euler = sample(closed_forms.denoise_mixture, middle, levels[2:])
  np.testing.assert_allclose(end[:, 0], euler[:, 0], rtol=1e-12)
  # The other frame never stood still, and was extrapolated.
  assert np.abs(end[:, 1] - euler[:, 1]).min() > 1e-4


def test_heun_needs_no_second_evaluation_for_the_step_to_clean():
  seen = []

  def denoise(z, levels):
    jax.debug.callback(lambda level: seen.append(float(level)), levels[0, 0])
    return closed_forms.denoise_mixture(z, levels)

  levels = np.array([-3.0, 0.0, 3.0, process.CLEAN], np.float32)
  samplers.sample(
    denoise, jnp.ones((1, 1, 1, 1, 1)), levels[:, None, None], method='heun'
  )
  jax.effects_barrier()
  assert sorted(seen) == [-3, 0, 0, 3, 3]


def test_a_row_can_be_remade_alone_from_its_own_key():
  keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))
  levels = np.linspace(-5, 5, 5, dtype=np.float32)[:, None, None]
  z = process.noise(keys, (3, 2, 2, 2, 1))
  levels = np.broadcast_to(levels, (5, 1, 2))
  together = sample(closed_forms.denoise_mixture, z, levels, keys, eta=1.0)
  alone = sample(
    closed_forms.denoise_mixture, z[1:2], levels, keys[1:2], eta=1.0
  )
  np.testing.assert_allclose(together[1:2], alone, rtol=0, atol=1e-6)
  other = sample(
    closed_forms.denoise_mixture, z[1:2], levels, keys[2:], eta=1.0
  )
  assert np.abs(other - alone).max() > 0.1
  # One key for all rows, and each row still its own noise.
  one = sample(
    closed_forms.denoise_mixture, z[:1].repeat(3, 0), levels, keys[0], eta=1.0
  )
  assert np.abs(one[0] - one[1]).max() > 0.1


@pytest.mark.parametrize('method', METHODS)
def test_zero_terminal_snr_and_clean_are_accurate_in_float32(method):
  schedule = schedules.make_schedule(
    'cosine', logsnr_min=process.NOISE, logsnr_max=process.CLEAN
  )
  levels = np.asarray(samplers.make_grid('time', 12, schedule))
  assert levels[0] == process.NOISE
  assert levels[-1] == process.CLEAN
  z = process.noise(jax.random.key(0), (8, 1, 4, 1, 1))

  def denoise(z, level):  # As a v network would be used.
    x0 = closed_forms.denoise_mixture(z, level)
    v = process.convert('x0', 'v', x0, z, level)
    return process.to_x0('v', v, z, level)

  end = samplers.sample(denoise, z, levels[:, None, None], method=method)
  with jax.enable_x64(True):
    exact = sample(
      closed_forms.denoise_mixture,
      np.asarray(z, np.float64),
      levels[:, None, None].astype(np.float64),
      method=method,
    )
  np.testing.assert_allclose(end, exact, rtol=0, atol=1e-4)


def test_grids_run_from_noise_to_clean():
  schedule = schedules.make_schedule('flow', logsnr_min=-12.0, logsnr_max=12.0)
  time = samplers.make_grid('time', 8, schedule)
  assert time.shape == (9,)
  np.testing.assert_allclose(
    schedule.time(time[1:-1]), np.linspace(1, 0, 9)[1:-1], atol=1e-6
  )
  logsnr = samplers.make_grid('logsnr', 7, schedule)
  np.testing.assert_allclose(logsnr[:-1], np.linspace(-12, 12, 7), atol=1e-5)
  # EDM's, as diffusers computes it.
  sigmas = np.load(GOLDEN)['edm_sigmas']
  rho = samplers.make_grid(
    'rho', 10, schedule, rho=7.0, sigma_min=sigmas[-2], sigma_max=sigmas[0]
  )
  np.testing.assert_allclose(np.exp(-rho[:-1] / 2), sigmas[:-1], rtol=2e-5)
  for grid in (time, logsnr, rho):
    assert grid[-1] == process.CLEAN
    assert np.all(np.diff(grid) > 0)
  one = samplers.make_grid('rho', 1, schedule, sigma_max=50.0)
  np.testing.assert_allclose(one, [-2 * np.log(50.0), process.CLEAN], rtol=1e-5)


def test_every_step_of_a_consistency_model_leaves_for_clean():
  schedule = schedules.make_schedule('flow', logsnr_min=-12.0, logsnr_max=12.0)
  options = dict(rho=5.0, sigma_min=0.05, sigma_max=50.0)
  noise, clean = 50**0.2, 0.05**0.2
  for steps in (1, 2, 4):
    # The grid's n + 1 levels but for the last, 0.05.
    wanted = (noise + np.arange(steps) / steps * (clean - noise)) ** 5
    levels = samplers.make_levels(
      'consistency', 'rho', steps, schedule, **options
    )
    np.testing.assert_allclose(np.exp(-levels[:-1] / 2), wanted, rtol=1e-4)
    assert levels[-1] == process.CLEAN
  np.testing.assert_array_equal(
    samplers.make_levels('ddim', 'rho', 4, schedule, **options),
    samplers.make_grid('rho', 4, schedule, **options),
  )


def test_a_consistency_step_is_the_clip_with_other_noise():
  levels = np.array([-5.0, -1.0], np.float32)[:, None, None]
  z = process.noise(jax.random.key(0), (2, 1, 4, 4, 1))
  ends = [
    sample(
      lambda z, level: jnp.full_like(z, 0.7),
      z,
      levels,
      key,
      method='consistency',
    )
    for key in (jax.random.key(1), jax.random.key(2))
  ]
  alpha, sigma = closed_forms.coefficients(-1.0)
  one, two = ((end - alpha * 0.7) / sigma for end in ends)
  # Standard normal, neither the noise of z nor twice the same.
  noises = [np.ravel(x) for x in (one, two, z)]
  assert all(abs(x.std() - 1) < 0.4 for x in noises)
  assert np.abs(np.corrcoef(noises) - np.eye(3)).max() < 0.6


def test_refusals():
  z = jnp.zeros((1, 1, 1, 1, 1))
  levels = np.zeros((2, 1, 1), np.float32)
  schedule = schedules.make_schedule('flow', logsnr_min=-12.0, logsnr_max=12.0)
  with pytest.raises(ValueError, match='Unknown method'):
    samplers.sample(closed_forms.denoise_mixture, z, levels, method='euler')
  with pytest.raises(ValueError, match='is for ddim'):
    samplers.sample(
      closed_forms.denoise_mixture, z, levels, method='heun', eta=1.0
    )
  for options in (dict(eta=1.0), dict(method='consistency')):
    with pytest.raises(ValueError, match='give a key'):
      samplers.sample(closed_forms.denoise_mixture, z, levels, **options)
  with pytest.raises(ValueError, match='Unknown grid'):
    samplers.make_grid('even', 4, schedule)
  with pytest.raises(ValueError, match='at least 1'):
    samplers.make_grid('time', 0, schedule)
