"""Moving pictures for a page: animated WebP, and a slider through several.

A page holds the pictures themselves. An animated WebP takes a fraction of a
GIF's bytes and, as an image, plays by itself everywhere.
"""

from collections.abc import Sequence
import io

import av
import cv2
from etils import epath
from etils.array_types import ui8
import numpy as np
from PIL import Image
from PIL import ImageSequence

from vdm.media import page

FRAMES = 128  # Of a video that is read, at most.

STYLE = """
figure.slider { display: block; margin: .4rem 0; max-width: 100% }
figure.slider img { max-width: 100%; display: block }
figure.slider [hidden] { display: none }
figure.slider input:not([hidden]) { width: min(100%, 40rem);
  display: block }
"""


def read(path: epath.PathLike) -> tuple[ui8['t h w 3'], float]:
  """Reads back a GIF, an mp4 or a PNG that `video_files` wrote.

  Args:
    path: of the file, local or in a bucket.

  Returns:
    (video, frames a second): the first `FRAMES`; of a picture one.

  Raises:
    OSError: it is not there, or no such file.
  """
  path = epath.Path(path)
  data = io.BytesIO(path.read_bytes())
  if path.suffix == '.mp4':
    return _read_mp4(data, path)
  with Image.open(data) as image:
    frames, milliseconds = [], []
    for frame in ImageSequence.Iterator(image):
      frames.append(np.asarray(frame.convert('RGB')))
      milliseconds.append(frame.info.get('duration', 0))
      if len(frames) == FRAMES:
        break
  rate = 1000 * len(frames) / max(sum(milliseconds), 1)
  return np.stack(frames), rate


def shrink(video: ui8['t h w 3'], width: int) -> ui8['t H W 3']:
  """Returns a video that is at most `width` px wide."""
  h, w = video.shape[1:3]
  if w <= width:
    return video
  size = (width, max(1, round(h * width / w)))
  resized = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in video]
  return np.stack(resized)


def webp_bytes(
  video: ui8['t h w 3'], frame_rate: float, quality: int = 75
) -> bytes:
  """Encodes a WebP that loops; of one frame, a still picture.

  Args:
    video: the video.
    frame_rate: frames a second.
    quality: from 0 to 100; colours have half the resolution at any.
  """
  first, *others = (Image.fromarray(frame) for frame in video)
  buffer = io.BytesIO()
  moving = {}
  if others:
    ends = np.round(np.arange(len(video) + 1) * 1000 / frame_rate).astype(int)
    moving = {
      'save_all': True,
      'append_images': others,
      'duration': np.diff(ends).tolist(),
      'loop': 0,
    }
  first.save(buffer, format='WEBP', quality=quality, method=2, **moving)
  return buffer.getvalue()


def slider(pictures: Sequence[tuple[str, bytes]]) -> str:
  """Returns a slider through pictures, of which the last is shown at first.

  Args:
    pictures: (caption, bytes of a picture), see `page.address`.
  """
  last = len(pictures) - 1
  images = ''.join(
    f'<img alt="{page.text(caption)}" src="{page.address(data)}"'
    f'{"" if i == last else " hidden"}>'
    for i, (caption, data) in enumerate(pictures)
  )
  return (
    f'<figure class="slider"><label><output>{page.text(pictures[last][0])}'
    f'</output><input type="range" min="0" max="{last}" value="{last}" '
    f'autocomplete="off"{"" if last else " hidden"}></label>{images}</figure>'
  )


def _read_mp4(data, path):
  frames = []
  try:
    with av.open(data) as container:
      stream = container.streams.video[0]
      rate = float(stream.average_rate or 25)
      for frame in container.decode(stream):
        frames.append(frame.to_ndarray(format='rgb24'))
        if len(frames) == FRAMES:
          break
  except av.error.FFmpegError as error:
    raise OSError(f'{path} cannot be decoded: {error}') from error
  if not frames:
    raise OSError(f'{path} has no frames.')
  return np.stack(frames), rate
