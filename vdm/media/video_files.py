"""Videos as arrays to mp4, GIF and PNG.

Everything takes uint8 RGB: a video is `t h w 3`, a batch `n t h w 3`. Small
videos are enlarged by whole factors without smoothing, so that what is shown
is what was made. Metrics never read these files: mp4 and GIF lose colours.
"""

from collections.abc import Sequence
import fractions
import io
import os
import tempfile

import av
from etils import epath
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

_WATCHABLE = 256  # Px: about the height an automatic factor enlarges to.
_TEXT = 13  # Px: height of the captions' font.
_PAPER = 255  # Grey levels of the background behind captions.
_GAP = 4  # Px between the frames of a contact sheet.

# ITU-R BT.709, limited range: Y' 16..235, Cb and Cr 16..240.
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_BT709 = 1  # FFmpeg's number for its matrix, primaries and transfer.
_LIMITED = 1  # And for the range.


def enlarge(video: np.ndarray, factor: int | None = None) -> np.ndarray:
  """Repeats pixels along the height and width of `... h w 3`.

  Args:
    video: Video, batch of videos or image.
    factor: Whole factor; None takes the one that comes nearest to 256 px.

  Returns:
    The enlarged copy.
  """
  if factor is None:
    factor = max(1, round(_WATCHABLE / min(video.shape[-3:-1])))
  if factor != int(factor) or factor < 1:
    raise ValueError(f'Enlarge by a whole factor from 1, not by {factor}.')
  return video.repeat(int(factor), axis=-3).repeat(int(factor), axis=-2)


def tile(
  videos: np.ndarray,
  columns: int | None = None,
  pad: int = 2,
  captions: Sequence[str] | None = None,
) -> np.ndarray:
  """Lays videos out in a grid, row by row.

  Args:
    videos: Videos [n t h w 3].
    columns: Videos in a row; None makes the grid about square.
    pad: Px between two videos.
    captions: A text for each, written above it; cut off at the video's width.

  Returns:
    One video [t H W 3].
  """
  _check(videos, 5)
  if captions is not None:
    lines = max(caption.count('\n') for caption in _each(captions, videos)) + 1
    heads = [_text(c, width=videos.shape[3], lines=lines) for c in captions]
    heads = np.repeat(np.stack(heads)[:, None], videos.shape[1], axis=1)
    videos = np.concatenate([heads, videos], axis=2)
  n, t, h, w, _ = videos.shape
  columns = min(n, columns or int(np.ceil(np.sqrt(n))))
  rows = -(-n // columns)
  size = [t, rows * (h + pad) - pad, columns * (w + pad) - pad, 3]
  grid = np.full(size, 128 if captions is None else _PAPER, np.uint8)
  for i, video in enumerate(videos):
    top, left = i // columns * (h + pad), i % columns * (w + pad)
    grid[:, top : top + h, left : left + w] = video
  return grid


def contact_sheet(
  videos: np.ndarray,
  captions: Sequence[str] | None = None,
  frames: int = 8,
  upscale: int | None = 1,
) -> np.ndarray:
  """Draws videos as rows of frames, evenly spaced from the first to the last.

  Args:
    videos: Videos [n t h w 3].
    captions: A text for each row, written to its left; may have several lines.
    frames: Frames of a row, at most.
    upscale: Whole factor; None for about 256 px.

  Returns:
    An image [H W 3]. The frames' numbers stand above the columns.
  """
  _check(videos, 5)
  t = videos.shape[1]
  shown = np.unique(np.linspace(0, t - 1, min(frames, t)).round().astype(int))
  videos = enlarge(videos[:, shown], upscale)
  n, columns, h, w, _ = videos.shape
  texts = [_text(c) for c in _each(captions, videos)] if captions else []
  left = max((text.shape[1] for text in texts), default=0)
  heads = [_text(str(frame), width=w) for frame in shown]
  top = heads[0].shape[0]
  size = [top + n * (h + _GAP), left + columns * (w + _GAP), 3]
  sheet = np.full(size, _PAPER, np.uint8)
  for i, head in enumerate(heads):
    x = left + i * (w + _GAP)
    sheet[:top, x : x + w] = head
  for j in range(n):
    y = top + j * (h + _GAP)
    for i in range(columns):
      x = left + i * (w + _GAP)
      sheet[y : y + h, x : x + w] = videos[j, i]
    if texts:
      text = texts[j][:h]
      middle = y + (h - text.shape[0]) // 2
      sheet[middle : middle + text.shape[0], : text.shape[1]] = text
  return sheet


def write_mp4(
  path: epath.PathLike,
  video: np.ndarray,
  frame_rate: float,
  upscale: int | None = 1,
) -> None:
  """Writes H.264 that browsers play: 4:2:0, BT.709, the index at the front.

  4:2:0 keeps one colour for two by two pixels: an even `upscale` loses none.
  An odd height or width is made even by repeating the last row or column.

  Args:
    path: File to write, replaced whole.
    video: Video [t h w 3].
    frame_rate: Frames a second.
    upscale: Whole factor; None for about 256 px.
  """
  _check(video, 4)
  video = enlarge(video, upscale)
  odd = [(0, size % 2) for size in video.shape[1:3]]
  video = np.pad(video, [(0, 0), *odd, (0, 0)], mode='edge')
  rate = fractions.Fraction(frame_rate).limit_denominator(1001)
  # The index can only be moved to the front of a file that can be read back.
  with tempfile.TemporaryDirectory() as folder:
    local = os.path.join(folder, 'video.mp4')
    options = {'movflags': '+faststart'}
    with av.open(local, 'w', format='mp4', options=options) as container:
      stream = container.add_stream('libx264', rate=rate)
      stream.height, stream.width = video.shape[1:3]
      stream.pix_fmt = 'yuv420p'
      stream.options = {'crf': '16', 'preset': 'medium'}
      stream.codec_context.colorspace = _BT709
      stream.codec_context.color_primaries = _BT709
      stream.codec_context.color_trc = _BT709
      stream.codec_context.color_range = _LIMITED
      for image in video:
        frame = av.VideoFrame.from_ndarray(_yuv420(image), format='yuv420p')
        frame.colorspace, frame.color_range = _BT709, _LIMITED
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
    with open(local, 'rb') as file:
      data = file.read()
  _write(path, data)


def gif_bytes(
  video: np.ndarray, frame_rate: float, upscale: int | None = 1
) -> bytes:
  """Encodes a GIF that loops.

  A GIF has 256 colours, here chosen over all frames together, and counts time
  in 10 ms: frames last a little more or less so that the film as a whole keeps
  its rate. Above 50 frames a second it plays too slowly, as viewers refuse
  frames of 10 ms.

  Args:
    video: Video [t h w 3].
    frame_rate: Frames a second.
    upscale: Whole factor; None for about 256 px.

  Returns:
    The file's bytes.
  """
  _check(video, 4)
  # All frames as one picture, at the original size: one palette, no flicker.
  t, h, w, _ = video.shape
  film = Image.fromarray(video.reshape(t * h, w, 3)).quantize(
    256, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
  )
  indices = enlarge(np.asarray(film).reshape(t, h, w, 1), upscale)[..., 0]
  images = [Image.fromarray(frame, mode='P') for frame in indices]
  for image in images:
    image.putpalette(film.getpalette())
  ends = np.round(np.arange(t + 1) * 100 / frame_rate).astype(int)
  buffer = io.BytesIO()
  images[0].save(
    buffer,
    format='GIF',
    save_all=True,
    append_images=images[1:],
    duration=[10 * max(2, int(length)) for length in np.diff(ends)],
    loop=0,
    optimize=False,
  )
  return buffer.getvalue()


def write_gif(
  path: epath.PathLike,
  video: np.ndarray,
  frame_rate: float,
  upscale: int | None = 1,
) -> None:
  """Writes a GIF, see `gif_bytes`, replacing the file whole."""
  _write(path, gif_bytes(video, frame_rate, upscale))


def png_bytes(image: np.ndarray) -> bytes:
  """Encodes an image [h w 3] as PNG."""
  _check(image, 3)
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format='PNG')
  return buffer.getvalue()


def write_png(path: epath.PathLike, image: np.ndarray) -> None:
  """Writes an image [h w 3], replacing the file whole."""
  _write(path, png_bytes(image))


def _check(array: np.ndarray, rank: int) -> None:
  if array.dtype != np.uint8 or array.ndim != rank or array.shape[-1] != 3:
    raise ValueError(
      f'Media are made of uint8 arrays with {rank} axes, the last of 3 '
      f'channels, not of {array.dtype} {array.shape}.'
    )
  if not array.size:
    raise ValueError(f'There is nothing to show in an array of {array.shape}.')


def _each(captions: Sequence[str], videos: np.ndarray) -> Sequence[str]:
  if len(captions) != len(videos):
    raise ValueError(f'{len(captions)} captions for {len(videos)} videos.')
  return captions


def _write(path: epath.PathLike, data: bytes) -> None:
  """Writes a file that is at no moment seen half written."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.parent / f'{path.name}.partial'
  partial.write_bytes(data)
  partial.replace(path)


def _yuv420(image: np.ndarray) -> np.ndarray:
  """Converts RGB [h w 3] of even size to planar 4:2:0 [3 h / 2, w]."""
  rgb = image / 255.0
  luma = rgb @ _LUMA
  h, w = luma.shape
  means = rgb.reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3))
  grey = means @ _LUMA
  blue = (means[..., 2] - grey) / (2 * (1 - _LUMA[2]))
  red = (means[..., 0] - grey) / (2 * (1 - _LUMA[0]))
  planes = [16 + 219 * luma, 128 + 224 * blue, 128 + 224 * red]
  flat = np.concatenate([plane.reshape(-1) for plane in planes])
  return np.rint(flat).astype(np.uint8).reshape(h * 3 // 2, w)


def _text(text: str, width: int = 0, lines: int = 0) -> np.ndarray:
  """Writes a text on paper, [h w 3]; lines beyond `width` px are cut off."""
  font = ImageFont.load_default(size=_TEXT)
  draw = ImageDraw.Draw(Image.new('RGB', (1, 1)))
  box = draw.multiline_textbbox((2, 0), text, font=font, spacing=2)
  lines = max(lines, text.count('\n') + 1)
  size = (width or int(box[2]) + 8, lines * (_TEXT + 5))
  image = Image.new('RGB', size, (_PAPER,) * 3)
  ImageDraw.Draw(image).multiline_text(
    (2, 0), text, font=font, spacing=2, fill=(0, 0, 0)
  )
  return np.array(image)
