"""Given frames and long videos, against what is known of Gaussian processes.

Each pixel over time is a stationary process with covariance RHO^|t - s|, whose
exact denoiser E[x0 | z] at levels of each frame's own takes the network's
place. It has the Markov property: a frame depends on those before it through
the last one, so that windows which hold at least one frame have the same law as
one long video. Everything else is the real path, from seeds to uint8 pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import tiny_runs

from vdm import generate
from vdm import models
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.diffusion import samplers
from vdm.sampling import task_plan

RHO, SCALE = 0.8, 0.2  # SCALE: of pixels in [-1, 1]; they clip at 5 of it.
LENGTH, SIDE, NUM = 4, 16, 16
SAMPLES = NUM * SIDE * SIDE * 3  # Independent processes: 12 288.
# A covariance of unit variables has a standard error of at most
# (2 / SAMPLES)^0.5 = 0.013; 32 steps of dpmpp are exact to 0.005, pixels are
# rounded to 0.04 of the deviation.
TOLERANCE = 0.065
MIXED = dict(shared=0.4, context=0.3, independent=0.3)
FROZEN = {
  'params': {},
  'stats': {'mean': np.zeros(3, 'f'), 'scale': np.full(3, SCALE, 'f')},
}


def covariance(frames):
  index = np.arange(frames)
  return RHO ** np.abs(index[:, None] - index)


def conditional(frames, given):
  """(pull, Schur complement) of the other frames given some."""
  free = np.setdiff1d(np.arange(frames), given)
  whole = covariance(frames)
  cross = whole[np.ix_(free, given)]
  pull = cross @ np.linalg.inv(whole[np.ix_(given, given)])
  return pull, whole[np.ix_(free, free)] - pull @ cross.T


def denoise(params, z, levels, cond):
  """E[x0 | z] = C A (A C A + S^2)^-1 z, plus what `params` and `cond` say."""
  alpha, sigma = process.alpha_sigma(levels)
  cross = jnp.asarray(covariance(z.shape[1]), z.dtype)[None] * alpha[:, None, :]
  total = cross * alpha[:, :, None] + jax.vmap(jnp.diag)(sigma**2)
  gain = jnp.linalg.solve(total.mT, cross.mT).mT
  return jnp.einsum('btu,buhwc->bthwc', gain, z) + params['offset']


@pytest.fixture
def make_videos(monkeypatch):
  """Function of a task that returns latents [n t SIDE SIDE 3] of videos."""
  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, denoise)
  )

  def make(
    task=rollouts.PLAIN,
    given=None,
    frame_levels=MIXED,
    poll=lambda: None,
    worse=None,
    offset=0.0,
    num=NUM,
    image_fraction=0.2,
    **options,
  ):
    config = tiny_runs.make_config(
      frames=LENGTH,
      resolution=SIDE,
      frame_levels=frame_levels,
      image_fraction=image_fraction,
    )
    config.model.num_classes = 0
    config.diffusion.prediction = 'x0'
    config.sample.update(
      dict(steps=32, method='dpmpp', batch=8, guidance=3.0) | options
    )
    maker = generate.make_generator(
      config,
      config.stages.video,
      poll=poll,
      worse=worse and generate.Average(config, worse, 0, ''),
    )
    videos = maker.samples(
      {'offset': offset},
      FROZEN,
      {'label': np.full(num, -1)},
      np.arange(num),
      task,
      given,
    )
    assert videos.dtype == np.uint8
    return (videos / 127.5 - 1.0) / SCALE, videos

  return make


def draw_given(frames, num=NUM, seed=5):
  """Pixels of some frames of the process, uint8 [n k SIDE SIDE 3]."""
  generator = np.random.default_rng(seed)
  root = np.linalg.cholesky(covariance(max(frames) + 1))[list(frames)]
  z = generator.normal(size=(num, SIDE, SIDE, 3, root.shape[1])) @ root.T
  pixels = np.moveaxis(z, -1, 1) * SCALE
  return np.round((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)


def by_time(z):
  """[n t h w c] as [t, processes]."""
  return np.moveaxis(z, 1, 0).reshape(z.shape[1], -1)


def assert_moments(z, wanted):
  """Asserts that values [t, processes] have mean zero and a covariance."""
  np.testing.assert_allclose(z.mean(1), 0, atol=TOLERANCE)
  np.testing.assert_allclose(np.cov(z), wanted, atol=TOLERANCE)


def test_a_rollout_has_the_law_of_one_long_video(make_videos):
  # Windows at 0, 2 and, moved back to the end, 3.
  z, videos = make_videos(rollouts.Task(frames=7, context_noise=0.0))
  assert videos.shape == (NUM, 7, SIDE, SIDE, 3)
  assert_moments(by_time(z), covariance(7))


def test_a_rollout_goes_on_from_the_shorter_video(make_videos):
  _, short = make_videos(num=2)
  _, long = make_videos(rollouts.Task(frames=7, context_noise=0.3), num=2)
  np.testing.assert_array_equal(long[:, :LENGTH], short)
  # Other windows have noise of their own.
  assert np.abs(long[:, 4:6].astype(int) - short[:, 2:4]).max() > 20


def test_held_frames_are_seen_through_their_noise(make_videos):
  sigma = 0.6
  z, _ = make_videos(rollouts.Task(frames=6, context_noise=sigma))
  # The second window makes frames 4 and 5 from noised copies y = alpha x + n
  # of frames 2 and 3.
  alpha = (1 - sigma**2) ** 0.5
  whole = covariance(6)
  known = alpha**2 * whole[2:4, 2:4] + sigma**2 * np.eye(2)
  pull = alpha * whole[4:, 2:4] @ np.linalg.inv(known)
  schur = whole[4:, 4:] - alpha * pull @ whole[2:4, 4:]
  to_before = alpha * pull @ whole[2:4, :4]
  wanted = whole.copy()
  wanted[4:, :4], wanted[:4, 4:] = to_before, to_before.T
  wanted[4:, 4:] = schur + pull @ known @ pull.T
  assert np.abs(wanted - whole).max() > 3 * TOLERANCE  # The noise matters.
  assert_moments(by_time(z), wanted)


@pytest.mark.parametrize(
  'given, frames', [((0,), 4), ((0, 1), 4), ((0, 3), 4), ((1, 2), 7)]
)
def test_given_frames_condition_the_others(make_videos, given, frames):
  pixels = draw_given(given)
  # A scale of one is no history guidance.
  task = rollouts.Task(frames, given, context_noise=0.0, history_guidance=1.0)
  z, videos = make_videos(task, pixels)
  np.testing.assert_array_equal(videos[:, list(given)], pixels)
  z = by_time(z)
  free = np.setdiff1d(np.arange(frames), given)
  pull, schur = conditional(frames, list(given))
  rest = z[free] - pull @ z[list(given)]
  assert_moments(rest, schur)
  # Nothing of the given frames is left in the rest.
  cross = rest @ z[list(given)].T / rest.shape[1]
  np.testing.assert_allclose(cross, 0, atol=TOLERANCE)


def test_without_clean_frames_in_training_given_ones_are_noised(make_videos):
  given, sigma = (0, 3), 0.4
  pixels = draw_given(given)
  task = rollouts.Task(given=given, context_noise=sigma)
  z, videos = make_videos(
    task, pixels, frame_levels=dict(shared=0.5, independent=0.5)
  )
  np.testing.assert_array_equal(videos[:, list(given)], pixels)
  z, alpha, whole = by_time(z), (1 - sigma**2) ** 0.5, covariance(4)
  given, free = list(given), [1, 2]
  known = alpha**2 * whole[np.ix_(given, given)] + sigma**2 * np.eye(2)
  pull = alpha * whole[np.ix_(free, given)] @ np.linalg.inv(known)
  cross = z[free] @ z[given].T / z.shape[1]
  wanted = alpha * pull @ (z[given] @ z[given].T / z.shape[1])
  np.testing.assert_allclose(cross, wanted, atol=TOLERANCE)


def test_history_guidance_pulls_towards_what_the_history_says(make_videos):
  """At frame 1, given frame 0, the mean moves beyond the conditional one.

  Without history the mean is 0, so that with a scale above one it is above
  RHO z_0; the fractional variant, guided by less of the history, lies between.
  """
  pixels = draw_given((0,), num=8)
  slopes = {}
  for scale, noise in ((1.0, 0.0), (1.5, 0.8), (1.5, 0.0)):
    task = rollouts.Task(
      given=(0,), history_guidance=scale, history_noise=noise
    )
    z, videos = make_videos(task, pixels, num=8)
    np.testing.assert_array_equal(videos[:, :1], pixels)
    z = by_time(z)
    slopes[scale, noise] = (z[1] @ z[0]) / (z[0] @ z[0])
  assert abs(slopes[1.0, 0.0] - RHO) < TOLERANCE
  values = list(slopes.values())
  assert values == sorted(values)
  assert min(np.diff(values)) > 0.02


def guided_slope(scale):
  """E[frame 1 | frame 0 = 1], by the guided probability flow in float64.

  In units of sigma / alpha the mean m of the free frames follows dm/dsigma =
  (m - D(m)) / sigma, with D = scale D_with - (scale - 1) D_without: what is
  expected of the free frames with the first one and without it.
  """
  whole = covariance(LENGTH)
  pull, schur = conditional(LENGTH, [0])
  prior = whole[1:, 1:]

  def flow(sigma, m):
    noised = sigma**2 * np.eye(LENGTH - 1)
    mean = pull[:, 0]
    known = mean + schur @ np.linalg.solve(schur + noised, m - mean)
    unknown = prior @ np.linalg.solve(prior + noised, m)
    return (m - scale * known + (scale - 1) * unknown) / sigma

  start = np.zeros(LENGTH - 1)
  solved = scipy.integrate.solve_ivp(flow, (50.0, 1e-3), start, rtol=1e-8)
  return solved.y[0, -1]


@pytest.mark.parametrize('scale', [1.0, 1.5, 2.0])
def test_history_guidance_is_the_guided_flow(make_videos, scale):
  pixels = draw_given((0,), num=8)
  task = rollouts.Task(given=(0,), history_guidance=scale)
  z = by_time(make_videos(task, pixels, num=8)[0])
  slope = (z[1] @ z[0]) / (z[0] @ z[0])
  # 6 144 processes: a standard error of 0.6 / 78; 32 steps add 0.005.
  assert abs(slope - guided_slope(scale)) < 0.035
  if scale == 1:  # But for the start, which lacks RHO / 50 of the mean.
    assert abs(guided_slope(scale) - RHO) < RHO / 50


def test_without_history_is_pure_noise_of_its_own(make_videos, monkeypatch):
  """The start's noise in its place would tell of the frames to be made."""
  history, seen = rollouts.history, []

  def noted(scale, sigma, noise, known, held, levels, noisiest):
    seen.append((np.asarray(noise), float(noisiest)))
    return history(scale, sigma, noise, known, held, levels, noisiest)

  begin, started = rollouts.begin, []
  monkeypatch.setattr(rollouts, 'history', noted)
  monkeypatch.setattr(
    rollouts,
    'begin',
    lambda z, *x: started.append(np.asarray(z)) or begin(z, *x),
  )
  task = rollouts.Task(given=(0,), history_guidance=1.5)
  with jax.disable_jit():
    make_videos(task, draw_given((0,), num=2), num=2, steps=2)
  ((noise, level),), (start,) = seen, started
  np.testing.assert_allclose(level, -2 * np.log(50.0), rtol=1e-6)
  both = np.corrcoef(noise.ravel(), start.ravel())[0, 1]
  assert abs(both) < 4 / noise.size**0.5
  assert abs(noise.std() - 1) < 4 / noise.size**0.5


def test_guidance_by_given_frames_alone_is_that_by_the_history(make_videos):
  """There is one contrast, without these frames; none where none is held."""
  pixels = draw_given((0,), num=2)
  history = rollouts.Task(given=(0,), history_guidance=1.5)
  given = rollouts.Task(given=(0,))
  _, wanted = make_videos(history, pixels, num=2)
  _, found = make_videos(given, pixels, num=2, guidance_by='given=1.5')
  np.testing.assert_array_equal(found, wanted)
  _, plain = make_videos(given, pixels, num=2)
  assert (found != plain).any()
  _, free = make_videos(num=2)
  _, still = make_videos(num=2, guidance_by='given=1.5')
  np.testing.assert_array_equal(still, free)


def test_guidance_by_given_frames_needs_them_in_noise(make_videos):
  with pytest.raises(ValueError, match='independent above 0'):
    make_videos(
      guidance_by='given=1.5', frame_levels=dict(shared=0.5, context=0.5)
    )
  with pytest.raises(ValueError, match='one scale and no groups'):
    make_videos(guidance_by='given=1.5', worse={'offset': 0.0})


IMAGES_FIRST = dict(shared=0.3, first=0.7)


@pytest.mark.parametrize('frame_levels', [IMAGES_FIRST, MIXED])
def test_an_image_and_then_the_others_have_the_same_law(
  make_videos, frame_levels, monkeypatch
):
  lengths = []
  monkeypatch.setattr(
    samplers,
    'sample',
    lambda denoise, z, *args, sample=samplers.sample, **kwargs: (
      lengths.append(z.shape[1]),
      sample(denoise, z, *args, **kwargs),
    )[1],
  )
  z, _ = make_videos(image_first=True, frame_levels=frame_levels)
  assert lengths == [1, LENGTH]
  assert_moments(by_time(z), covariance(LENGTH))


def test_a_rollout_may_begin_with_an_image(make_videos):
  frames = rollouts.Task(frames=7, context_noise=0.0)
  z, _ = make_videos(frames, image_first=True)
  assert_moments(by_time(z), covariance(7))
  # What is given comes before it.
  task, pixels = rollouts.Task(given=(0,)), draw_given((0,), num=2)
  _, plain = make_videos(task, pixels, num=2)
  _, same = make_videos(task, pixels, num=2, image_first=True)
  np.testing.assert_array_equal(plain, same)


def test_images_first_need_images_and_first_frames_in_training(make_videos):
  with pytest.raises(ValueError, match='frame_levels.first above 0'):
    make_videos(image_first=True, frame_levels=dict(shared=1.0))
  with pytest.raises(ValueError, match='image_fraction above 0'):
    make_videos(image_first=True, image_fraction=0.0)


def test_a_worse_network_is_guided_against(make_videos):
  # The denoisers differ by a constant, so all videos do, by the same.
  guided, _ = make_videos(
    num=2, guidance=1.5, worse={'offset': -0.1}, offset=0.1
  )
  good, _ = make_videos(num=2, offset=0.1)
  other, _ = make_videos(num=2, offset=0.2)
  # x0 + 0.1 + 0.5 (0.1 + 0.1) = x0 + 0.2.
  np.testing.assert_allclose(guided, other, atol=0.05)
  assert np.abs(guided - good).mean() > 0.05


def test_a_window_at_a_time_and_progress_after_each(make_videos, monkeypatch):
  sizes, calls = [], []
  sample = samplers.sample

  def recorded(denoise, z, *args, **kwargs):
    sizes.append(z.shape)
    return sample(denoise, z, *args, **kwargs)

  monkeypatch.setattr(samplers, 'sample', recorded)
  make_videos(
    rollouts.Task(frames=12), num=10, poll=lambda: calls.append(1), steps=2
  )
  assert len(calls) == 2 * 5  # Two batches, windows at 0, 2, 4, 6 and 8.
  # Compiled once, of one window: longer videos take no more of a device.
  assert sizes == [(5, LENGTH, SIDE, SIDE, 3)]


@pytest.mark.parametrize('noise, rows', [(0.0, 2), (0.5, 3)])
def test_history_guides_no_window_in_which_nothing_is_held(
  make_videos, monkeypatch, noise, rows
):
  """Of two videos the first window takes two rows of the network."""
  seen = []

  def recorded(params, z, levels, cond):
    jax.debug.callback(lambda: seen.append(len(z)))
    return denoise(params, z, levels, cond)

  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, recorded)
  )
  task = rollouts.Task(7, history_guidance=1.5, history_noise=noise)
  _, videos = make_videos(task, num=2, steps=3)
  jax.effects_barrier()
  assert seen == [2] * 3 + [2 * rows] * 6  # Windows at 0, 2 and 3.
  _, plain = make_videos(num=2, steps=3)
  np.testing.assert_array_equal(videos[:, :LENGTH], plain)


@pytest.mark.parametrize(
  'task, shape, words',
  [
    ((), (2, 1, SIDE, SIDE, 3), 'the task does not say of which frames'),
    ((0,), None, 'their pixels are not: pass these as given, of the shape'),
    ((0, 3), (2, 1, SIDE, SIDE, 3), '(2, 2, 16, 16, 3), and those passed'),
    ((0,), (1, 1, SIDE, SIDE, 3), 'pass every frame of every video'),
    ((0,), (2, 1, SIDE, 2 * SIDE, 3), 'pass every frame of every video'),
  ],
)
def test_pixels_are_those_of_the_given_frames(make_videos, task, shape, words):
  pixels = None if shape is None else np.zeros(shape, np.uint8)
  with pytest.raises(ValueError) as error:
    make_videos(rollouts.Task(given=task), pixels, num=2, steps=1)
  said = str(error.value)
  assert words in said and '\n' not in said and said.endswith('.'), said


def test_windows_hold_what_is_known():
  found = rollouts.windows(21, 8, 4, (0, 20))
  assert [w.start for w in found] == [0, 4, 8, 12, 13]
  assert [w.made for w in found] == [0, 4, 4, 4, 7]
  assert np.flatnonzero(found[0].held).tolist() == [0]
  assert np.flatnonzero(found[1].held).tolist() == [0, 1, 2, 3]
  assert found[-1].held.all() and found[-1].given.tolist() == [*7 * [0], 1]
  (only,) = rollouts.windows(8, 8, 4, ())
  assert not only.held.any()


@pytest.mark.parametrize(
  'task, frame_levels, words',
  [
    (dict(frames=7), dict(shared=1.0), 'frame_levels.context above 0'),
    (dict(given=(0,)), dict(shared=1.0), 'frame_levels.context above 0'),
    (
      dict(given=(0,), history_guidance=2.0),
      dict(context=1.0),
      'frame_levels.independent above 0',
    ),
    (dict(history_guidance=2.0), MIXED, 'there are none'),
    (dict(frames=7, context_noise=0.1), dict(context=1.0), 'more than the 0'),
    (dict(frames=3), MIXED, 'fewer than the 4'),
    (dict(frames=7, overlap=4), MIXED, 'none of 1 to 3'),
    (dict(given=(4,)), MIXED, 'the frames 0 to 3'),
    (dict(given=(3, 0)), MIXED, 'in ascending order'),
    (dict(given=(0, 0)), MIXED, 'name each once'),
    (dict(given=(0,), history_noise=0.5), MIXED, 'leave the noise at 0'),
    (dict(given=(0, 1, 2, 3)), MIXED, 'nothing is left'),
    (dict(frames=7, context_noise=1.0), MIXED, 'below 1'),
  ],
)
def test_what_was_never_trained_is_refused(task, frame_levels, words):
  with pytest.raises(ValueError) as error:
    rollouts.resolve(rollouts.Task(**task), LENGTH, frame_levels)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_the_first_frame_alone_may_be_given_where_it_was_trained():
  levels = dict(shared=0.5, first=0.5)
  for task in (dict(), dict(given=(0,))):
    rollouts.resolve(rollouts.Task(**task), LENGTH, levels)
  for task in (dict(given=(1,)), dict(given=(0, 1)), dict(frames=7)):
    with pytest.raises(ValueError, match='never seen clips of which'):
      rollouts.resolve(rollouts.Task(**task), LENGTH, levels)


def test_single_frames_neither_continue_nor_complete():
  with pytest.raises(ValueError, match='trained on single frames'):
    rollouts.resolve(rollouts.Task(frames=2), 1, MIXED)


@pytest.mark.parametrize(
  'frame_levels, trained, wanted',
  [
    (dict(context=1.0), 0.0, 0.0),
    (dict(context=1.0), 0.05, 0.05),
    (dict(context=1.0), 0.3, 0.1),
    (MIXED, 0.0, 0.1),
  ],
)
def test_context_is_as_noisy_as_training_allows(frame_levels, trained, wanted):
  task = rollouts.resolve(
    rollouts.Task(frames=7), LENGTH, frame_levels, trained
  )
  assert (task.context_noise, task.overlap) == (wanted, 2)


@pytest.fixture
def paired(monkeypatch):
  """Configuration of latents that hold two frames: differences and means."""
  config = tiny_runs.make_config(frames=LENGTH, frame_levels=MIXED)
  root = np.sqrt(0.5).astype('f')

  def encode(params, x):
    x = x.reshape(len(x), -1, 2, *x.shape[2:])
    z = jnp.concatenate([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], -1)
    return root * z, jnp.full_like(z, -30.0)

  def decode(params, z):
    total, change = jnp.split(root * z, 2, axis=-1)
    x = jnp.stack([total + change, total - change], axis=2)
    return x.reshape(len(x), -1, *x.shape[3:])

  codec = generate.autoencoders.Autoencoder((2, 1, 1), 6, dict, encode, decode)
  monkeypatch.setattr(
    generate.autoencoders, 'make_autoencoder', lambda _: codec
  )
  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, denoise)
  )
  config.model.num_classes = 0
  config.diffusion.prediction = 'x0'
  config.stages.video.update(frames=2 * LENGTH, resolution=SIDE)
  return config


@pytest.mark.parametrize(
  'task, words',
  [
    (rollouts.Task(given=(0,)), 'whole groups are given, such as 0:2 or 0:4'),
    (rollouts.Task(given=(1, 2)), 'whole groups'),
    (rollouts.Task(given=(6, 7, 0, 1)), 'in ascending order'),
    (rollouts.Task(frames=2 * LENGTH + 1), 'multiple of 2, not for'),
  ],
)
def test_latents_of_two_frames_divide_what_is_asked_for(paired, task, words):
  with pytest.raises(ValueError, match=words):
    task_plan.make(paired, paired.stages.video, task)


def test_groups_of_frames_are_given_and_continued(paired):
  tasks = task_plan.trained(paired, paired.stages.video)
  last = 2 * LENGTH
  assert tasks['interpolation'].given == (0, 1, last - 2, last - 1)
  assert tasks['prediction'].given == tuple(range(2 * (LENGTH // 4)))
  stats = {'mean': np.zeros(6, 'f'), 'scale': np.full(6, SCALE, 'f')}
  make = generate.make_generator(paired, paired.stages.video)
  random = np.random.default_rng(0)
  for frames, given in (
    (last, tasks['interpolation'].given),
    (2 * last, (0, 1, 2, 3)),
    (2 * last, (0, 1, last + 2, last + 3)),
  ):
    pixels = random.integers(90, 160, (2, len(given), SIDE, SIDE, 3), np.uint8)
    videos = make.samples(
      {'offset': 0.0},
      {'params': {}, 'stats': stats},
      {'label': [-1, -1]},
      [0, 1],
      rollouts.Task(frames=frames, given=given),
      pixels,
    )
    assert videos.shape == (2, frames, SIDE, SIDE, 3)
    # There and back in float32, and rounded: the same, where it is given.
    np.testing.assert_array_equal(videos[:, list(given)], pixels)
    assert videos.std(axis=1).min() > 0
