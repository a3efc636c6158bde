"""Guidance against its formula, on a denoiser that depends on its condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import guidance
from vdm.diffusion import process
from vdm.diffusion import samplers

SHAPE = (2, 3, 4, 4, 2)
COND = dict(label=jnp.array([3, 5]), extra=jnp.array([[0.5], [1.5]]))
NULL = dict(label=jnp.array([-1, -1]), extra=jnp.zeros((2, 1)))
LEVELS = jnp.array([[-6.0, -2.0, 0.0], [2.0, 4.0, process.CLEAN]])


def against(scale):
  return [guidance.Contrast(scale - 1, NULL)]


def draw():
  return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def denoise(z, levels, cond):
  gain = cond['label'] * 0.25 + cond['extra'][:, 0]
  return z * process.per_frame(gain[:, None] + levels / 10, z)


def test_scale_one_is_the_conditional_in_one_evaluation():
  rows = []

  def counted(z, levels, cond):
    rows.append(len(z))
    return denoise(z, levels, cond)

  z = draw()
  plain = guidance.guided(counted, COND, against(1.0))(z, LEVELS)
  np.testing.assert_array_equal(plain, denoise(z, LEVELS, COND))
  guidance.guided(counted, COND, against(2.0))(z, LEVELS)
  assert rows == [2, 4]


@pytest.mark.parametrize('scale', [0.0, 0.5, 3.0])
def test_guidance_extrapolates_from_the_null(scale):
  z = draw()
  guided = guidance.guided(denoise, COND, against(scale))(z, LEVELS)
  conditional, null = (denoise(z, LEVELS, c) for c in (COND, NULL))
  wanted = null + scale * (conditional - null)
  np.testing.assert_allclose(guided, wanted, rtol=0, atol=1e-5)


def test_guidance_is_the_same_in_every_prediction():
  z = draw()
  levels = jnp.clip(LEVELS, -4, 4)
  guided = guidance.guided(denoise, COND, against(3.0))(z, levels)
  for kind in process.PREDICTIONS:
    conditional, null = (
      process.convert('x0', kind, denoise(z, levels, c), z, levels)
      for c in (COND, NULL)
    )
    there = null + 3.0 * (conditional - null)
    x0 = process.to_x0(kind, there, z, levels)
    np.testing.assert_allclose(x0, guided, rtol=0, atol=1e-3)


def test_outside_the_interval_frames_are_conditional():
  z = draw()
  always = guidance.guided(denoise, COND, against(3.0))(z, LEVELS)
  within = guidance.guided(denoise, COND, against(3.0), interval=(-2.0, 2.0))(
    z, LEVELS
  )
  conditional = denoise(z, LEVELS, COND)
  inside = np.array([[False, True, True], [True, False, False]])
  # As one program it is rounded otherwise.
  np.testing.assert_allclose(within[inside], always[inside], rtol=1e-5)
  np.testing.assert_allclose(within[~inside], conditional[~inside], rtol=1e-6)


@pytest.mark.parametrize('against_worse', [False, True])
@pytest.mark.parametrize('method', ['ddim', 'heun', 'dpmpp'])
def test_steps_outside_the_interval_evaluate_one_prediction(
  method, against_worse
):
  """Though a given frame is clean throughout, which the interval includes."""
  interval, z, seen = (-1.0, process.CLEAN), draw(), []

  def counted(z, levels, cond):
    jax.debug.callback(lambda levels: seen.append(levels[:, 1]), levels)
    return 0.1 * denoise(z, levels, cond)

  def worse(z, levels, cond):
    return counted(z, levels, cond) + 1

  contrasts = against(3.0)
  if against_worse:
    contrasts = [guidance.Contrast(1.5, COND, predict=worse)]
  grid = jnp.array([-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, process.CLEAN])
  given = jnp.array([[True, False, False]])
  levels = jnp.where(given, process.CLEAN, grid[:, None, None])
  sample = jax.jit(
    lambda denoise: samplers.sample(denoise, z, levels, method=method),
    static_argnums=0,
  )
  found = sample(guidance.guided(counted, COND, contrasts, interval=interval))
  jax.effects_barrier()
  rows = {}
  for own in seen:
    assert len(set(own.tolist())) == 1
    rows[float(own[0])] = rows.get(float(own[0]), 0) + len(own)
  # Heun evaluates twice at every level but the first and the last.
  twice = 2 if method == 'heun' else 1
  inner = dict.fromkeys((-4.0, -2.0), twice * 2)
  inner |= dict.fromkeys((0.0, 2.0, 4.0), twice * 4)
  assert rows == {-6.0: 2, **inner}
  always = guidance.guided(counted, COND, contrasts)

  def chosen(z, levels):
    inside = process.per_frame(levels >= interval[0], z)
    return jnp.where(inside, always(z, levels), 0.1 * denoise(z, levels, COND))

  np.testing.assert_allclose(found, sample(chosen), rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(found[:, 0], z[:, 0])


def test_rescale_keeps_the_conditional_deviation():
  z = draw()
  wanted = np.std(denoise(z, LEVELS, COND), axis=(1, 2, 3, 4))
  plain = guidance.guided(denoise, COND, against(3.0))(z, LEVELS)
  before = np.std(plain, axis=(1, 2, 3, 4))
  for share in (0.5, 1.0):
    scaled = guidance.guided(denoise, COND, against(3.0), rescale=share)
    after = np.std(scaled(z, LEVELS), axis=(1, 2, 3, 4))
    mixed = share * wanted + (1 - share) * before
    np.testing.assert_allclose(after, mixed, rtol=1e-5)
  # A clip without contrast is left alone.
  flat = guidance.guided(
    lambda z, levels, cond: 0 * z, COND, against(3.0), rescale=1.0
  )
  assert np.all(flat(z, LEVELS) == 0)


def test_guidance_against_a_worse_network_needs_no_null():
  z, rows = draw(), []

  def worse(z, levels, cond):
    rows.append(len(z))
    return 0.5 * denoise(z, levels, cond) + 1

  guided = guidance.guided(
    denoise, COND, [guidance.Contrast(1.5, COND, predict=worse)]
  )
  conditional = denoise(z, LEVELS, COND)
  wanted = 2.5 * conditional - 1.5 * (0.5 * conditional + 1)
  np.testing.assert_allclose(guided(z, LEVELS), wanted, rtol=0, atol=1e-5)
  assert rows == [2]


@pytest.mark.parametrize('partial', [False, True])
@pytest.mark.parametrize('scale', [1.0, 3.0])
def test_history_guidance_replaces_what_is_held(partial, scale):
  """Beside guidance by the condition, in one batch."""

  def mixing(z, levels, cond):  # A frame's prediction depends on all frames.
    rows.append(len(z))
    return denoise(z, levels, cond) + z.mean(1, keepdims=True)

  z, rows = draw(), []
  held = np.array([[True, False, True]])
  noises = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype('f')
  others = [
    guidance.replace_held(held, frames, jnp.full((1, 3), level))
    for frames, level in zip(noises, (-8.0, 1.0))
  ]
  history = guidance.History(2.0, others[0], others[1] if partial else None)
  guided = guidance.guided(mixing, COND, against(scale), history=history)
  found = guided(z, LEVELS)
  assert rows == [2 * (2 + (scale != 1) + partial)]
  views = [(z, LEVELS)]
  for frames, level in zip(noises, (-8.0, 1.0)):
    replaced, levels = z.copy(), np.array(LEVELS)
    replaced[:, [0, 2]], levels[:, [0, 2]] = frames[:, [0, 2]], level
    views.append((replaced, jnp.asarray(levels)))
  full, without, some = (mixing(*view, COND) for view in views)
  wanted = full + (some if partial else full) - without
  wanted = wanted + (scale - 1) * (full - mixing(z, LEVELS, NULL))
  np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def test_a_history_scale_of_one_is_none():
  z, history = draw(), guidance.History(1.0, None)
  plain = guidance.guided(denoise, COND, against(1.0), history=history)
  np.testing.assert_array_equal(plain(z, LEVELS), denoise(z, LEVELS, COND))
