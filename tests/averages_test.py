"""Averages of several widths of a tiny run are compared, and one is kept."""

import json
import shutil

import numpy as np
import pytest

from vdm import trained
from vdm.common import errors
from vdm.evaluation import averages
from vdm.trained import run_folder


def test_widths_are_compared_and_the_best_one_is_kept(finished_run, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(finished_run, workdir)
  measured = []
  result = averages.compare(
    workdir, [0.05, 0.15], num=4, keep=True, report=measured.append
  )
  assert len(measured) == 2
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
