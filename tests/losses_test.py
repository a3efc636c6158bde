"""Levels and weightings against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vdm.diffusion import losses
from vdm.diffusion import process
from vdm.diffusion import schedules

COSINE = schedules.make_schedule('cosine', logsnr_min=-15.0, logsnr_max=15.0)
FLOW = schedules.make_schedule('flow', logsnr_min=-40.0, logsnr_max=40.0)
SIGMA_DATA = 0.3  # Of edm.
SHARED = dict(shared=1.0, context=0.0, independent=0.0)


def draw_levels(key, batch, frames, frame_levels, density='uniform', **kwargs):
  """`losses.draw_levels`, compiled whole, as NumPy arrays."""
  values = dict(mean=1.0, std=1.4, schedule=FLOW) | kwargs
  draw = jax.jit(
    lambda key: losses.draw_levels(
      key, batch, frames, density=density, frame_levels=frame_levels, **values
    )
  )
  return jax.tree.map(np.asarray, draw(jax.random.key(key)))


def example(levels, seed=0):
  """A clip, its noise, its noised copy and a network's output, by float64."""
  generator = np.random.default_rng(seed)
  x0, eps, output = generator.normal(size=(3, *levels.shape, 4, 4, 2))
  snr = np.exp(levels.astype(np.float64))[..., None, None, None]
  z = (snr / (1 + snr)) ** 0.5 * x0 + (1 + snr) ** -0.5 * eps
  return x0, eps, z, output


def exact_weight(name, levels):
  snr = np.exp(levels.astype(np.float64))
  return dict(
    x0=np.ones_like(snr),
    eps=snr,
    v=1 + snr,
    flow=(1 + np.sqrt(snr)) ** 2,
    min_snr=np.minimum(snr, 5),
    edm=1 + SIGMA_DATA**2 * snr,
  )[name]


@pytest.mark.parametrize('name', losses.WEIGHTINGS)
def test_weights_are_their_definitions(name):
  levels = np.linspace(-40, 40, 161).astype(np.float32)
  wanted = exact_weight(name, levels)
  found = losses.weight(name, levels, SIGMA_DATA)
  np.testing.assert_allclose(found, wanted, rtol=5e-6)


@pytest.mark.parametrize('kind', process.PREDICTIONS)
def test_each_prediction_is_flat_in_the_weighting_of_its_name(kind):
  levels = np.array([[-40, -15, -2], [2, 15, 40]], np.float32)
  x0, eps, _, output = example(levels)
  mask = np.ones_like(levels)
  total, count, frames = losses.loss(
    kind, output, x0, eps, levels, mask, kind, SIGMA_DATA
  )
  alpha = (1 + np.exp(-levels.astype(np.float64))) ** -0.5
  sigma = (1 + np.exp(levels.astype(np.float64))) ** -0.5
  alpha, sigma = (a[..., None, None, None] for a in (alpha, sigma))
  edm = SIGMA_DATA**2 * alpha * eps - sigma * x0
  edm = edm / np.sqrt(sigma**2 + (SIGMA_DATA * alpha) ** 2)
  v = alpha * eps - sigma * x0
  target = dict(x0=x0, eps=eps, v=v, flow=eps - x0, edm=edm)[kind]
  wanted = ((output - target) ** 2).mean((2, 3, 4))
  np.testing.assert_allclose(frames, wanted, rtol=1e-5)
  np.testing.assert_allclose(total / count, wanted.mean(), rtol=1e-5)


def test_one_output_has_one_loss_in_every_prediction():
  levels = np.array([[-15, -5, -1], [1, 5, 15]], np.float32)
  mask = np.ones_like(levels)
  with jax.enable_x64(True):  # The conversions themselves cost digits.
    x0, eps, z, output = example(levels)
    precise = levels.astype(np.float64)

    @jax.jit
    def all_losses(output):
      return {
        (kind, weighting): losses.loss(
          kind,
          process.convert('v', kind, output, z, precise, SIGMA_DATA),
          x0,
          eps,
          levels,
          mask,
          weighting,
          SIGMA_DATA,
        )[2]
        for kind in process.PREDICTIONS
        for weighting in losses.WEIGHTINGS
      }

    error = process.to_x0('v', output, z, precise) - x0
    error = np.mean(error**2, axis=(2, 3, 4))
    for (_, weighting), frames in all_losses(output).items():
      wanted = error * exact_weight(weighting, levels)
      np.testing.assert_allclose(frames, wanted, rtol=1e-5)


def test_a_small_error_keeps_its_digits_up_to_clean():
  # A v network off by 0.01, at ever cleaner levels.
  levels = np.array([[0.0, 7.0, 15.0, 30.0]], np.float32)
  x0, eps, z, off = example(levels)
  sigma = (1 + np.exp(levels.astype(np.float64))) ** -0.5
  alpha = (1 + np.exp(-levels.astype(np.float64))) ** -0.5
  alpha, sigma = (a[..., None, None, None] for a in (alpha, sigma))
  output = (alpha * eps - sigma * x0 + 0.01 * off).astype(np.float32)
  wanted = ((0.01 * off) ** 2).mean((2, 3, 4))
  x0, eps, z = (a.astype(np.float32) for a in (x0, eps, z))
  frames = losses.loss('v', output, x0, eps, levels, levels >= 0, 'v')[2]
  direct = abs(frames / wanted - 1)
  assert direct.max() < 1e-4
  # Through x0: the reason for weighting where the network made the error.
  error = process.to_x0('v', output, z, levels) - x0
  detour = losses.weight('v', levels) * (error**2).mean((2, 3, 4))
  detour = abs(detour / wanted - 1)
  assert detour[0, 2] > 10 * direct[0, 2]
  assert detour[0, 3] > 1


def test_given_frames_add_nothing_and_no_gradient():
  levels = np.array([[process.CLEAN, -2.0, 3.0]], np.float32)
  mask = np.array([[0.0, 1.0, 1.0]], np.float32)
  x0, eps, _, output = example(levels)
  output[:, 0] = np.inf  # A network may even overflow where nothing counts.
  combinations = [
    (kind, weighting)
    for kind in process.PREDICTIONS
    for weighting in losses.WEIGHTINGS
  ]

  def total(output, kind, weighting, *rest):
    return losses.loss(kind, output, *rest, weighting, SIGMA_DATA)[0]

  @jax.jit
  def all_losses(output, *rest):
    return [
      jax.value_and_grad(total)(output, *names, *rest) for names in combinations
    ]

  arrays = (output, x0, eps, levels, mask)
  alone = all_losses(*(a[:, 1:] for a in arrays))
  for whole, free in zip(all_losses(*arrays), alone):
    np.testing.assert_allclose(whole[0], free[0], rtol=1e-6)
    np.testing.assert_allclose(whole[1][:, 1:], free[1], rtol=1e-6)
    assert np.all(whole[1][:, 0] == 0)
    assert np.all(np.isfinite(free[1]))
    assert np.all(np.abs(free[1]).sum((0, 2, 3, 4)) > 0)


def test_parts_of_a_batch_add_up():
  levels = np.linspace(-5, 5, 12).reshape(4, 3).astype(np.float32)
  mask = (np.arange(12).reshape(4, 3) % 5 > 0).astype(np.float32)
  x0, eps, _, output = example(levels)
  whole = losses.loss('v', output, x0, eps, levels, mask, 'flow')
  parts = [
    losses.loss(
      'v', *(a[i : i + 2] for a in (output, x0, eps, levels, mask)), 'flow'
    )
    for i in (0, 2)
  ]
  total = sum(part[0] for part in parts) / sum(part[1] for part in parts)
  np.testing.assert_allclose(whole[0] / whole[1], total, rtol=1e-6)


def test_level_bins_count_every_frame_once():
  levels = jnp.array([[-7.0, -3.0, 0.5], [process.CLEAN, 2.0, 9.0]])
  frames = jnp.array([[1.0, 2.0, 4.0], [0.0, 8.0, 16.0]])
  mask = jnp.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
  sums, counts = losses.level_bins(levels, frames, mask, (-3.0, 3.0, 6.0))
  np.testing.assert_array_equal(sums, [1, 14, 0, 16])
  np.testing.assert_array_equal(counts, [1, 3, 0, 1])


def assert_stratified(uniform):
  """Asserts one value in each of n equal cells, as even as a lattice."""
  uniform = np.sort(uniform)
  cells = np.floor(uniform * len(uniform) + 1e-3)
  assert sorted(set(cells)) == list(range(len(uniform)))
  np.testing.assert_allclose(np.diff(uniform), 1 / len(uniform), atol=1e-5)


def test_shared_levels_are_stratified_over_the_batch():
  levels, mask = draw_levels(0, 32, 3, SHARED)
  assert levels.shape == mask.shape == (32, 3)
  assert np.all(mask == 1)
  assert np.all(levels == levels[:, :1])
  assert_stratified(FLOW.time(levels[:, 0]))
  # A row's place in the batch says nothing about its level.
  assert np.any(np.diff(levels[:, 0]) > 0)
  assert np.any(np.diff(levels[:, 0]) < 0)
  again, _ = draw_levels(0, 32, 3, SHARED)
  other, _ = draw_levels(1, 32, 3, SHARED)
  assert np.array_equal(levels, again)
  assert not np.array_equal(levels, other)


def test_independent_levels_are_stratified_frame_by_frame():
  levels, mask = draw_levels(0, 32, 3, dict(independent=1.0))
  uniform = np.asarray(FLOW.time(levels))
  for frame in range(3):
    assert_stratified(uniform[:, frame])
  # Frames of a row know nothing of each other: 4 standard errors of 1 / 31.
  assert np.abs(np.corrcoef(uniform.T) - np.eye(3)).max() < 4 * 31**-0.5
  assert np.all(mask == 1)


def test_context_gives_a_prefix_and_at_times_the_end():
  levels, mask = draw_levels(0, 256, 5, dict(context=1.0))
  levels, mask = np.asarray(levels), np.asarray(mask)
  assert np.all(mask[:, 0] == 0)
  assert np.all(mask.sum(1) >= 1)
  np.testing.assert_array_equal(levels[mask == 0], process.CLEAN)
  # The frames that are left are one run, at one level.
  changes = np.abs(np.diff(np.pad(mask, ((0, 0), (1, 1))), axis=1)).sum(1)
  assert np.all(changes == 2)
  free = levels.min(1)
  assert np.all((levels == free[:, None]) == (mask > 0))
  assert_stratified(FLOW.time(free))
  first = np.argmax(mask, axis=1)
  assert set(first) == {1, 2, 3, 4}
  end_given = np.mean(mask[:, -1] == 0)
  # BOTH_ENDS of the rows, less half of those with no frame to spare: 0.19 of
  # 256, and 4 standard errors.
  assert 0.09 < end_given < 0.29


def test_the_task_of_interpolation_is_common_in_context():
  _, mask = draw_levels(0, 1024, 16, dict(context=1.0))
  ends = np.arange(16) % 15 == 0
  share = np.mean(np.all((np.asarray(mask) == 0) == ends, axis=1))
  # An eighth of the rows, and 4 standard errors.
  assert abs(share - 0.125) < 0.042
  # Two frames have no middle: one of them is always left.
  _, mask = draw_levels(0, 64, 2, dict(context=1.0))
  assert np.all(np.asarray(mask).sum(1) == 1)


def test_the_first_frame_alone_is_given():
  levels, mask = draw_levels(0, 64, 5, dict(first=0.5, shared=0.5))
  levels, mask = np.asarray(levels), np.asarray(mask)
  given = mask[:, 0] == 0
  assert given.sum() == 32
  assert np.all(mask[:, 1:] == 1)
  np.testing.assert_array_equal(levels[given, 0], process.CLEAN)
  assert np.all(levels[:, 1:] == levels[:, 1:2])
  assert_stratified(FLOW.time(levels[given, 1]))
  assert_stratified(FLOW.time(levels[~given, 0]))


def test_shares_say_how_many_rows_are_of_a_kind():
  shares = dict(shared=0.5, context=0.25, independent=0.25)
  levels, mask = draw_levels(3, 64, 4, shares)
  levels, mask = np.asarray(levels), np.asarray(mask)
  context = mask.min(1) == 0
  shared = np.all(levels == levels[:, :1], axis=1)
  independent = ~context & ~shared
  assert abs(shared.sum() - 32) <= 1
  assert abs(context.sum() - 16) <= 1
  assert abs(independent.sum() - 16) <= 1
  # Each kind is stratified over its own rows.
  assert_stratified(FLOW.time(levels[shared, 0]))
  assert_stratified(FLOW.time(levels[context].min(1)))
  for frame in range(4):
    assert_stratified(FLOW.time(levels[independent, frame]))


def test_single_frames_are_always_shared():
  levels, mask = draw_levels(0, 16, 1, dict(context=0.5, independent=0.5))
  assert_stratified(FLOW.time(levels[:, 0]))
  assert np.all(mask == 1)


def test_normal_density_has_its_mean_and_deviation_whatever_the_schedule():
  levels, _ = draw_levels(0, 512, 2, SHARED, density='normal')
  log_sigma = np.sort(-levels[:, 0] / 2)
  # A lattice of 512 follows the quantiles; its outermost values are free.
  middle = scipy.stats.norm.ppf((np.arange(512) + 0.5) / 512, 1.0, 1.4)
  np.testing.assert_allclose(log_sigma[8:-8], middle[8:-8], atol=0.05)
  assert abs(log_sigma.mean() - 1.0) < 0.01
  assert abs(log_sigma.std() - 1.4) < 0.02
  narrow, _ = draw_levels(
    0, 64, 2, SHARED, density='normal', std=20.0, schedule=COSINE
  )
  assert narrow.min() == -15
  assert narrow.max() == 15


def test_zero_terminal_snr_is_refused_where_it_cannot_be_learned():
  sighted = [k for k in process.PREDICTIONS if k != 'eps']
  seeing = [w for w in losses.WEIGHTINGS if w not in ('eps', 'min_snr')]
  for kind in sighted:
    for weighting in seeing:
      losses.check(kind, weighting, FLOW)
  with pytest.raises(ValueError, match='predict v, flow or x0'):
    losses.check('eps', 'v', FLOW)
  for weighting in ('eps', 'min_snr'):
    with pytest.raises(ValueError, match='vanishes at zero terminal SNR'):
      losses.check('v', weighting, FLOW)
    losses.check('eps', weighting, COSINE)


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match='Unknown prediction'):
    losses.check('score', 'v', COSINE)
  with pytest.raises(ValueError, match='Unknown weighting'):
    losses.check('v', 'snr', COSINE)
  with pytest.raises(ValueError, match='Unknown density'):
    draw_levels(0, 4, 2, SHARED, density='lognormal')
  with pytest.raises(ValueError, match='must give shares'):
    draw_levels(0, 4, 2, dict(prefix=1.0))
  with pytest.raises(ValueError, match='must give shares'):
    draw_levels(0, 4, 2, dict(shared=0.0))


def test_context_noise_is_of_given_frames_alone():
  shares = dict(shared=0.3, context=0.5, independent=0.2)
  plain, mask = draw_levels(3, 4000, 6, shares)
  levels, same_mask = draw_levels(3, 4000, 6, shares, context_noise=0.3)
  # Nothing else is drawn otherwise.
  np.testing.assert_array_equal(mask, same_mask)
  np.testing.assert_array_equal(levels[mask > 0], plain[mask > 0])
  given = (mask == 0).any(1)
  held = np.where(mask == 0, levels, np.nan)[given]
  low, high = np.nanmin(held, 1), np.nanmax(held, 1)
  np.testing.assert_array_equal(low, high)  # One level a row.
  sigma = (1 + np.exp(low.astype(np.float64))) ** -0.5
  clean = low == process.CLEAN
  n = len(low)
  assert abs(clean.mean() - losses.CLEAN_CONTEXT) < 4 * (0.25 / n) ** 0.5
  # Kolmogorov-Smirnov against the uniform density on [0, 0.3].
  test = scipy.stats.kstest(sigma[~clean] / 0.3, 'uniform')
  assert test.pvalue > 1e-3


@pytest.mark.parametrize(
  'frame_levels', [dict(shared=1.0), dict(shared=0.5, context=0.5)]
)
def test_a_kind_without_a_share_has_no_row(frame_levels):
  """Also where a row's place in [0, 1) is rounded up to 1."""
  key = jax.random.key(50145)
  assert losses.stratified_uniform(key, jnp.ones(1024, bool), 1).max() == 1
  found = np.unique(losses.draw_kinds(key, 1024, frame_levels))
  assert [losses.FRAME_LEVELS[i] for i in found] == list(frame_levels)
