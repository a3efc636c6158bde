"""Interlaced video: detected from its pictures, and deinterlaced.

The two fields of an interlaced picture, its even and its odd rows, were
recorded half a frame apart, so that what moves has combs for edges. Flags are
often wrong either way; the pictures are not. A field lies closer in time to one
neighbour of its picture than to the other, so the rows between two rows of a
field resemble those of one neighbour more than those of the other: the measure
of FFmpeg's filter idet, here on what moves in one picture a second.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from etils.array_types import ui8
import numpy as np

_COLUMNS = 4  # Every so many are measured.
_MOVES = 12  # Grey levels that a pixel changes by in two frames.
_MOVING = 0.003  # Share of pixels that move, at least.
_ASYMMETRY = 1.5  # Of the distances to the two neighbours, at least.
_COMBS = 1.8  # At most, the distance to the nearer one of that in the picture.
_SHARE = 0.3  # Of the pictures that move; film shown as video has 0.4.


class Detector:
  """Looks for fields in the pictures of a video, one after the other."""

  def __init__(self, frame_rate: float):
    """Initialises; the rate is nominal, and only spaces the samples."""
    # About a second; one more, or it would be whole cycles of telecine.
    self._every = max(3, round(frame_rate) + 1)
    self._number, self._lumas = 0, []
    self._top = self._bottom = self._whole = 0

  def visit(self, frame: av.VideoFrame) -> None:
    """Measures the next frame."""
    place = self._number % self._every
    self._number += 1
    if place > 2:
      return
    if not place:
      self._lumas = []
    self._lumas.append(_luma(frame))
    if place == 2 and len({luma.shape for luma in self._lumas}) == 1:
      self._compare(*self._lumas)

  def field_order(self) -> str:
    """Returns 'tff' or 'bff', which field comes first; '': no fields."""
    most = max(self._top, self._bottom)
    moving = self._top + self._bottom + self._whole
    if not most or most < _SHARE * moving:
      return ''
    return 'tff' if self._top == most else 'bff'

  def _compare(self, before: np.ndarray, now: np.ndarray, after: np.ndarray):
    if len(now) < 3:
      return
    around = now[:-2] + now[2:]
    moves = np.abs(before - after)[1:-1] > _MOVES
    if moves.mean() < _MOVING:
      return
    # Entry i is of row i + 1; even ones are of the bottom field.
    there = [
      (np.abs(around - 2 * picture[1:-1]) * moves).sum(1)
      for picture in (before, now, after)
    ]
    bottom_rows, top_rows = slice(0, None, 2), slice(1, None, 2)
    # If the top field comes first, `before` is near in its bottom field.
    bottom = there[0][top_rows].sum() + there[2][bottom_rows].sum()
    top = there[0][bottom_rows].sum() + there[2][top_rows].sum()
    near, far, own = min(top, bottom), max(top, bottom), there[1].sum()
    if far > _ASYMMETRY * near and near < _COMBS * own:
      self._top += bool(top == near)
      self._bottom += bool(bottom == near)
    elif near > _COMBS * own:
      self._whole += 1


def deinterlaced(
  frames: Iterable[av.VideoFrame], field_order: str
) -> Iterator[av.VideoFrame]:
  """Yields as many frames, whole ones, in the same order.

  Args:
    frames: of one stream.
    field_order: 'tff' | 'bff'.
  """
  graph, kind = None, None
  for number, frame in enumerate(frames):
    frame.pts, frame.time_base = number, Fraction(1, 25)
    own = (
      frame.width,
      frame.height,
      frame.format.name,
      int(frame.colorspace),
      int(frame.color_range),
    )
    if own != kind:
      if graph:
        yield from _flush(graph)
      graph, kind = _graph(*own, field_order), own
    graph.push(frame)
    yield from _pull(graph)
  if graph:
    yield from _flush(graph)


def _graph(
  width: int,
  height: int,
  pixel_format: str,
  colorspace: int,
  color_range: int,
  field_order: str,
) -> av.filter.Graph:
  # Its own `add_buffer` loses what the colours are.
  source = (
    f'width={width}:height={height}:pix_fmt={pixel_format}:time_base=1/25'
    f':colorspace={colorspace}:range={color_range}'
  )
  graph = av.filter.Graph()
  graph.threads = 1
  graph.link_nodes(
    graph.add('buffer', source),
    graph.add('bwdif', f'mode=send_frame:parity={field_order}:deint=all'),
    graph.add('buffersink'),
  ).configure()
  return graph


def _flush(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
  graph.push(None)
  yield from _pull(graph)


def _pull(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
  while True:
    try:
      yield graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
      return


def _luma(frame: av.VideoFrame) -> ui8['h w']:
  """Returns every few columns of the brightness, int16."""
  component = frame.format.components[0]
  plane = frame.planes[0]
  if component.bits == 8 and component.is_luma and len(frame.planes) > 1:
    data = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    data = data[: frame.height, : frame.width]
  else:
    data = frame.reformat(format='gray', threads=1).to_ndarray()
  return data[:, ::_COLUMNS].astype(np.int16)
