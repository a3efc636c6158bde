"""Videos from a run's folder: each from its own seed, whatever the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import generate
from vdm import prompts
from vdm import trained
from vdm.sampling import batching
from vdm.sampling import coders
from vdm.training import sharding


@pytest.fixture(scope='module')
def run(finished_run):
  return trained.load(finished_run)


def test_a_run_is_loaded_with_all_that_sampling_needs(run):
  assert run.step == 12
  assert run.stage.frames == 4
  assert run.label_names[0] == 'right'
  assert run.frame_rate == 25.0
  assert run.frozen['stats']['mean'].shape == (4,)


def test_a_video_is_the_same_alone_and_in_any_batch(run, finished_run):
  with np.load(finished_run / 'final/samples.npz', allow_pickle=False) as file:
    videos = file['videos']
  make = generate.make_generator(run.config, run.stage)
  alone = make.samples(run.params, run.frozen, {'label': [5]}, [5])[0]
  # Another batch size may round otherwise: by a grey level, not more.
  assert np.abs(alone.astype(int) - videos[5]).max() <= 1
  assert np.abs(alone.astype(int) - videos[4]).max() > 1


def test_no_run_and_no_such_average_are_one_sentence(finished_run, tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no run'):
    trained.load(tmp_path)
  with pytest.raises(ValueError, match='no wider than 0.28'):
    trained.load(finished_run, ema=0.3)


def test_guidance_needs_a_trained_null_label():
  config = tiny_runs.make_config()
  config.model.label_dropout = 0.0
  with pytest.raises(ValueError, match='leaves the null label untrained'):
    generate.make_generator(config, config.stages.video)
  config.sample.guidance = 1.0
  generate.make_generator(config, config.stages.video)


def test_uint8_and_float_are_inverse():
  values = np.arange(256, dtype=np.uint8)
  back = coders.to_uint8(coders.to_float(values))
  np.testing.assert_array_equal(back, values)


def test_batches_are_filled_up_and_cut_off():
  sizes = []

  def double(rows):
    sizes.append(len(rows))
    return jnp.asarray(rows) * 2

  out = batching.apply(double, (np.arange(7),), 3)
  np.testing.assert_array_equal(out, 2 * np.arange(7))
  assert sizes == [3, 3, 3]


@pytest.mark.parametrize(
  'total, size, devices, rows',
  [
    (33, 32, 1, [17, 17]),
    (33, 32, 2, [18, 18]),
    (64, 32, 1, [32, 32]),
    (5, 32, 4, [8]),
    (9, 3, 4, [4, 4, 4]),
    (17, 6, 4, [8, 8, 8]),
  ],
)
def test_batches_are_as_few_and_then_as_small_as_they_can_be(
  total, size, devices, rows
):
  mesh = sharding.make_mesh(1, jax.devices()[:devices]) if devices > 1 else None
  found = list(batching.chunks([np.arange(total)], size, mesh))
  assert [len(x) for (x,), _ in found] == rows
  real = [np.asarray(x)[:n] for (x,), n in found]
  np.testing.assert_array_equal(np.concatenate(real), np.arange(total))


def test_labels_by_name_and_number(run):
  classes = (run.config.model.num_classes, run.label_names)
  assert prompts.choose_labels(*classes, 'down', 2) == [2, 2]
  assert prompts.choose_labels(*classes, '7', 1) == [7]
  assert list(prompts.choose_labels(*classes, None, 3)) == [0, 1, 2]
  with pytest.raises(ValueError, match="did you mean 'up-right'"):
    prompts.choose_labels(*classes, 'upright', 1)
  with pytest.raises(ValueError) as raised:
    prompts.choose_labels(*classes, '9', 1)
  assert 'did you mean' not in str(raised.value)
  assert 'there are right, ' in str(raised.value)
  assert 'Numbers are 0 to 7.' in str(raised.value)
