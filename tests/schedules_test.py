"""Schedules against their closed forms in float64, and against diffusers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import schedules

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'diffusers_schedulers.npz'


def make(name, low=-15.0, high=15.0, shift=1.0):
  return schedules.make_schedule(
    name, logsnr_min=low, logsnr_max=high, shift=shift
  )


@pytest.mark.parametrize('low,high', [(-15.0, 15.0), (-40.0, 40.0)])
@pytest.mark.parametrize('name', ['cosine', 'flow'])
@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_ends_are_exact_and_the_curve_falls(name, low, high, shift):
  schedule = make(name, low, high, shift)
  levels = np.asarray(schedule.logsnr(jnp.linspace(0, 1, 257)))
  assert levels.dtype == np.float32
  assert levels[0] == high
  assert levels[-1] == low
  assert np.all(np.diff(levels) < 0)
  assert np.all(np.isfinite(levels))


def test_cosine_is_the_angle_of_the_literature():
  # alpha = cos(pi t / 2): with the ends at +-40 the truncation is invisible.
  time = np.linspace(0.001, 0.999, 101)
  levels = make('cosine', -40.0, 40.0).logsnr(time.astype(np.float32))
  wanted = -2 * np.log(np.tan(np.pi / 2 * time))
  np.testing.assert_allclose(levels, wanted, rtol=0, atol=2e-4)
  # Truncated to [-15, 15], the angle runs evenly between the ends' angles.
  low, high = np.arctan(np.exp(7.5)), np.arctan(np.exp(-7.5))
  wanted = -2 * np.log(np.tan(high + time * (low - high)))
  levels = make('cosine').logsnr(time.astype(np.float32))
  np.testing.assert_allclose(levels, wanted, rtol=0, atol=2e-4)


def test_flow_is_the_straight_path_and_its_shift_that_of_time():
  time = np.linspace(0.002, 0.998, 101)
  shifted = 3 * time / (1 + 2 * time)
  for shift, t in ((1.0, time), (3.0, shifted)):
    levels = make('flow', shift=shift).logsnr(time.astype(np.float32))
    wanted = 2 * np.log((1 - t) / t)
    # float32 times near 1 are 6e-8 apart, of 2e-3 that are left.
    np.testing.assert_allclose(levels, wanted, rtol=0, atol=1e-4)


def test_flow_shifted_by_3_is_that_of_diffusers():
  levels = np.load(GOLDEN)['flow_euler/levels'][:-1]
  time = make('flow', -40.0, 40.0, 3.0).time(levels.astype(np.float32))
  # Even from 1 to the first of its 1000 levels, which it shifts twice.
  np.testing.assert_allclose(time, np.linspace(1, 0.003 / 1.002, 10), atol=1e-6)


def test_shift_moves_every_curve_alike():
  time = jnp.linspace(0.05, 0.95, 19)
  for name in ('flow', 'linear'):
    moved = make(name, shift=2.0).logsnr(time) - make(name).logsnr(time)
    np.testing.assert_allclose(moved, -2 * np.log(2.0), atol=1e-5)
  # The cosine runs between its ends: at +-40 these are out of sight.
  moved = make('cosine', -40.0, 40.0, 2.0).logsnr(time)
  moved -= make('cosine', -40.0, 40.0).logsnr(time)
  np.testing.assert_allclose(moved, -2 * np.log(2.0), atol=1e-5)
  assert schedules.shift_for(16, 8, 8, (4, 8, 8)) == 2.0
  assert schedules.shift_for(16, 8, 8, 1024) == 1.0
  assert schedules.shift_for(16, 8, 8, 0) == 1.0


def test_linear_is_the_table_of_ddpm():
  golden = np.load(GOLDEN)
  levels = make('linear').logsnr(jnp.linspace(0, 1, 1000))
  np.testing.assert_allclose(levels, golden['linear_logsnr'], atol=2e-3)
  assert make('linear', -8.0, 5.0).logsnr(1.0) == -8.0
  assert make('linear', -8.0, 5.0).logsnr(0.0) == 5.0


@pytest.mark.parametrize('name', ['cosine', 'flow', 'linear'])
def test_time_is_the_inverse(name):
  schedule = make(name, -9.0, 9.0, shift=1.5)
  levels = jnp.linspace(-8.9, 7.0, 101)
  there_and_back = schedule.logsnr(schedule.time(levels))
  np.testing.assert_allclose(there_and_back, levels, atol=2e-4)
  outside = schedule.time(jnp.array([-40.0, 40.0]))
  assert 0 <= outside[1] < outside[0] <= 1


def test_float64_stays_float64():
  with jax.enable_x64(True):
    for name in schedules.CURVES:
      schedule = make(name)
      levels = schedule.logsnr(jnp.linspace(0, 1, 11))
      assert levels.dtype == jnp.float64
      time = schedule.time(levels[1:-1])
      np.testing.assert_allclose(time, np.linspace(0, 1, 11)[1:-1], atol=1e-12)


def test_refusals():
  with pytest.raises(ValueError, match='Unknown schedule'):
    make('cosin')
  with pytest.raises(ValueError, match='must rise within'):
    make('cosine', 15.0, -15.0)
  with pytest.raises(ValueError, match='must rise within'):
    make('cosine', -50.0, 15.0)
  with pytest.raises(ValueError, match='positive'):
    make('cosine', shift=0.0)
