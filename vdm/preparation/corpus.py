"""Decisions that need all files at once: duplicates and groups."""

from collections.abc import Mapping, Sequence

import numpy as np

from vdm.preparation import duplicates
from vdm.preparation import staging_area


def drop_duplicates(
  results: Sequence[staging_area.Result], threshold: float
) -> list[tuple[int, int]]:
  """Leaves out shots of which a better copy is there.

  Of near-duplicates in different files the one with more source pixels stays,
  else the longer one, else the one that comes first. A shot left out is given
  the reason 'duplicate' and a note that names what it duplicates.

  Args:
    results: changed in place.
    threshold: see `duplicates.find`.

  Returns:
    Pairs of results that share content.
  """
  places = [
    (number, shot)
    for number, result in enumerate(results)
    for shot in result.shots
    if not shot.reason
  ]
  sequences = [np.array(shot.hashes, np.uint64) for _, shot in places]
  neighbours = {place: {} for place in range(len(places))}
  for i, j, apart in duplicates.find(sequences, threshold=threshold):
    if places[i][0] != places[j][0]:
      neighbours[i][j] = neighbours[j][i] = apart

  def quality(place):
    number, shot = places[place]
    facts = results[number].facts
    return -facts['height'] * facts['width'], -shot.n, place

  kept = set()
  for place in sorted(neighbours, key=quality):
    twins = sorted(kept & neighbours[place].keys(), key=quality)
    if not twins:
      kept.add(place)
      continue
    number, original = places[twins[0]]
    shot = places[place][1]
    shot.reason = 'duplicate'
    shot.note = (
      f'{results[number].name}, frames {original.start} to {original.stop},'
      f' {neighbours[place][twins[0]]:.3f} of the bits differ'
    )
  return [
    (places[i][0], places[j][0]) for i in neighbours for j in neighbours[i]
  ]


def overlay_shares(
  results: Sequence[staging_area.Result], groups: Sequence[str], limit: float
) -> dict[str, tuple[int, int]]:
  """Returns (pieces with an overlay, pieces judged) of each group."""
  shares = {}
  for result, group in zip(results, groups):
    for shot in result.shots:
      overlay = shot.measures['overlay']
      if overlay is not None:
        marked, known = shares.get(group, (0, 0))
        shares[group] = marked + (overlay > limit), known + 1
  return shares


def drop_watermarked(
  results: Sequence[staging_area.Result],
  groups: Sequence[str],
  *,
  limit: float,
  most: float,
) -> None:
  """Leaves out all shots of groups that mark most of what they publish.

  Args:
    results: changed in place.
    groups: what each result belongs to.
    limit: overlay score from which a shot counts as marked.
    most: share of a group's judged pieces beyond which all of it goes.
  """
  shares = overlay_shares(results, groups, limit)
  for result, group in zip(results, groups):
    marked, known = shares.get(group, (0, 0))
    if known and marked / known > most:
      for shot in result.shots:
        if not shot.reason:
          shot.reason = 'watermarked_source'
          shot.note = f'{marked} of {known} judged pieces of {group}'


def why_nothing(result: staging_area.Result) -> tuple[str, str] | None:
  """Returns reason and sentence if nothing of a file stays, else None."""
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


def explain(reason: str, data: Mapping) -> str:
  """Returns what a reason code means under these settings."""
  screening = data['screening']
  sentences = {
    'undecodable': 'damaged: the decoder refuses it',
    'truncated': 'it ends before its header says',
    'empty': 'it has no bytes or no frames',
    'no_video_stream': 'it holds no video',
    'too_small': f'smaller than {data["resolution"]} px, not enlarged',
    'too_large': 'more pixels than data.limits.pixels',
    'timeout': 'it took longer than data.limits allow',
    'memory': 'it needed more memory than data.limits.memory_mb',
    'crashed': 'the decoder crashed on it',
    'failed': 'an unexpected error, see its message',
    'too_short': f'fewer than {data["min_frames"]} stored frames',
    'transition': 'between two shots: a fade or dissolve',
    'blank': f'contrast below {screening["blank_contrast"]:g} grey levels',
    'frozen': (
      f'nothing changes by more than {screening["frozen_level"]:g} grey levels'
      f' for {screening["frozen_seconds"]:g} s or longer'
    ),
    'low_frame_rate': (
      f'fewer than {screening["min_distinct"]:.0%} distinct frames at'
      f' {data["frame_rate"]:g}/s'
    ),
    'overlay': (
      f'burned-in text or a mark: more than {screening["max_overlay"]:.1%} of'
      ' edges that never move'
    ),
    'low_motion': f'below {screening["min_motion"]:g} widths per second',
    'high_motion': f'above {screening["max_motion"]:g} widths per second',
    'duplicate': 'a better copy is in the data set',
    'missing': 'named in a list but not in the source',
    'unlisted': 'in no list',
    'watermarked_source': (
      f'more than {screening["max_overlay_sources"]:.0%} of its source carry'
      ' an overlay'
    ),
    'remainder': f'what is left of a shot after clips of {data["clip_frames"]}',
  }
  return sentences.get(reason, reason.replace('_', ' '))
