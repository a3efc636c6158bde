"""Preview files, read back."""

import io
import types

import av
from etils import epath
import jax
import numpy as np
from PIL import Image
import pytest

from vdm.config import schema
from vdm.evaluation import evaluator
from vdm.training import stages
from vdm.training import train_state
from vdm.training import writer

CLIPS = {
  'real': np.full((1, 3, 16, 16, 3), 40, np.uint8),
  'samples': np.full((2, 3, 16, 16, 3), 200, np.uint8),
}


def test_videos_give_a_sheet_a_grid_and_a_gif(tmp_path):
  folder = epath.Path(tmp_path) / 'samples' / 'step_00000007'
  gif, path = evaluator.write_preview(folder, CLIPS, 5.0)
  assert path == folder / 'grid.mp4'
  names = {'sheet.png', 'grid.mp4', 'grid.gif'}
  assert {p.name for p in folder.iterdir()} == names
  sheet = np.asarray(Image.open(folder / 'sheet.png'))
  # Three rows of three frames at twice their size, and both clips are there.
  assert sheet.shape[0] >= 3 * 32 and sheet.shape[1] >= 3 * 32
  for value, rows in ((40, 1), (200, 2)):
    assert (sheet == value).all(-1).sum() >= rows * 3 * 32 * 32 * 0.9
  with av.open(str(folder / 'grid.mp4')) as video:
    frames = [f.to_ndarray(format='rgb24') for f in video.decode(video=0)]
    assert video.streams.video[0].average_rate == 5
  assert len(frames) == 12  # Three frames of 0.2 s, until 2 s are over.
  assert Image.open(folder / 'grid.gif').info['loop'] == 0
  image = Image.open(io.BytesIO(gif))
  assert image.format == 'GIF'


def test_images_give_a_sheet_alone(tmp_path):
  folder = epath.Path(tmp_path)
  images = {name: clips[:, :1] for name, clips in CLIPS.items()}
  gif, path = evaluator.write_preview(folder, images, 5.0)
  assert gif[:3] == b'GIF' and path == folder / 'sheet.png'
  assert {p.name for p in folder.iterdir()} == {'sheet.png'}


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  assert evaluator.write_preview(epath.Path(tmp_path), CLIPS, 5.0) is None
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('n', [1, 3])
def test_the_grid_has_one_row_for_each_kind(tmp_path, n):
  clips = {k: CLIPS['real'].repeat(n, axis=0) for k in ('real', 'samples')}
  gif, _ = evaluator.write_preview(epath.Path(tmp_path), clips, 5.0)
  width, height = Image.open(io.BytesIO(gif)).size
  # n columns and 2 rows of 16 px, 2 px between them, enlarged alike.
  assert width * (2 * 18 - 2) == height * (n * 18 - 2)


def test_previews_are_labelled_by_kind_class_and_seed(tmp_path, monkeypatch):
  config = schema.default()
  config.sample.seed = 40
  clips = {
    'video': np.zeros((2, 3, 16, 16, 3), np.uint8),
    'label': np.array([1, -1]),
  }
  objective = types.SimpleNamespace(
    preview=lambda *_: CLIPS, validate=lambda *_: {}, samples=None
  )
  span = stages.Span('video', schema.stage(frames=3), 0, 10)
  log = writer.Silent()
  judge = evaluator.Evaluator(
    config,
    span,
    objective,
    {},
    lambda num: clips,
    log,
    epath.Path(tmp_path),
    5.0,
    ['left', 'right'],
  )
  monkeypatch.setattr(train_state, 'averaged', lambda *_: {})
  shown = []
  monkeypatch.setattr(
    evaluator, 'write_preview', lambda *args: shown.append(args)
  )
  judge(10, None)
  assert shown[0][3] == [
    'real 0\nright',
    'samples 0\nright, seed 40',
    'samples 1\nseed 41',
  ]
