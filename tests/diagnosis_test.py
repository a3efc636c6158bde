"""Diagnoses of clips, parameters and a run whose faults are planted."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm.common import trees
from vdm.data.synthetic import scenes
from vdm.evaluation import diagnosis
from vdm.evaluation import diagnosis_text
from vdm.models import autoencoders


@pytest.fixture(scope='module')
def clips():
  return np.stack(
    [
      scenes.render(i, seed=0, resolution=32, frames=8)['frames']
      for i in range(12)
    ]
  )


def test_frames_in_order_are_told_from_shuffled_ones(clips):
  found = diagnosis.of_data(clips)
  assert found['order'] < 0.5 and found['static_share'] == 0.0
  order = np.random.default_rng(0).permutation(clips.shape[1])
  assert diagnosis.of_data(clips[:, order])['order'] > 0.85


def test_clips_without_motion_are_counted(clips):
  still = np.repeat(clips[:3, :1], clips.shape[1], axis=1)
  found = diagnosis.of_data(np.concatenate([still, clips[3:]]))
  assert found['static_share'] == 0.25
  assert found['order'] == diagnosis.of_data(clips[3:])['order']
  assert diagnosis.of_data(still) == {'static_share': 1.0}
  assert diagnosis.of_data(clips[:, :1]) == {}


def test_clips_that_come_back_exactly_have_a_finite_psnr(clips):
  """The identity gives all of them back so."""
  assert diagnosis.of_restored(clips, clips) == 80.0
  # One grey level off: 20 log10(255) dB.
  off = np.where(clips < 255, clips + 1, clips - 1).astype(np.uint8)
  both = np.concatenate([clips, off])
  wanted = (80.0 + 48.130803608679) / 2
  found = diagnosis.of_restored(both, np.concatenate([clips, clips]))
  assert found == pytest.approx(wanted)


def of_parameters(change):
  config = tiny_runs.make_config()
  params = trees.flatten(tiny_runs.Run(config).initial.params)
  codec = autoencoders.make_autoencoder(config.autoencoder)
  changed = {path: change(path, x) for path, x in params.items()}
  return diagnosis.of_parameters(config, codec, trees.unflatten(changed))


def test_sizes_are_of_layers_that_start_at_zero():
  found = of_parameters(lambda path, x: x)
  # `tiny_runs.randomise`: kernels of variance 0.09 / inputs.
  assert found['zero_init_size'] == pytest.approx(0.3, rel=0.3)
  assert found['rounded_share'] < 1e-3
  found = of_parameters(lambda path, x: 0 * x if 'temporal' in path else x)
  assert found['temporal_size'] == 0.0 < found['zero_init_size']


def test_16_bit_parameters_are_found():
  found = of_parameters(lambda path, x: np.float32(jnp.bfloat16(x)))
  assert found['rounded_share'] == 1.0


def test_gains_are_those_of_the_level_where_they_are_largest():
  row = dict(error=0.1, linear=0.2, identity=0.4, wrong_label=0.1)
  row |= dict(strangers=0.1, own_frames=0.1)
  noisy = {**row, 'error': 0.9, 'wrong_label': 1.0, 'strangers': 0.4}
  found = diagnosis.of_steps({-6.0: noisy, 6.0: row})
  assert found['label_gain'] == pytest.approx(0.1)
  assert found['company_gain'] == pytest.approx(0.75)
  assert found['over_linear'] == pytest.approx((0.5 * 4.5) ** 0.5)
  assert found['over_identity'] == pytest.approx(0.25)
  assert found['over_zero'] == 0.9


def test_a_run_is_diagnosed_and_its_planted_fault_is_named(
  finished_run, tmp_path, monkeypatch
):
  workdir = tmp_path / 'run'
  shutil.copytree(finished_run, workdir)
  read = diagnosis.trained.load

  def with_wrong_statistics(*args):
    run = read(*args)
    stats = {**run.frozen['stats'], 'scale': run.frozen['stats']['scale'] / 3}
    return run._replace(frozen={**run.frozen, 'stats': stats})

  monkeypatch.setattr(diagnosis.trained, 'load', with_wrong_statistics)
  parts = []
  result = diagnosis.diagnose(workdir, num=9, report=parts.append)
  assert len(parts) == 5
  assert result['clips'] == 8  # There are no more.
  assert result == json.loads((workdir / 'diagnosis.json').read_text())
  assert (workdir / 'diagnosis.png').read_bytes()[:4] == b'\x89PNG'
  assert 2 < max(result['numbers']['latent_rms'] ** x for x in (-1, 1)) < 4.5
  names = [finding['name'] for finding in result['findings']]
  assert 'latents out of scale' in names
  # And what is wrong with a network that has seen a few batches.
  assert 'labels without effect' in names
  shown = diagnosis_text.lay_out(result)
  assert (
    'among another clip' in shown and result['findings'][0]['todo'] in shown
  )
