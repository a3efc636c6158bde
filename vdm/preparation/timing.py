"""When the frames of a video appear: by timestamps, or by their order.

Timestamps decide where they can be right: all there, increasing, at a rate that
a camera can have. A pause in them ends a shot: what moves before and after it
is stored at its true speed, and nothing is stored of the pause. So does a
restart, where recordings were joined. Where timestamps cannot be right (AVI
with B-frames scrambles them), frame i appears at i / rate, with the rate of the
header or, in a container without timestamps (a raw stream), the one that the
caller assumes.
"""

from collections.abc import Sequence
import dataclasses
from fractions import Fraction

from etils.array_types import BoolArray, FloatArray
import numpy as np

from vdm.preparation import decoding

_MAX_GAP = 86_400.0  # Seconds; no recording pauses longer, a wrong stamp may.
_MIN_RATE, _MAX_RATE = 0.2, 1000  # Frames per second; beyond, they are wrong.
# A step is a pause if it is longer than both of these: a screen recording may
# repeat a picture for half a second, a camera of 1 frame/s has steps of 1 s.
_PAUSE_SECONDS = 0.6
_PAUSE_STEPS = 4  # Of the usual length.
_RESTART = -1.0  # Seconds; a step back by more is another recording.
_AGREE = 0.05  # Greatest difference of a header's rate from the timestamps'.


@dataclasses.dataclass(frozen=True)
class Timing:
  """When frames appear.

  Attributes:
    times: of each frame, seconds from the first.
    pauses: the first frames after pauses and restarts, ascending.
    frame_rate: frames per second, on average, outside pauses.
    rate_from: 'timestamps' | 'header' (timestamps are unusable) | 'assumed'.
    timing: what decided: 'timestamps' | 'order'.
  """

  times: FloatArray[' n']
  pauses: tuple[int, ...]
  frame_rate: float
  rate_from: str
  timing: str


def decide(
  stamps: Sequence[Fraction | None],
  stated: Fraction | None,
  assumed_rate: float,
  *,
  is_timed: bool,
) -> Timing:
  """Returns when frames appear.

  Args:
    stamps: the frames' timestamps, seconds, in the order of decoding.
    stated: the header's frame rate.
    assumed_rate: of a stream that states none; 0: it is rejected.
    is_timed: whether the container has timestamps and a rate.

  Raises:
    VideoError: if there is no plausible rate and none is assumed.
  """
  is_stated = is_timed and is_plausible(stated)
  times = trusted_times(stamps) if is_timed else None
  if times is not None:
    steps = np.diff(times)
    pauses = _pauses(steps) | _restarts(_seconds(stamps))
    rate = float(stated) if is_stated else assumed_rate or 1.0
    if steps.size:
      measured = np.count_nonzero(~pauses) / steps[~pauses].sum()
      # The header's average counts the pauses, and may be wrong.
      if not is_stated or abs(rate / measured - 1) > _AGREE:
        rate = float(measured)
    after = tuple((np.flatnonzero(pauses) + 1).tolist())
    return Timing(times, after, rate, 'timestamps', 'timestamps')
  if not is_stated and not assumed_rate:
    raise decoding.VideoError(
      'no_frame_rate', f'the file states {stated} frames/s'
    )
  rate = float(stated if is_stated else assumed_rate)
  rate_from = 'header' if is_stated else 'assumed'
  return Timing(np.arange(len(stamps)) / rate, (), rate, rate_from, 'order')


def trusted_times(
  stamps: Sequence[Fraction | None],
) -> FloatArray[' n'] | None:
  """Returns seconds from the first frame; None where they cannot be right."""
  if None in stamps:
    return None
  seconds = _seconds(stamps)
  steps, restarts = np.diff(seconds), _restarts(seconds)
  if restarts.any():
    steps[restarts] = np.median(steps[~restarts])  # As if it continued.
    seconds = np.concatenate([[0.0], np.cumsum(steps)])
  if not np.all((steps > 0) & (steps < _MAX_GAP)):
    return None
  if steps.size and not is_plausible(1 / np.median(steps)):
    return None
  return seconds


def is_plausible(rate: Fraction | float | None) -> bool:
  """Returns whether a video may have this frame rate."""
  return bool(rate) and _MIN_RATE <= rate <= _MAX_RATE


def _seconds(stamps: Sequence[Fraction]) -> FloatArray[' n']:
  return np.array([float(stamp - stamps[0]) for stamp in stamps])


def _restarts(seconds: FloatArray[' n']) -> BoolArray[' n-1']:
  return np.diff(seconds) < _RESTART


def _pauses(steps: FloatArray[' n']) -> BoolArray[' n']:
  """Returns which steps from frame to frame are pauses."""
  if not steps.size:
    return np.zeros(0, bool)
  usual = float(np.median(steps))
  return steps > max(_PAUSE_SECONDS, _PAUSE_STEPS * usual)
