"""Lays videos out in grids and sheets, and encodes mp4, GIF and PNG.

Everything takes uint8 RGB: a video is [t h w 3], a batch [n t h w 3]. Small
videos are enlarged by integer factors without interpolation, so that every
pixel is shown as it is. Metrics never read mp4 or GIF: both lose colours.
"""

from collections.abc import Sequence
import fractions
import io
import math
import os
import tempfile

import av
from etils import epath
from etils.array_types import ui8
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from vdm.common import files

_DISPLAY_SIZE = 256  # Px: about the size that the factor None enlarges to.
_FONT_SIZE = 13  # Px.
_BACKGROUND = 255  # Grey level behind captions.
_LOOP_SECONDS = 2.0  # A shorter video is over before it is seen.
_COLOURS = 2**20  # Pixels that a GIF's palette is chosen from, at most.
_GAP = 4  # Px between the frames of a contact sheet.

# ITU-R BT.709, limited range: Y' 16..235, Cb and Cr 16..240.
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_BT709 = 1  # FFmpeg's number of its matrix, primaries and transfer function.
_LIMITED = 1  # FFmpeg's number of the range.


def enlarge(
  video: ui8['*b h w c'], factor: int | None = None
) -> ui8['*b H W c']:
  """Returns images with each pixel repeated along height and width.

  Args:
    video: image, video or batch of videos.
    factor: an integer; None for the one that comes closest to 256 px.
  """
  if factor is None:
    factor = max(1, round(_DISPLAY_SIZE / min(video.shape[-3:-1])))
  if factor != int(factor) or factor < 1:
    raise ValueError(f'Enlarge by an integer of at least 1, not by {factor}.')
  return video.repeat(int(factor), axis=-3).repeat(int(factor), axis=-2)


def tile(
  videos: ui8['n t h w 3'],
  columns: int | None = None,
  pad: int = 2,
  captions: Sequence[str] | None = None,
) -> ui8['t H W 3']:
  """Lays videos out in a grid, row by row.

  Args:
    videos: the videos.
    columns: videos per row; None for a grid that is about square.
    pad: px between two videos.
    captions: one per video, written above it and cut off at its width.
  """
  _check(videos, 5)
  shape = videos.shape[2] / videos.shape[3]
  if captions is not None:
    lines = (
      max(caption.count('\n') for caption in _per_video(captions, videos)) + 1
    )
    heads = [_text(c, width=videos.shape[3], lines=lines) for c in captions]
    heads = np.repeat(np.stack(heads)[:, None], videos.shape[1], axis=1)
    videos = np.concatenate([heads, videos], axis=2)
  n, t, h, w, _ = videos.shape
  columns = min(n, columns or int(np.ceil(np.sqrt(n * shape))))
  rows = -(-n // columns)
  size = [t, rows * (h + pad) - pad, columns * (w + pad) - pad, 3]
  grid = np.full(size, 128 if captions is None else _BACKGROUND, np.uint8)
  for i, video in enumerate(videos):
    top, left = i // columns * (h + pad), i % columns * (w + pad)
    grid[:, top : top + h, left : left + w] = video
  return grid


def contact_sheet(
  videos: ui8['n t h w 3'],
  captions: Sequence[str] | None = None,
  frames: int = 8,
  upscale: int | None = 1,
) -> ui8['H W 3']:
  """Draws videos as rows of frames, evenly spaced from the first to the last.

  Frame numbers are written above the columns.

  Args:
    videos: the videos.
    captions: one per video, of one or more lines, written to its left.
    frames: frames per row, at most.
    upscale: integer factor; None for about 256 px.
  """
  _check(videos, 5)
  t = videos.shape[1]
  shown = np.unique(np.linspace(0, t - 1, min(frames, t)).round().astype(int))
  videos = enlarge(videos[:, shown], upscale)
  n, columns, h, w, _ = videos.shape
  texts = [_text(c) for c in _per_video(captions, videos)] if captions else []
  left = max((text.shape[1] for text in texts), default=0)
  heads = [_text(str(frame), width=w) for frame in shown]
  top = heads[0].shape[0]
  size = [top + n * (h + _GAP), left + columns * (w + _GAP), 3]
  sheet = np.full(size, _BACKGROUND, np.uint8)
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
  video: ui8['t h w 3'],
  frame_rate: float,
  upscale: int | None = 1,
  repeats: int = 1,
) -> None:
  """Writes H.264 that browsers play: 4:2:0, BT.709, the index at the front.

  4:2:0 stores one colour per 2 x 2 pixels: an even `upscale` loses none. An odd
  height or width is made even by repeating the last row or column.

  Args:
    path: file to write or replace.
    video: the video.
    frame_rate: frames per second.
    upscale: integer factor; None for about 256 px.
    repeats: how many times it is played.
  """
  _check(video, 4)
  video = enlarge(video, upscale)
  odd = [(0, size % 2) for size in video.shape[1:3]]
  video = np.pad(video, [(0, 0), *odd, (0, 0)], mode='edge')
  rate = fractions.Fraction(frame_rate).limit_denominator(1001)
  # Moving the index to the front takes a local file that can be read back.
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
      images = map(_yuv420, video)
      for image in list(images) * repeats if repeats > 1 else images:
        frame = av.VideoFrame.from_ndarray(image, format='yuv420p')
        frame.colorspace, frame.color_range = _BT709, _LIMITED
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
    with open(local, 'rb') as file:
      data = file.read()
  _write(path, data)


def gif_bytes(
  video: ui8['t h w 3'], frame_rate: float, upscale: int | None = 1
) -> bytes:
  """Encodes a GIF that loops.

  A GIF has 256 colours, chosen here over all frames together, and durations in
  multiples of 10 ms: those of the frames are rounded so that the whole keeps
  its rate. Above 50 frames per second it plays too slowly, because viewers
  refuse frames of 10 ms.

  Args:
    video: the video.
    frame_rate: frames per second.
    upscale: integer factor; None for about 256 px.
  """
  _check(video, 4)
  # All frames as one image of the original size: one palette, no flicker.
  t, h, w, _ = video.shape
  film = _quantize(video.reshape(t * h, w, 3))
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
  path: epath.PathLike, video: ui8['t h w 3'], frame_rate: float
) -> None:
  """Writes a GIF that loops, see `gif_bytes`."""
  _write(path, gif_bytes(video, frame_rate))


def write_loop(
  path: epath.PathLike, video: ui8['t h w 3'], frame_rate: float
) -> None:
  """Writes an mp4 that is repeated to last 2 s at least, and a looping GIF.

  Args:
    path: of both files, without suffix.
    video: the video.
    frame_rate: frames per second.
  """
  path = epath.Path(path)
  times = repeats(len(video), frame_rate)
  write_mp4(path.with_suffix('.mp4'), video, frame_rate, repeats=times)
  write_gif(path.with_suffix('.gif'), video, frame_rate)


def write_grid(
  path: epath.PathLike,
  videos: ui8['n t h w 3'],
  frame_rate: float,
  captions: Sequence[str],
  columns: int | None = None,
) -> None:
  """Writes videos with captions, twice as large, in a grid: see `write_loop`.

  Args:
    path: of both files, without suffix.
    videos: the videos.
    frame_rate: frames per second.
    captions: one per video, see `tile`.
    columns: likewise.
  """
  grid = tile(enlarge(videos, 2), columns, pad=4, captions=captions)
  write_loop(path, grid, frame_rate)


def repeats(frames: int, frame_rate: float) -> int:
  """Returns how often a video is repeated to last 2 s at least."""
  return max(1, math.ceil(_LOOP_SECONDS * frame_rate / frames - 1e-6))


def png_bytes(image: ui8['h w 3']) -> bytes:
  """Encodes an image as PNG."""
  _check(image, 3)
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format='PNG')
  return buffer.getvalue()


def write_png(path: epath.PathLike, image: ui8['h w 3']) -> None:
  """Writes or replaces a PNG file."""
  _write(path, png_bytes(image))


def _quantize(image: ui8['h w 3']) -> Image.Image:
  """Returns an image of 256 colours, chosen from a part of a large one."""
  step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _COLOURS))
  part = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
  dither = Image.Dither.NONE  # It would flicker.
  part = part.quantize(
    256, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=dither
  )
  if step == 1:
    return part
  return Image.fromarray(image).quantize(palette=part, dither=dither)


def _check(array: np.ndarray, rank: int) -> None:
  if array.dtype != np.uint8 or array.ndim != rank or array.shape[-1] != 3:
    raise ValueError(
      f'Expected a uint8 array with {rank} axes, the last of 3 channels, not '
      f'{array.dtype} {array.shape}.'
    )
  if not array.size:
    raise ValueError(f'There is nothing to show in an array of {array.shape}.')


def _per_video(captions: Sequence[str], videos: np.ndarray) -> Sequence[str]:
  if len(captions) != len(videos):
    raise ValueError(f'{len(captions)} captions for {len(videos)} videos.')
  return captions


def _write(path: epath.PathLike, data: bytes) -> None:
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_bytes(path, data)


def _yuv420(image: np.ndarray) -> np.ndarray:
  """Converts RGB [h w 3] of even size to planar 4:2:0 [h * 3 / 2 w]."""
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
  """Draws a text [h w 3], cut off at `width` px, on a blank background."""
  font = ImageFont.load_default(size=_FONT_SIZE)
  draw = ImageDraw.Draw(Image.new('RGB', (1, 1)))
  box = draw.multiline_textbbox((2, 0), text, font=font, spacing=2)
  lines = max(lines, text.count('\n') + 1)
  size = (width or int(box[2]) + 8, lines * (_FONT_SIZE + 5))
  image = Image.new('RGB', size, (_BACKGROUND,) * 3)
  ImageDraw.Draw(image).multiline_text(
    (2, 0), text, font=font, spacing=2, fill=(0, 0, 0)
  )
  return np.array(image)
