"""What a build made of every file, as a page for people.

`data_report.html` says how many files and frames were decoded, kept, and left
out for which reason, with pictures, and how length, motion, brightness and
frame rate are distributed. `contact_sheet.png` shows shots that were kept;
`manifest.jsonl` has the same facts for programs.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import json

from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm.common import sizes
from vdm.data import coding
from vdm.media import page
from vdm.media import video_files
from vdm.preparation import corpus
from vdm.preparation import manifest
from vdm.preparation import reasons
from vdm.preparation import staging_area

REPORT_FILE = 'data_report.html'
SHEET_FILE = 'contact_sheet.png'

_EXAMPLES = 8  # Pictures per reason.
_NAMED = 20  # Files named per reason.
_SHEET_ROWS = 24
_SHEET_FRAMES = 8


def make(
  outcome: manifest.Outcome,
  *,
  data: ConfigDict,
  staging: staging_area.Staging,
  fingerprint: str,
) -> dict[str, bytes]:
  """Returns the files of the report, by name.

  Args:
    outcome: of the build.
    data: `config.data`.
    staging: where pictures are.
    fingerprint: of the dataset's content.
  """
  files = {manifest.FILE: manifest.encode(outcome, data.name, fingerprint)}
  body = [
    *_summary(outcome, data, fingerprint),
    *(page.paragraph(note) for note in outcome.notes),
    *_reasons(outcome, data, staging),
    *_distributions(outcome.results, data.frame_rate),
    *_doubts(outcome.results),
    *_overlays(outcome, data.screening.max_overlay),
  ]
  if outcome.stored:
    sheet = _contact_sheet(outcome.stored, staging)
    files[SHEET_FILE] = video_files.png_bytes(sheet)
    body += [
      page.heading('What was kept'),
      page.paragraph(
        'Shots spread over the data set, at the stored resolution; the frames'
        ' are evenly spaced over each shot.'
      ),
      page.picture(files[SHEET_FILE], wide=True),
    ]
  body += [
    page.heading('Settings'),
    f'<pre>{page.text(json.dumps(data.to_dict(), indent=2))}</pre>',
  ]
  files[REPORT_FILE] = page.page(f'Data report: {data.name}', body).encode()
  return files


def _summary(
  outcome: manifest.Outcome, data: ConfigDict, fingerprint: str
) -> Iterator[str]:
  facts = [result.facts for result in outcome.results]
  records = [stored.record for stored in outcome.stored]
  frames = sum(f.get('frames', 0) for f in facts)
  hours = sum(f.get('seconds', 0) for f in facts) / 3600
  kept = sum(record.n for record in records)
  num_files, num_skipped = len(outcome.files()), len(outcome.skipped)
  splits = collections.Counter(s for record in records for s in record.splits)
  yield page.table(
    [
      ('files', f'{num_files:,}'),
      ('files of which something is kept', f'{num_files - num_skipped:,}'),
      ('files left out', f'{num_skipped:,}'),
      ('frames decoded', f'{frames:,} ({hours:.3g} h)'),
      (
        'frames kept',
        f'{kept:,} at {data.frame_rate:g}/s'
        f' ({kept / data.frame_rate / 3600:.3g} h)',
      ),
      ('shots kept', f'{len(records):,}'),
      (
        'shots per split',
        ', '.join(f'{name}: {n}' for name, n in sorted(splits.items())),
      ),
      ('stored', f'{sizes.text(sizes.of(data))} px, {data.encoding}'),
      ('fingerprint', fingerprint),
    ]
  )


def _reasons(
  outcome: manifest.Outcome, data: ConfigDict, staging: staging_area.Staging
) -> Iterator[str]:
  """Yields a table of the reasons, then examples of each."""
  shots = collections.defaultdict(list)
  for result in outcome.results:
    for shot in result.shots:
      if shot.reason:
        shots[shot.reason].append((result.name, shot))
  files = collections.defaultdict(list)
  for source, (reason, message) in sorted(outcome.skipped.items()):
    files[reason].append((source, message))
  rows = [
    (
      reason,
      len(files[reason]),
      len(shots[reason]),
      sum(shot.stop - shot.start for _, shot in shots[reason]),
      reasons.explain(reason, data),
    )
    for reason in {**shots, **files}
  ]
  rows.sort(key=lambda row: (-row[3], -row[1], row[0]))
  found = [row[0] for row in rows]
  remainder = _remainder(outcome) if data.clip_frames else 0
  if remainder:
    meaning = reasons.explain('remainder', data)
    rows.append(('remainder', 0, 0, remainder, meaning))
  yield page.heading('Left out, by reason')
  if not rows:
    yield page.paragraph('Nothing was left out.')
    return
  head = ('reason', 'whole files', 'pieces', 'frames', 'meaning')
  yield page.table(rows, head)
  for reason in found:
    yield from _examples(reason, shots[reason], files[reason], staging)


def _examples(
  reason: str,
  shots: Sequence[tuple[str, staging_area.Shot]],
  files: Sequence[tuple[str, str]],
  staging: staging_area.Staging,
) -> Iterator[str]:
  """Yields pictures of shots, and names of files, left out for a reason."""
  yield page.heading(reason, 3)
  if len(shots) >= _EXAMPLES:
    # Spread over all of them instead of the first ones of one file.
    shots = [shots[i * len(shots) // _EXAMPLES] for i in range(_EXAMPLES)]
  for name, shot in shots:
    caption = f'{name}, frames {shot.start} to {shot.stop}'
    if shot.note:
      caption += f': {shot.note}'
    yield page.picture(staging.preview(name, shot), caption)
  if files:
    yield page.table(files[:_NAMED], ('file', 'why'))
  if len(files) > _NAMED:
    more = len(files) - _NAMED
    yield page.paragraph(f'and {more} more, see {manifest.FILE}')


def _remainder(outcome: manifest.Outcome) -> int:
  """Returns the frames left over from cutting shots into clips."""
  kept = sum(s.n for r in outcome.results for s in r.shots if not s.reason)
  return kept - sum(stored.record.n for stored in outcome.stored)


def _distributions(
  results: Sequence[staging_area.Result], frame_rate: float
) -> Iterator[str]:
  yield page.heading('Distributions')
  shots = [shot for result in results for shot in result.shots]

  def groups(value: Callable[[staging_area.Shot], float | None]):
    values = {'kept': [], 'left out': []}
    for shot in shots:
      number = value(shot)
      if number is not None:
        values['left out' if shot.reason else 'kept'].append(number)
    return values

  for title, value, logarithmic in (
    ('Length of shots, s', lambda s: s.n / frame_rate, True),
    ('Motion, frame widths per second', lambda s: s.measures['motion'], True),
    ('Brightness, grey levels', lambda s: s.measures['brightness'], False),
    ('Contrast, grey levels', lambda s: s.measures['contrast'], False),
    ('Overlay, share of edges', lambda s: s.measures['overlay'], False),
  ):
    yield page.histogram(groups(value), title, logarithmic=logarithmic)
  facts = [result.facts for result in results if result.facts]
  rates = {'files': [f['frame_rate'] for f in facts]}
  yield page.histogram(rates, 'Frame rate of files, 1/s')
  origins = collections.Counter(f['rate_from'] for f in facts)
  yield page.paragraph(
    'Frame rates from '
    + ', '.join(f'{name}: {n}' for name, n in origins.most_common())
  )


def _doubts(results: Sequence[staging_area.Result]) -> Iterator[str]:
  """Yields the files that decode but disagree with their headers."""
  rows = [(r.name, r.facts['doubt']) for r in results if r.facts.get('doubt')]
  if rows:
    yield page.heading('Files that may be damaged')
    yield page.table(rows[:_NAMED], ('file', 'why'))
  if len(rows) > _NAMED:
    yield page.paragraph(f'and {len(rows) - _NAMED} more, see {manifest.FILE}')


def _overlays(outcome: manifest.Outcome, limit: float) -> Iterator[str]:
  """Yields the share of each recording: watermarks come with their source."""
  group_of = {s.source: s.record.group for s in outcome.stored}
  shares = corpus.overlay_shares(
    outcome.results,
    [group_of.get(result.name, result.name) for result in outcome.results],
    limit,
  )
  marked = [
    (name, n, known, f'{n / known:.0%}')
    for name, (n, known) in shares.items()
    if n
  ]
  if marked:
    marked.sort(key=lambda row: -row[1] / row[2])
    yield page.heading('Burned-in text and marks, by recording')
    head = ('recording', 'pieces with one', 'pieces judged', 'share')
    yield page.table(marked[:_NAMED], head)


def _contact_sheet(
  stored: Sequence[manifest.Stored], staging: staging_area.Staging
) -> ui8['h w 3']:
  n = min(_SHEET_ROWS, len(stored))
  rows, captions = [], []
  for part in (stored[i * len(stored) // n] for i in range(n)):
    record = part.record
    wanted = np.linspace(0, record.n - 1, _SHEET_FRAMES).round().astype(int)
    frames = [
      next(staging.frames(part.source, part.shot, start, start + 1))
      for start in (part.start + wanted).tolist()
    ]
    rows.append(np.stack([coding.decode_frame(f) for f in frames]))
    caption = f'{part.source.rsplit("/", 1)[-1][:30]}\n{record.n} frames'
    captions.append(', '.join([caption, *record.splits[:1]]))
  upscale = max(1, 96 // rows[0].shape[1])
  return video_files.contact_sheet(
    np.stack(rows), captions, frames=_SHEET_FRAMES, upscale=upscale
  )
