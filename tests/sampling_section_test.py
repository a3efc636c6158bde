"""The card on sampling: its example runs, whatever the model is told."""

import re
import subprocess
import sys

from conftest import ROOT
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm import trained
from vdm.common import vocabulary
from vdm.publishing import sampling_section


def make_model(num_classes=0, reads=False, **stage):
  config = tiny_runs.make_config(**stage)
  config.model.num_classes = num_classes
  reader = None
  if reads:
    config.model.text.update(encoder='learned', width=8, layers=0, length=3)
    config.model.joint_attention = True  # Something that attends to words.
    config.sample.captions = ("a disc's way",)
    reader = vocabulary.Words(('a', "disc's", 'way'), 3)
  network = models.make_network(config.model, 3, ())
  return trained.Model(
    config,
    config.stages.video,
    7,
    tiny_runs.randomise(network.abstract_params()),
    tiny_runs.autoencoder(),
    [],
    25.0,
    reader=reader,
  )


def run_example(text, model, monkeypatch, tmp_path):
  """The videos of the Python in a section."""
  code = re.search(r'```python\n(.*?)```', text, re.S)[1]
  # As it is to be, so that the card of an export here passes the linter.
  formatted = subprocess.run(
    [sys.executable, '-m', 'ruff', 'format', '--stdin-filename', 'a.py', '-'],
    input=code,
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert formatted.stdout == code
  monkeypatch.setattr(trained, 'load', lambda source: model)
  monkeypatch.chdir(tmp_path)
  shape = (2, tiny_runs.FRAMES, tiny_runs.SIZE, tiny_runs.SIZE, 3)
  clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  np.savez('samples.npz', videos=clips)
  names = {}
  exec(code, names)
  assert names['videos'].shape == (1, *shape[1:])
  return names['videos'], clips


@pytest.mark.parametrize(
  'options, command, code',
  [
    ({}, '--num 8\n', 'cond = {}'),
    (dict(num_classes=4), '--num 8\n', "cond = {'label': [0]}"),
    (
      dict(reads=True),
      "--caption 'a disc",
      'prompts.make(model.reader, [-1], ',
    ),
  ],
)
def test_the_example_asks_for_what_the_model_knows(
  options, command, code, monkeypatch, tmp_path
):
  model = make_model(**options)
  text = sampling_section.text(model, 'exports/a')
  assert command in text and code in text
  assert ('label' in text) == ('num_classes' in options)
  assert 'given' not in text and 'numpy' not in text
  run_example(text, model, monkeypatch, tmp_path)


def test_a_model_that_only_goes_on_is_given_frames(monkeypatch, tmp_path):
  model = make_model(frame_levels=dict(shared=0.0, first=1.0))
  text = sampling_section.text(model, 'exports/a')
  assert '--given clip.mp4 --given_frames 0:1' in text
  videos, clips = run_example(text, model, monkeypatch, tmp_path)
  np.testing.assert_allclose(videos[0, 0].astype(int), clips[0, 0], atol=1)
