"""What a build made of every file, as a manifest for programs.

`manifest.jsonl` has a line for the dataset, then one per file and per shot.
"""

import collections
from collections.abc import Iterator
import dataclasses
import json
from typing import Any

from vdm.data.builders import build_plan
from vdm.preparation import staging_area

FILE = 'manifest.jsonl'


@dataclasses.dataclass(frozen=True)
class Stored:
  """A shot of the dataset and where it comes from.

  Attributes:
    record: what is written, without its frames.
    source: name of the file.
    shot: of the file, all or a part of which is stored.
    start: first of the stored frames, counted in that shot.
  """

  record: build_plan.Shot
  source: str
  shot: staging_area.Shot
  start: int


@dataclasses.dataclass
class Outcome:
  """What a build made of its files.

  Attributes:
    results: of the files that were prepared.
    stored: all shots of the dataset.
    skipped: {file: (reason, message)} of files of which nothing is stored.
    notes: sentences about the dataset as a whole, for people.
  """

  results: list[staging_area.Result] = dataclasses.field(default_factory=list)
  stored: list[Stored] = dataclasses.field(default_factory=list)
  skipped: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
  notes: list[str] = dataclasses.field(default_factory=list)

  def files(self) -> set[str]:
    """Returns the names of all files."""
    return {result.name for result in self.results} | set(self.skipped)


def encode(outcome: Outcome, name: str, fingerprint: str) -> bytes:
  """Returns the manifest of a dataset, given its name and fingerprint."""
  lines = _lines(outcome, name, fingerprint)
  return ''.join(json.dumps(line) + '\n' for line in lines).encode()


def _lines(
  outcome: Outcome, name: str, fingerprint: str
) -> Iterator[dict[str, Any]]:
  yield dict(
    kind='dataset',
    name=name,
    fingerprint=fingerprint,
    sources=len(outcome.files()),
    shots=len(outcome.stored),
    frames=sum(stored.record.n for stored in outcome.stored),
    notes=outcome.notes,
  )
  prepared = {result.name for result in outcome.results}
  for source in sorted(set(outcome.skipped) - prepared):
    reason, message = outcome.skipped[source]
    yield dict(kind='source', name=source, reason=reason, message=message)
  parts = collections.defaultdict(list)
  for stored in outcome.stored:
    parts[stored.source, stored.shot.start].append(stored.record)
  for result in outcome.results:
    reason, message = outcome.skipped.get(result.name, ('', ''))
    yield dict(
      kind='source',
      name=result.name,
      reason=reason,
      message=message,
      **result.facts,
    )
    for shot in result.shots:
      records = parts[result.name, shot.start]
      yield dict(
        kind='shot',
        source=result.name,
        start=shot.start,
        stop=shot.stop,
        reason=shot.reason,
        note=shot.note,
        frames=shot.n,
        stored=[
          dict(
            id=record.id,
            n=record.n,
            splits=list(record.splits),
            group=record.group,
            label=record.label,
          )
          for record in records
        ],
        caption=records[0].caption if records else '',
        **shot.measures,
      )
