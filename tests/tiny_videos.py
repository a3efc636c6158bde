"""Small videos that tests encode, readable again after lossy coding."""

import fractions
import itertools

import av
import cv2
import numpy as np

from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import inspection


def write_video(
  path,
  frames,
  *,
  rate=25,
  ticks=None,
  codec='mpeg4',
  pixel_aspect=None,
  options=None,
  container_format=None,
):
  """Encodes uint8 [t h w 3]; `ticks` are times in 1/1000 s."""
  with av.open(str(path), 'w', format=container_format) as container:
    stream = container.add_stream(codec, rate=rate, options=options or {})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.bit_rate = 4_000_000
    if ticks is not None:
      stream.codec_context.time_base = fractions.Fraction(1, 1000)
    if pixel_aspect:
      stream.codec_context.sample_aspect_ratio = pixel_aspect
    for number, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      if ticks is not None:
        frame.pts = int(ticks[number])
        frame.time_base = fractions.Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def grey_steps(n, height=64, width=96):
  """Frame i is grey of level 10 + 8 i: readable after any coding."""
  levels = np.arange(n, dtype=np.uint8) * 8 + 10
  return np.broadcast_to(
    levels[:, None, None, None], (n, height, width, 3)
  ).copy()


def read_levels(frames):
  """Returns which of the grey steps each frame is."""
  return [round((float(np.mean(frame)) - 10) / 8) for frame in frames]


def noise(n, height=64, width=96, seed=0):
  """Frames that fill a file: damage to its bytes hits pictures."""
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (n, height, width, 3), np.uint8)


CLASSES = ('Archery', 'Biking', 'Diving')


def make_ucf101(folder, n=6):
  """Writes a UCF101 of 3 classes x 2 groups, of n-frame clips, and its lists.

  Lists 01 and 02 differ in which group is for testing.

  Returns:
    The folder that holds `UCF-101` and `ucfTrainTestlist`.
  """
  lists = folder / 'ucfTrainTestlist'
  lists.mkdir(parents=True)
  numbered = [f'{i} {name}\r\n' for i, name in enumerate(CLASSES, 1)]
  (lists / 'classInd.txt').write_text(''.join(numbered))
  texts = {f'{part}list{k}': '' for part in ('train', 'test') for k in (1, 2)}
  for number, name in enumerate(CLASSES, 1):
    (folder / 'UCF-101' / name).mkdir(parents=True)
    for group in (1, 2):
      clip = f'{name}/v_{name}_g{group:02d}_c01.avi'
      write_video(folder / 'UCF-101' / clip, grey_steps(n + group))
      for k in (1, 2):
        if group == k:
          texts[f'testlist{k}'] += f'{clip}\r\n'
        else:
          texts[f'trainlist{k}'] += f'{clip} {number}\r\n'
  for name, text in texts.items():
    (lists / f'{name[:-1]}0{name[-1]}.txt').write_text(text)
  return folder


def real_frame(path, index, size):
  """Frame `index` of a video, its middle square, area-resized to `size`."""
  with av.open(str(path)) as container:
    for number, picture in enumerate(container.decode(video=0)):
      if number == index:
        frame = picture.to_ndarray(format='rgb24')
        break
  height, width = frame.shape[:2]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  frame = frame[top : top + side, left : left + side]
  return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)


def decode(path, *, frame_rate, resolution):
  """Yields the frames of a file at one rate, uint8 [h w 3] RGB, h = w."""
  info = inspection.inspect(path)
  size = (resolution, resolution)
  inspection.check_size(info, size)
  indices, repeats = np.unique(
    decoding.resample(info.times, frame_rate), return_counts=True
  )
  for frame, times in zip(
    decoding.read(path, indices, field_order=info.field_order), repeats
  ):
    image = geometry.fit(frame, size, info.pixel_aspect)
    yield from itertools.repeat(image, times)
