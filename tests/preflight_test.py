"""What is refused before anything is trained, and in which words."""

import types

import numpy as np
import pytest
import tiny_config

from vdm import train
from vdm.common import errors
from vdm.training import preflight
from vdm.training import sharding


def make_source(lengths=(6, 4, 2), labels=(0, 3, 7), resolution=16):
  shots = np.arange(len(lengths))
  names = [f'class {i}' for i in range(8)]
  return types.SimpleNamespace(
    info={
      'name': 'fake',
      'frame_rate': 10.0,
      'resolution': resolution,
      'label_names': names,
      'directional_labels': [],
      'fingerprint': 'f',
    },
    index={
      'shot': shots,
      'start': 0 * shots,
      'n': np.array(lengths),
      'label': np.array(labels),
    },
  )


@pytest.fixture
def config(tmp_path):
  return tiny_config.make_config(tmp_path)


def check(config, train=None, validation=None):
  sources = {
    'train': train or make_source(),
    'validation': validation or make_source(),
  }
  return preflight.check(config, sources, sharding.make_mesh(), lambda: None)


def refused(config, **sources):
  with pytest.raises(errors.UsageError) as raised:
    check(config, **sources)
  return str(raised.value)


def test_a_good_run_passes_and_says_its_windows_once_a_stage(config, caplog):
  with caplog.at_level('INFO', logger='absl'):
    made = check(config)
  assert list(made) == list(config.train.order)
  said = [r.message for r in caplog.records if 'Stage ' in r.message]
  assert said == [
    'Stage autoencoder: single frames, from 3 shots.',
    'Stage image: single frames, from 3 shots.',
    'Stage motion: windows of 4 frames = 0.4 s, from 2 shots; '
    '1 more is too short.',
    'Stage video: windows of 4 frames = 0.4 s, from 2 shots; '
    '1 more is too short.',
  ]


def test_labels_that_the_model_does_not_know(config):
  config.model.num_classes = 7
  message = refused(config)
  assert 'num_classes=7, but fake has 8 labels' in message
  assert 'set config.model.num_classes=8' in message
  # Labels that only the clips to validate on have.
  message = refused(config, train=make_source(labels=(0, 1, 2)))
  assert 'num_classes=8' in message
  nothing = make_source(labels=(-1, -1, -1))
  assert 'has no labels' in refused(config, train=nothing)
  config.model.num_classes = 0
  check(config, train=nothing)


def test_clips_that_no_shot_can_give(config):
  config.stages.video.frames = 8
  message = refused(config)
  assert message.startswith('config.stages.video: No shot of fake has the 8')
  config.stages.video.frames = 4
  short = make_source(lengths=(2, 2, 2))
  assert 'config.stages.motion' in refused(config, validation=short)
  small = make_source(resolution=8)
  assert 'stores 8 px' in refused(config, train=small)


def test_mirrored_labels(config):
  config.data.flip = True
  source = make_source()
  check(config, source)
  source.info['directional_labels'] = ['left']
  assert 'has labels with a direction (left)' in refused(config, train=source)


def test_eps_at_zero_terminal_snr(config):
  config.diffusion.update(logsnr_min=-40.0, prediction='eps')
  message = refused(config)
  assert message.startswith('config.stages.image: Zero terminal SNR')
  config.diffusion.update(prediction='v', weighting='min_snr')
  assert 'min_snr vanishes' in refused(config)


def test_frozen_patterns_of_the_last_stage(config):
  config.stages.video.frozen = ('nothing_has_this_name',)
  assert 'matches no parameter' in refused(config)
  config.stages.video.update(frozen=(), rates=(('no_such_name', 0.1),))
  assert refused(config).startswith(
    "config.stages.video: rates has 'no_such_name', which matches no parameter"
  )


def test_folders_that_later_stages_read(config, tmp_path):
  config.data.latents = str(tmp_path / 'latents')
  with pytest.raises(ValueError, match='There is no latent cache'):
    check(config)
  with pytest.raises(FileNotFoundError, match='holds no run'):
    preflight.check_init_from(str(tmp_path))


def test_workdirs(tmp_path):
  (tmp_path / 'file').write_text('')
  for name in ('file', 'file/below', 'file/far/below'):
    with pytest.raises(errors.UsageError, match='is a file; name a folder'):
      preflight.check_workdir(tmp_path / name)
  preflight.check_workdir(tmp_path / 'a' / 'b')
  assert not (tmp_path / 'a').exists()


def test_a_workdir_that_may_not_be_written(tmp_path, monkeypatch):
  # Tests may run as root, who may write everywhere.
  monkeypatch.setattr(preflight.os, 'access', lambda *_: False)
  with pytest.raises(errors.UsageError, match='may not be written to'):
    preflight.check_workdir(tmp_path / 'run')


def test_nothing_is_written_before_the_checks(config, tmp_path, monkeypatch):
  short = make_source(lengths=(3, 3, 3))
  monkeypatch.setattr(
    train.agreement,
    'open_sources',
    lambda data: {'train': short, 'validation': short},
  )
  with pytest.raises(errors.UsageError, match='config.stages.motion'):
    train.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
