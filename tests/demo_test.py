"""The trained models in the repository: they load, are small, and are good."""

import json
import re

from conftest import ROOT
import numpy as np
import pytest

from vdm import chain
from vdm import generate
from vdm import trained
from vdm.common import errors
from vdm.metrics import synthetic_truth
from vdm.trained import manifest

DEMO = ROOT / 'colabs/demo'
CASCADE = ROOT / 'colabs/cascade'
FOLDERS = [DEMO, CASCADE / 'key_frames', CASCADE / 'frames']
AGAIN = 'bash colabs/make_demo.sh'


@pytest.fixture(scope='module')
def demo():
  try:
    return trained.load(DEMO)
  except errors.UsageError as error:
    pytest.fail(
      f'colabs/demo is not of the networks as they are now ({error}). Make it '
      f'again, an hour or two on two cores: {AGAIN}'
    )


def test_it_is_of_the_networks_as_they_are(demo):
  assert demo.config.model.num_classes == len(demo.label_names) == 8
  assert (demo.stage.frames, demo.stage.resolution) == (16, 64)
  assert AGAIN in (ROOT / 'docs/export.md').read_text()


def test_the_cascade_fits_together():
  first, second = (trained.load(folder) for folder in FOLDERS[1:])
  assert first.worse.step < first.step
  (link,) = chain.plan(first, first.stage.frames, first.frame_rate, [second])
  assert (link.task.frames, link.size, link.frame_rate) == (16, (64, 64), 25.0)


def test_its_videos_follow_their_labels(demo):
  demo.config.sample.update(steps=6)
  make = generate.make_generator(demo.config, demo.stage)
  labels = np.arange(8)
  videos = make.samples(demo.params, demo.frozen, {'label': labels}, labels)
  found = synthetic_truth.measure(videos)
  assert (found['direction'] == labels).sum() >= 7
  assert np.median(found['residual']) < 3  # From a line, % of the width.


@pytest.mark.parametrize('folder', FOLDERS)
def test_it_is_small_and_complete(folder):
  files = [path for path in folder.rglob('*') if path.is_file()]
  names = {path.relative_to(folder).as_posix() for path in files}
  listed = json.loads((folder / manifest.CONFIG).read_text())['files']
  assert names == {*listed, manifest.CONFIG, manifest.CARD}
  for name, entry in listed.items():
    assert manifest.describe((folder / name).read_bytes()) == entry
  assert sum(path.stat().st_size for path in files) <= 1e7


@pytest.mark.parametrize('folder', FOLDERS)
def test_it_names_no_folder_of_a_machine(folder):
  content = json.loads((folder / manifest.CONFIG).read_text())
  del content['files']
  assert '/' not in re.sub(r'\\\\[a-zA-Z]', '', json.dumps(content))
  card = (folder / manifest.CARD).read_text()
  assert not re.search(r'(?<![\w.:/])/\w+/', card)
