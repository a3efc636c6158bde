"""Averages of several widths of a tiny run are compared, and one is kept."""

import json
import shutil
import types

from etils import epath
import numpy as np
import pytest
import tiny_config

from vdm import trained
from vdm.common import errors
from vdm.data import scalars
from vdm.evaluation import averages
from vdm.trained import run_folder
from vdm.training import objectives


def test_widths_are_compared_and_the_best_one_is_kept(finished_run, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(finished_run, workdir)
  measured = []
  result = averages.compare(
    workdir, [0.05, 0.15], num=9, keep=True, report=measured.append
  )
  assert len(measured) == 2
  assert result['clips'] == 8  # There are no more.
  assert result == json.loads((workdir / averages.NAME).read_text())
  narrow, wide = (np.array(list(x.values())) for x in result['losses'].values())
  assert narrow.shape == (5,) and np.all(narrow > 0)
  assert not np.array_equal(narrow, wide)
  best = min((narrow.mean(), 0.05), (wide.mean(), 0.15))[1]
  assert result['best'] == best
  assert f'{best:g} (best)' in averages.text(result)
  assert trained.load(workdir).config.sample.ema == best
  assert trained.load(workdir, 0.1).config.sample.ema == 0.1
  (workdir / run_folder.CHOSEN).write_text('{}')
  with pytest.raises(errors.UsageError, match='average.json is damaged'):
    trained.load(workdir)


def test_the_table_says_what_its_columns_are_of():
  def head(*names):
    losses = {'0.05': dict.fromkeys(names, 0.5)}
    return averages.text({'best': 0.05, 'losses': losses}).splitlines()[0]

  assert head('-6', '+6').split() == (
    ['width,', 'loss', 'at', 'log-SNR', '-6', '+6', 'mean']
  )
  assert head('masked_0.3', 'masked_1').split() == (
    'width, loss at share of masked tokens 0.3 1 mean'.split()
  )


def test_losses_are_with_the_scalars_of_the_clips(
  data_root, tmp_path, monkeypatch
):
  config = tiny_config.make_config(data_root)
  config.model.scalars = ('frame_rate', 'motion')
  stage, seen = config.stages.video, []
  run = trained.Model(
    config, stage, 1, {}, {}, [], 25.0, workdir=epath.Path(tmp_path)
  )

  def validate(params, frozen, clips):
    seen.append(clips)
    return {'val_loss_labelled/logsnr_0': 1.0}

  objective = types.SimpleNamespace(validate=validate)
  monkeypatch.setattr(trained, 'load', lambda *_, **__: run)
  monkeypatch.setattr(objectives, 'make_objective', lambda *_: objective)
  averages.compare(tmp_path, [0.05], num=2)
  (clips,) = seen
  for i, video in enumerate(clips['video']):
    wanted = scalars.describe(config.model.scalars, video, 25.0)
    assert {name: clips[name][i] for name in wanted} == wanted
  assert clips['motion'].max() > 0
