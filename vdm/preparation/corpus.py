"""Decisions that need all files at once: duplicates and publishers."""

from collections.abc import Sequence

import numpy as np

from vdm.preparation import duplicates
from vdm.preparation import staging_area


def drop_duplicates(
  results: Sequence[staging_area.Result], threshold: float
) -> list[tuple[int, int]]:
  """Leaves out shots of which there is a better copy.

  Of near-duplicates in different files the one whose header agrees with its
  content is kept, else the one with more source pixels, else the longer one,
  else the first. A shot left out gets the reason
  'duplicate' and a note that names what it duplicates.

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
    pixels = facts['height'] * facts['width']
    return bool(facts.get('doubt')), -pixels, -shot.n, place

  kept = set()
  for place in sorted(neighbours, key=quality):
    better = kept & neighbours[place].keys()
    if not better:
      kept.add(place)
      continue
    best = min(better, key=quality)
    number, original = places[best]
    shot = places[place][1]
    shot.reason = 'duplicate'
    shot.note = (
      f'{results[number].name}, frames {original.start} to {original.stop},'
      f' {neighbours[place][best]:.3f} of the bits differ'
    )
  return [
    (places[i][0], places[j][0]) for i in neighbours for j in neighbours[i]
  ]


def overlay_shares(
  results: Sequence[staging_area.Result], groups: Sequence[str], limit: float
) -> dict[str, tuple[int, int]]:
  """Returns, for each group, (segments with an overlay, segments measured).

  Args:
    results: of all files.
    groups: what each result belongs to.
    limit: overlay score above which a segment counts as marked.
  """
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
  max_share: float,
) -> None:
  """Leaves out all shots of groups that mark most of what they publish.

  Args:
    results: changed in place.
    groups: what each result belongs to.
    limit: overlay score above which a shot counts as marked.
    max_share: of a group's measured segments that may be marked; beyond it all
      of the group is left out.
  """
  shares = overlay_shares(results, groups, limit)
  for result, group in zip(results, groups):
    marked, known = shares.get(group, (0, 0))
    if known and marked / known > max_share:
      for shot in result.shots:
        if not shot.reason:
          shot.reason = 'watermarked_source'
          shot.note = f'{marked} of {known} judged pieces of {group}'
