"""Rules over what was observed of a video: which frames, which shots stay.

Each rule is a function of measurements and of thresholds from
`config.data.screening`, and has a reason code. Rules over frames take
stretches out of a shot, so that the rest of it stays; rules over shots are
asked in the order of `SHOT_RULES`, and the first that objects is the reason.
`config.data.screening.rules` names the rules in force.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from vdm.preparation import shot_detection
from vdm.preparation.screening import observe
from vdm.preparation.screening import overlay

_STILL_SECONDS = 0.5  # Over which a still picture does not drift either.
_CHUNK = 2048  # Frames compared at once, which bounds the memory.


@dataclasses.dataclass
class Piece:
  """A run of frames with one fate.

  Attributes:
    start: first frame, in the source.
    stop: one past the last.
    reason: why it is left out; '' if it stays.
    measures: numbers about it, see `measure`.
  """

  start: int
  stop: int
  reason: str = ''
  measures: dict[str, float | None] = dataclasses.field(default_factory=dict)


def pieces(
  smalls: np.ndarray, frame_rate: float, screening: Mapping[str, Any]
) -> list[Piece]:
  """Cuts a video into pieces; every frame is in exactly one.

  Args:
    smalls: small copies of all frames, from `Observer.smalls`.
    frame_rate: of the source.
    screening: `config.data.screening`.
  """
  n, rules = len(smalls), screening['rules']
  labels = np.full(n, '', object)
  if 'frozen' in rules:
    seconds, level = screening['frozen_seconds'], screening['frozen_level']
    labels[frozen_frames(smalls, frame_rate, seconds, level)] = 'frozen'
  if 'blank' in rules:
    labels[blank_frames(smalls, screening['blank_contrast'])] = 'blank'
  transitions = []
  if 'cuts' in rules:
    transitions = shot_detection.find_transitions(
      smalls,
      distance=screening['cut_distance'],
      ratio=screening['cut_ratio'],
    )
  for transition in transitions:
    part = slice(transition.start, transition.stop)
    labels[part] = np.where(labels[part] == '', 'transition', labels[part])
  opens = np.ones(n, bool)
  opens[1:] = labels[1:] != labels[:-1]
  opens[[t.start for t in transitions if t.is_cut]] = True
  starts = np.flatnonzero(opens).tolist()
  return [Piece(a, b, labels[a]) for a, b in zip(starts, [*starts[1:], n])]


def blank_frames(smalls: np.ndarray, contrast: float) -> np.ndarray:
  """Returns which frames show next to nothing, whatever their colour, [n].

  Args:
    smalls: uint8 [n h w 3].
    contrast: standard deviation over a frame, grey levels, below which it is
      blank.
  """
  return contrasts(smalls) < contrast


def contrasts(smalls: np.ndarray) -> np.ndarray:
  """Returns the standard deviation of each frame's brightness, [n]."""
  parts = np.array_split(smalls, -(-len(smalls) // _CHUNK))
  return np.concatenate([part.mean(-1).std((1, 2)) for part in parts])


def frozen_frames(
  smalls: np.ndarray, frame_rate: float, seconds: float, level: float
) -> np.ndarray:
  """Returns which frames are part of a stretch without any movement, [n].

  Repeated frames, as a change of rate leaves them, are far too short for one.

  Args:
    smalls: uint8 [n h w 3].
    frame_rate: of the source.
    seconds: that a stretch lasts at least.
    level: grey levels that a part of the picture may change by.
  """
  n = len(smalls)
  gap = max(2, round(frame_rate * _STILL_SECONDS))
  if n <= gap:
    return np.zeros(n, bool)
  steps = _largest_change(smalls, 1) <= level
  ends = _largest_change(smalls, gap) <= level
  moving = np.concatenate([[0], np.cumsum(~steps)])
  # Windows of `gap` steps, all small, that end where they began.
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
  piece: Piece,
  smalls: np.ndarray,
  samples: Sequence[observe.Sample],
  box: tuple[int, int, int, int] | None = None,
) -> dict[str, float | None]:
  """Returns numbers about a piece, None where they cannot be known.

  They are brightness and contrast (mean grey level and mean standard deviation
  over a frame), motion (median over samples of the mean speed, in frame widths
  per second) and overlay (`overlay.score`, within `box`: the edge of a black
  bar stands still, too).
  """
  own = smalls[piece.start : piece.stop]
  inside = [s for s in samples if piece.start <= s.index < piece.stop]
  # A pair of frames that motion is measured on must not cross a border.
  whole = [
    s.motion for s in inside if s.motion is not None and s.until < piece.stop
  ]
  greys = [_within(s, box) for s in inside if s.grey is not None]
  return dict(
    brightness=round(float(own.mean()), 2),
    contrast=round(float(contrasts(own).mean()), 2),
    motion=round(float(np.median(whole)), 5) if whole else None,
    overlay=overlay.score(greys),
  )


def _within(sample: observe.Sample, box) -> np.ndarray:
  """Returns the part of a grey copy that lies within bars."""
  if box is None:
    return sample.grey
  height, width = sample.grey.shape
  top, bottom = np.array(box[:2]) * height / len(sample.rows)
  left, right = np.array(box[2:]) * width / len(sample.columns)
  rows = slice(int(np.ceil(top)), int(bottom))
  return sample.grey[rows, int(np.ceil(left)) : int(right)]


def low_frame_rate(measures, screening) -> bool:
  """Most of the stored frames would be repeats of others."""
  return measures['distinct'] < screening['min_distinct']


def overlaid(measures, screening) -> bool:
  """Text, a logo or a watermark stands still over a moving picture."""
  share = measures['overlay']
  return share is not None and share > screening['max_overlay']


def low_motion(measures, screening) -> bool:
  """Next to nothing moves."""
  motion = measures['motion']
  return motion is not None and motion < screening['min_motion']


def high_motion(measures, screening) -> bool:
  """The picture moves too fast to be followed."""
  motion = measures['motion']
  return motion is not None and motion > screening['max_motion']


SHOT_RULES = {
  'low_frame_rate': low_frame_rate,
  'overlay': overlaid,
  'low_motion': low_motion,
  'high_motion': high_motion,
}


def objection(measures, screening: Mapping[str, Any]) -> str:
  """Returns the first rule in force that objects to a shot, or ''."""
  for name, rule in SHOT_RULES.items():
    if name in screening['rules'] and rule(measures, screening):
      return name
  return ''


def _largest_change(smalls: np.ndarray, gap: int) -> np.ndarray:
  """Returns the largest difference of frames i and i + gap, [n - gap]."""
  n = len(smalls) - gap
  changes = np.zeros(n, np.int16)
  for i in range(0, n, _CHUNK):
    j = min(i + _CHUNK, n)
    before, after = smalls[i:j].astype(np.int16), smalls[i + gap : j + gap]
    changes[i:j] = np.abs(after - before).max((1, 2, 3))
  return changes
