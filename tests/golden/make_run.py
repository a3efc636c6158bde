"""Makes run/: a run's folder as it was when a signal had stopped the run.

  python tests/golden/make_run.py

run/stopped/ is a tiny run that was stopped in the middle of its last stage,
while it made a small score: its newest checkpoint says that the evaluation of
its step is still to come. run/expected.json has the rows that the same run
logs when nothing stops it, and the mean of its last videos. Both were written
by the version that expected.json names; later ones must resume the run and log
the same numbers (tests/old_runs_test.py), so make it anew only to add a case.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import jax
import numpy as np

from vdm import train
from vdm.config import schema
from vdm.multihost import preemption
from vdm.training import writer

FOLDER = pathlib.Path(__file__).resolve().parent / 'run'
# What a resumed run does not need: pictures and TensorBoard.
LEFT_OUT = shutil.ignore_patterns('samples', 'evaluation', '*.png', '*.mp4')


def make_config(root):
  """Three stages of a few steps on scenes of 16 px, all of a run in small."""
  config = schema.default()
  config.data.update(root=str(root), resolution=16, threads=1)
  config.data.scenes.update(train=16, validation=8, frames=4)
  config.autoencoder.update(
    factor=4, channels=4, decoder_width=4, encoder_width=4, statistics_clips=8
  )
  config.model.update(
    widths=(4,),
    blocks=(1,),
    attention_levels=(),
    temporal_levels=(0,),
    temporal_attention_levels=(),
    joint_attention=False,
    head_size=4,
    embed_width=4,
    num_classes=8,
    dropout=0.1,
  )
  config.sample.update(steps=2, num=2, batch=8, final=8)
  config.score.update(every=2, num=4, best='motion')
  config.train.update(
    order=('autoencoder', 'image', 'video'),
    log_every=1,
    eval_every=4,
    eval_clips=4,
    preview_every=100,
    save_every=100,
    keep=1,
    tensorboard=False,
  )
  stage = dict(resolution=16, warmup=1, learning_rate=3e-3)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=3, batch=8, crop=8, **stage
  )
  config.stages.image = schema.stage(steps=2, batch=8, **stage)
  config.stages.video = schema.stage(
    steps=5, frames=4, batch=16, accumulate=2, image_fraction=0.4, **stage
  )
  return config


class StopDuringScore(preemption.StopSignal):
  """A signal that comes between the parts of the score of step 7."""

  def __init__(self, vote=None):
    super().__init__(vote)
    self.polls = 0  # One a step and one a border between stages.

  def received(self):
    self.polls += 1
    return super().received()

  def check(self):
    if self.polls == 9:
      raise preemption.Stopped


def main():
  shutil.rmtree(FOLDER, ignore_errors=True)
  with tempfile.TemporaryDirectory() as root:
    root = pathlib.Path(root)
    config = make_config('data')
    os.chdir(root)  # So that config.json names no folder of this machine.
    assert train.train(config, root / 'whole') == 0
    real, preemption.StopSignal = preemption.StopSignal, StopDuringScore
    assert train.train(config, root / 'stopped') == train.STOPPED
    preemption.StopSignal = real
    shutil.copytree(root / 'stopped', FOLDER / 'stopped', ignore=LEFT_OUT)
    with np.load(root / 'whole/final/samples.npz') as samples:
      mean = float(samples['videos'].mean())
    fingerprint = json.loads(
      next((root / 'data').rglob('clips.json')).read_text()
    )['fingerprint']
    commit = subprocess.run(
      ['git', 'describe', '--always', '--dirty'],
      capture_output=True,
      check=True,
      cwd=FOLDER.parent,
      text=True,
    ).stdout.strip()
    expected = {
      'commit': commit,
      'jax': jax.__version__,
      'dataset': fingerprint,
      'final_mean': mean,
      'rows': writer.read_rows(root / 'whole'),
    }
  (FOLDER / 'expected.json').write_text(json.dumps(expected, indent=1) + '\n')


if __name__ == '__main__':
  main()
