"""Rules that decide which frames and which shots of a video are kept.

Each rule is a function of measurements and of thresholds from
`config.data.screening`, and has a reason code. Rules over frames remove
segments from a shot, so that the rest of it is kept; rules over shots apply in
the order of `SHOT_RULES`, and the first that is violated is the reason.
`config.data.screening.rules` names the rules in force.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from etils.array_types import BoolArray, FloatArray, ui8
import numpy as np

from vdm.preparation import geometry
from vdm.preparation import shot_detection
from vdm.preparation.screening import observe
from vdm.preparation.screening import overlay

Measures = dict[str, float | None]  # None: unknown.
Screening = Mapping[str, Any]  # config.data.screening, as a plain dict.

_STILL_SECONDS = 0.5  # Over which a still picture does not drift either.
_CHUNK = 2048  # Frames compared at once, which bounds the memory.


@dataclasses.dataclass(frozen=True)
class Segment:
  """A run of frames that is kept or left out as one.

  Attributes:
    start: first frame, in the source.
    stop: one past the last.
    reason: why it is left out; '' if it is kept.
  """

  start: int
  stop: int
  reason: str = ''


def segments(
  thumbnails: ui8['n h w 3'], frame_rate: float, screening: Screening
) -> list[Segment]:
  """Divides a video into segments; every frame is in exactly one.

  Args:
    thumbnails: of all frames, from `Observer.thumbnails`.
    frame_rate: of the source.
    screening: thresholds, and the names of the rules.
  """
  n, rules = len(thumbnails), screening['rules']
  labels = np.full(n, '', object)
  if 'frozen' in rules:
    seconds, level = screening['frozen_seconds'], screening['frozen_level']
    labels[frozen_frames(thumbnails, frame_rate, seconds, level)] = 'frozen'
  if 'blank' in rules:
    labels[blank_frames(thumbnails, screening['blank_contrast'])] = 'blank'
  transitions = []
  if 'cuts' in rules:
    transitions = shot_detection.find_transitions(
      thumbnails,
      distance=screening['cut_distance'],
      ratio=screening['cut_ratio'],
    )
  for transition in transitions:
    part = slice(transition.start, transition.stop)
    labels[part] = np.where(labels[part] == '', 'transition', labels[part])
  is_start = np.ones(n, bool)
  is_start[1:] = labels[1:] != labels[:-1]
  is_start[[t.start for t in transitions if t.is_cut]] = True
  starts = np.flatnonzero(is_start).tolist()
  return [Segment(a, b, labels[a]) for a, b in zip(starts, [*starts[1:], n])]


def blank_frames(
  thumbnails: ui8['n h w 3'], min_contrast: float
) -> BoolArray[' n']:
  """Returns which frames show next to nothing, whatever their colour.

  Args:
    thumbnails: of all frames.
    min_contrast: standard deviation over a frame, grey levels, below which it
      is blank.
  """
  return _contrasts(thumbnails) < min_contrast


def _contrasts(thumbnails: ui8['n h w 3']) -> FloatArray[' n']:
  """Returns the standard deviation of each frame's brightness."""
  parts = np.array_split(thumbnails, -(-len(thumbnails) // _CHUNK))
  return np.concatenate([part.mean(-1).std((1, 2)) for part in parts])


def frozen_frames(
  thumbnails: ui8['n h w 3'], frame_rate: float, seconds: float, level: float
) -> BoolArray[' n']:
  """Returns which frames are part of a segment without any movement.

  Frames that a change of rate repeats are far too few for one.

  Args:
    thumbnails: of all frames.
    frame_rate: of the source.
    seconds: least length of such a segment.
    level: grey levels that a part of the picture may change by.
  """
  n = len(thumbnails)
  gap = max(2, round(frame_rate * _STILL_SECONDS))
  if n <= gap:
    return np.zeros(n, bool)
  steps = _largest_change(thumbnails, 1) <= level
  ends = _largest_change(thumbnails, gap) <= level
  moving = np.concatenate([[0], np.cumsum(~steps)])
  # Windows of `gap` small steps whose last frame is like the first.
  still = ends & (moving[gap:] == moving[:-gap])
  marks = np.zeros(n + 1, int)
  starts = np.flatnonzero(still)
  np.add.at(marks, starts, 1)
  np.add.at(marks, starts + gap + 1, -1)
  frozen = np.cumsum(marks[:-1]) > 0
  edges = np.flatnonzero(np.diff(frozen, prepend=False, append=False))
  for start, stop in edges.reshape(-1, 2):
    if stop - start < seconds * frame_rate:
      frozen[start:stop] = False
  return frozen


def measure(
  segment: Segment,
  thumbnails: ui8['n h w 3'],
  samples: Sequence[observe.Sample],
  box: geometry.Box | None = None,
) -> Measures:
  """Returns the measurements of a segment, None where they are unknown.

  They are brightness and contrast (mean grey level and mean standard deviation
  over a frame), motion (median over samples of the mean speed, in frame widths
  per second) and overlay (`overlay.score`, within `box`: the edge of a black
  bar is static, too).

  Args:
    segment: of the video.
    thumbnails: of all its frames.
    samples: of the whole video.
    box: part of the frames within black bars, stored px; None: all.
  """
  own = thumbnails[segment.start : segment.stop]
  inside = [s for s in samples if segment.start <= s.index < segment.stop]
  # Both frames that motion is measured on must be of the segment.
  motions = [
    s.motion for s in inside if s.motion is not None and s.until < segment.stop
  ]
  greys = [_within(s, box) for s in inside if s.grey is not None]
  return dict(
    brightness=round(float(own.mean()), 2),
    contrast=round(float(_contrasts(own).mean()), 2),
    motion=round(float(np.median(motions)), 5) if motions else None,
    overlay=overlay.score(greys),
  )


def _within(sample: observe.Sample, box: geometry.Box | None) -> ui8['h w']:
  """Returns the part of a grey copy that lies within bars."""
  if box is None:
    return sample.grey
  height, width = sample.grey.shape
  top, bottom = np.array(box[:2]) * height / len(sample.rows)
  left, right = np.array(box[2:]) * width / len(sample.columns)
  rows = slice(int(np.ceil(top)), int(bottom))
  return sample.grey[rows, int(np.ceil(left)) : int(right)]


def _low_frame_rate(measures: Measures, screening: Screening) -> bool:
  """Most of the stored frames would be repeats of others."""
  return measures['distinct'] < screening['min_distinct']


def _overlaid(measures: Measures, screening: Screening) -> bool:
  """Text, a logo or a watermark is static over a moving picture."""
  share = measures['overlay']
  return share is not None and share > screening['max_overlay']


def _low_motion(measures: Measures, screening: Screening) -> bool:
  """Next to nothing moves."""
  motion = measures['motion']
  return motion is not None and motion < screening['min_motion']


def _high_motion(measures: Measures, screening: Screening) -> bool:
  """The picture moves too fast to be followed."""
  motion = measures['motion']
  return motion is not None and motion > screening['max_motion']


SHOT_RULES = {
  'low_frame_rate': _low_frame_rate,
  'overlay': _overlaid,
  'low_motion': _low_motion,
  'high_motion': _high_motion,
}


def violated_rule(measures: Measures, screening: Screening) -> str:
  """Returns the first rule in force that rejects a shot; '' if none does."""
  for name, rule in SHOT_RULES.items():
    if name in screening['rules'] and rule(measures, screening):
      return name
  return ''


def _largest_change(thumbnails: ui8['n h w 3'], gap: int) -> np.ndarray:
  """Returns the largest difference of frames i and i + gap, int16 [n - gap]."""
  n = len(thumbnails) - gap
  changes = np.zeros(n, np.int16)
  for i in range(0, n, _CHUNK):
    j = min(i + _CHUNK, n)
    before = thumbnails[i:j].astype(np.int16)
    after = thumbnails[i + gap : j + gap]
    changes[i:j] = np.abs(after - before).max((1, 2, 3))
  return changes
