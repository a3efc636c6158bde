"""The reasons why files and shots are left out, in words.

Reason codes come from `decoding.VideoError`, `workers`, `screening.rules`,
`captions`, `corpus`, `sources` and the datasets themselves.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.data.builders import build_plan
from vdm.preparation import staging_area


def of_file(result: staging_area.Result) -> tuple[str, str] | None:
  """Returns why no shot of a file is kept: a code and a sentence; else None.

  The code is that of most of its frames.
  """
  if result.reason:
    return result.reason, result.message
  if any(not shot.reason for shot in result.shots):
    return None
  frames = {}
  for shot in result.shots:
    frames[shot.reason] = frames.get(shot.reason, 0) + shot.stop - shot.start
  reason = max(frames, key=frames.get)
  total = sum(frames.values())
  parts = ', '.join(f'{n} {name}' for name, n in frames.items())
  notes = [shot.note for shot in result.shots if shot.reason == reason]
  note = f'; {notes[0]}' if notes[0] else ''
  return reason, f'of {total} frames {parts}{note}'


def skipped(
  results: Iterable[staging_area.Result],
) -> list[build_plan.Skipped]:
  """Returns the files of which no shot is kept, with their reasons."""
  return [
    build_plan.Skipped(result.name, *reason)
    for result in results
    if (reason := of_file(result))
  ]


def explain(reason: str, data: ConfigDict) -> str:
  """Returns what a reason code means with these settings of `config.data`."""
  screening = data.screening
  sentences = {
    'undecodable': 'damaged: the decoder refuses it',
    'truncated': 'it ends before its header says',
    'no_frame_rate': 'no plausible frame rate, and data.assumed_rate is 0',
    'high_dynamic_range': 'HLG, PQ or another curve that needs tone mapping',
    'empty': 'it has no bytes or no frames',
    'no_video_stream': 'it holds no video',
    'too_small': f'smaller than {sizes.text(sizes.of(data))} px, not enlarged',
    'too_large': 'more pixels than data.limits.pixels',
    'timeout': 'it took longer than data.limits allow',
    'memory': 'it needed more memory than data.limits.memory_mb',
    'crashed': 'the decoder crashed on it',
    'failed': 'an unexpected error, see its message',
    'too_short': f'fewer than {data.min_frames} stored frames',
    'transition': 'between two shots: a fade or dissolve',
    'blank': f'contrast below {screening.blank_contrast:g} grey levels',
    'frozen': (
      f'nothing changes by more than {screening.frozen_level:g} grey levels'
      f' for {screening.frozen_seconds:g} s or longer'
    ),
    'low_frame_rate': (
      f'fewer than {screening.min_distinct:.0%} distinct frames at'
      f' {data.frame_rate:g}/s'
    ),
    'overlay': (
      f'burned-in text or a mark: more than {screening.max_overlay:.1%} of'
      ' edges that never move'
    ),
    'low_motion': f'below {screening.min_motion:g} widths per second',
    'high_motion': f'above {screening.max_motion:g} widths per second',
    'duplicate': 'a better copy is in the data set',
    'missing': 'named in a list but not in the source',
    'unlisted': 'in no list',
    'hidden': 'a hidden file or folder, or what a system leaves beside files',
    'picture': 'a picture by its suffix',
    'text': 'a text by its suffix',
    'sound': 'sound alone, by its suffix',
    'archive': 'an archive in the source: unpack it',
    'other_suffix': 'no suffix that videos have',
    'outside_link': 'a link out of the source: data.follow_links allows it',
    'repeated_link': 'a link to a folder that is read already',
    'broken_link': 'a link to what is not there',
    'no_file': 'a device or a pipe',
    'unreadable': 'a folder that may not be read',
    'watermarked_source': (
      f'more than {screening.max_overlay_sources:.0%} of its source carry'
      ' an overlay'
    ),
    'remainder': f'what is left of a shot after clips of {data.clip_frames}',
  }
  return sentences.get(reason, reason.replace('_', ' '))
