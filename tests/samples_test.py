"""What is written of generated videos."""

import json

import av
import numpy as np
from PIL import Image
import pytest

from vdm.media import samples
from vdm.media import video_files
from vdm.preparation import clip_files

VIDEOS = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), 'u1')
MADE_WITH = {'run': 'runs/a', 'step': 7, 'guidance': 3.0, 'ema': 0.1}


def write(folder, seeds=(7, 8, 9), **options):
  samples.write(
    folder,
    VIDEOS[: len(seeds)],
    [1, -1, 0][: len(seeds)],
    ['a', 'b'],
    list(seeds),
    25.0,
    MADE_WITH,
    **options,
  )


def names(folder):
  return {path.name for path in folder.iterdir()}


ALWAYS = {'samples.npz', 'samples.json', 'sheet.png', 'grid.mp4', 'grid.gif'}


def test_samples_are_written_for_machines_and_for_people(tmp_path):
  write(tmp_path, each=True)
  assert names(tmp_path) == ALWAYS | {
    f'seed_{i:06d}.{kind}' for i in (7, 8, 9) for kind in ('mp4', 'gif')
  }
  with np.load(tmp_path / 'samples.npz', allow_pickle=False) as file:
    np.testing.assert_array_equal(file['videos'], VIDEOS)
    assert list(file['labels']) == [1, -1, 0]
    assert list(file['label_names']) == ['a', 'b']


def test_their_record_says_how_they_were_made(tmp_path):
  write(tmp_path)
  assert json.loads((tmp_path / 'samples.json').read_text()) == MADE_WITH | {
    'frame_rate': 25.0,
    'seeds': [7, 8, 9],
    'labels': [1, -1, 0],
    'label_names': ['a', 'b'],
  }


def test_other_samples_in_the_folder_are_refused_or_replaced(tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  samples.check_free(tmp_path)
  samples.check_free(tmp_path / 'nowhere')
  write(tmp_path, each=True)
  with pytest.raises(FileExistsError, match='already holds samples.*--overw'):
    samples.check_free(tmp_path)
  write(tmp_path, seeds=(20, 21), each=True)
  assert names(tmp_path) == ALWAYS | {'notes.txt'} | {
    f'seed_{i:06d}.{kind}' for i in (20, 21) for kind in ('mp4', 'gif')
  }
  # Those of earlier versions had no record.
  (tmp_path / 'samples.json').unlink()
  with pytest.raises(FileExistsError):
    samples.check_free(tmp_path)


@pytest.mark.parametrize('name', ['grid', 'seed_000007'])
def test_what_is_watched_lasts_loops_and_is_labelled(name, tmp_path):
  write(tmp_path, each=True)
  with av.open(str(tmp_path / f'{name}.mp4')) as video:
    frames = [f.to_ndarray(format='rgb24') for f in video.decode(video=0)]
    assert video.streams.video[0].average_rate == 25
  # 4 frames are played 13 times: 2.08 s.
  assert len(frames) == 52
  again, other = (np.abs(frames[0].astype(int) - frames[i]) for i in (4, 1))
  assert again.mean() < 5 < other.mean()
  gif = Image.open(tmp_path / f'{name}.gif')
  assert gif.n_frames == 4 and gif.info['loop'] == 0
  # A caption on white paper above the frames: black letters.
  image = np.asarray(gif.convert('RGB'))
  caption = image[: image.shape[0] - 256 if name != 'grid' else 36]
  assert (caption == 255).all(-1).mean() > 0.5
  assert (caption < 100).all(-1).any()


def test_metrics_read_the_arrays_and_not_what_is_watched(tmp_path):
  write(tmp_path / 'a', each=True)
  write(tmp_path / 'b', seeds=(1,), each=True)
  clips, sources = clip_files.read_clips(
    tmp_path, frames=4, resolution=16, num=99, sampling='first'
  )
  assert list(sources) == [
    *(f'a/samples.npz/{i}' for i in range(3)),
    'b/samples.npz/3',
  ]
  np.testing.assert_array_equal(clips, [*VIDEOS, VIDEOS[0]])


@pytest.mark.parametrize('shape', ['disc', 'square'])
def test_captions_are_not_cut_off_above_a_video(shape):
  caption = samples.wrapped(f'a magenta {shape} moves down and to the left')
  assert '...' not in caption
  black = np.zeros((1, 1, 128, 128, 3), np.uint8)
  head = video_files.tile(black, captions=[caption])[0, :-128]
  assert head.min() < 100  # There is a text,
  assert (head[:, -1] == head[-1, -1]).all()  # which ends before the border.
