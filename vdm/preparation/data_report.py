"""What became of every file: a manifest for programs, a page for people.

`manifest.jsonl` has a line for the dataset, then one per source and per shot.
`data_report.html` says how many came in, were kept and were left out for which
reason, with pictures, and how length, motion, brightness and frame rate are
distributed. `contact_sheet.png` shows what was kept.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import json
from typing import Any

import numpy as np

from vdm.data import coding
from vdm.media import page
from vdm.media import video_files
from vdm.preparation import corpus
from vdm.preparation import staging_area

MANIFEST_FILE = 'manifest.jsonl'
REPORT_FILE = 'data_report.html'
SHEET_FILE = 'contact_sheet.png'

_EXAMPLES = 8  # Pictures per reason.
_NAMED = 20  # Files named per reason.
_SHEET_ROWS = 24
_SHEET_FRAMES = 8


def make(
  results: Sequence[staging_area.Result],
  stored: Sequence[Mapping[str, Any]],
  skipped: Mapping[str, tuple[str, str]],
  *,
  staging: staging_area.Staging,
  data,
  name: str,
  fingerprint: str,
) -> dict[str, bytes]:
  """Returns the files of the report, by name.

  Args:
    results: of all files.
    stored: id, source, splits, n, group, label, caption, shot_start and start
      of every stored shot.
    skipped: reason and message of each file of which nothing stays.
    staging: where pictures are.
    data: `config.data`.
    name: of the dataset.
    fingerprint: of its content.
  """
  lines = list(_manifest(results, stored, skipped, name, fingerprint))
  files = {
    MANIFEST_FILE: '\n'.join(json.dumps(line) for line in lines).encode()
    + b'\n'
  }
  sheet = _contact_sheet(results, stored, staging)
  if sheet is not None:
    files[SHEET_FILE] = video_files.png_bytes(sheet)
  body = [
    *_summary(results, stored, skipped, data, fingerprint),
    *_reasons(results, stored, skipped, data, staging),
    *_distributions(results, data),
    *_sources(results, stored, data),
  ]
  if sheet is not None:
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
  files[REPORT_FILE] = page.page(f'Data report: {name}', body).encode()
  return files


def _manifest(
  results, stored, skipped, name, fingerprint
) -> Iterator[dict[str, Any]]:
  by_shot = collections.defaultdict(list)
  for shot in stored:
    by_shot[shot['source'], shot['shot_start']].append(shot)
  yield dict(
    kind='dataset',
    name=name,
    fingerprint=fingerprint,
    sources=len({result.name for result in results} | set(skipped)),
    shots=len(stored),
    frames=sum(shot['n'] for shot in stored),
  )
  named = {result.name for result in results}
  for source in sorted(set(skipped) - named):
    reason, message = skipped[source]
    yield dict(kind='source', name=source, reason=reason, message=message)
  for result in results:
    reason, message = skipped.get(result.name, ('', ''))
    yield dict(
      kind='source',
      name=result.name,
      reason=reason,
      message=message,
      **result.facts,
    )
    for shot in result.shots:
      parts = by_shot[result.name, shot.start]
      yield dict(
        kind='shot',
        source=result.name,
        start=shot.start,
        stop=shot.stop,
        reason=shot.reason,
        note=shot.note,
        frames=shot.n,
        stored=[
          {k: part[k] for k in ('id', 'n', 'splits', 'group', 'label')}
          for part in parts
        ],
        caption=parts[0]['caption'] if parts else '',
        **shot.measures,
      )


def _summary(results, stored, skipped, data, fingerprint) -> Iterator[str]:
  frames = sum(result.facts.get('frames', 0) for result in results)
  hours = sum(result.facts.get('seconds', 0) for result in results) / 3600
  kept = sum(shot['n'] for shot in stored)
  files = {result.name for result in results} | set(skipped)
  splits = collections.Counter(s for shot in stored for s in shot['splits'])
  yield page.table(
    [
      ('files', f'{len(files):,}'),
      (
        'files of which something is kept',
        f'{len(files) - len(skipped):,}',
      ),
      ('files left out', f'{len(skipped):,}'),
      ('frames decoded', f'{frames:,} ({hours:.3g} h)'),
      (
        'frames kept',
        f'{kept:,} at {data.frame_rate:g}/s'
        f' ({kept / data.frame_rate / 3600:.3g} h)',
      ),
      ('shots kept', f'{len(stored):,}'),
      (
        'shots per split',
        ', '.join(f'{name}: {n}' for name, n in sorted(splits.items())),
      ),
      ('stored', f'{data.resolution} px, {data.encoding}'),
      ('fingerprint', fingerprint),
    ]
  )


def _reasons(results, stored, skipped, data, staging) -> Iterator[str]:
  shots = collections.defaultdict(list)
  for result in results:
    for shot in result.shots:
      if shot.reason:
        shots[shot.reason].append((result, shot))
  files = collections.defaultdict(list)
  for source, (reason, message) in sorted(skipped.items()):
    files[reason].append((source, message))
  rest = _remainder(results, stored, data)
  rows = [
    (
      reason,
      len(files[reason]),
      len(shots[reason]),
      sum(shot.stop - shot.start for _, shot in shots[reason]),
      corpus.explain(reason, data),
    )
    for reason in {**shots, **files}
  ]
  rows.sort(key=lambda row: (-row[3], -row[1], row[0]))
  if rest:
    meaning = corpus.explain('remainder', data)
    rows.append(('remainder', 0, 0, rest, meaning))
  yield page.heading('Left out, by reason')
  if not rows:
    yield page.paragraph('Nothing was left out.')
    return
  head = ('reason', 'whole files', 'pieces', 'frames', 'meaning')
  yield page.table(rows, head)
  for reason, *_ in rows:
    examples = shots[reason]
    # Spread over what there is, and not the first ones of one file.
    chosen = [
      examples[i * len(examples) // _EXAMPLES]
      for i in range(_EXAMPLES)
      if len(examples) >= _EXAMPLES
    ] or examples
    if not examples and not files[reason]:
      continue
    yield page.heading(reason, 3)
    for result, shot in chosen:
      caption = f'{result.name}, frames {shot.start} to {shot.stop}'
      if shot.note:
        caption += f': {shot.note}'
      yield page.picture(staging.preview(result.name, shot), caption)
    if files[reason]:
      yield page.table(files[reason][:_NAMED], ('file', 'why'))
      more = len(files[reason]) - _NAMED
      if more > 0:
        yield page.paragraph(f'and {more} more, see {MANIFEST_FILE}')


def _remainder(results, stored, data) -> int:
  """Returns the frames that cutting shots into clips leaves over."""
  if not data.clip_frames:
    return 0
  whole = sum(s.n for r in results for s in r.shots if not s.reason)
  return whole - sum(shot['n'] for shot in stored)


def _distributions(results, data) -> Iterator[str]:
  yield page.heading('Distributions')
  shots = [(bool(s.reason), s) for r in results for s in r.shots]

  def groups(value):
    values = {'kept': [], 'left out': []}
    for is_out, shot in shots:
      number = value(shot)
      if number is not None:
        values['left out' if is_out else 'kept'].append(number)
    return values

  for title, value, logarithmic in (
    ('Length of shots, s', lambda s: s.n / data.frame_rate, True),
    ('Motion, frame widths per second', lambda s: s.measures['motion'], True),
    ('Brightness, grey levels', lambda s: s.measures['brightness'], False),
    ('Contrast, grey levels', lambda s: s.measures['contrast'], False),
    ('Overlay, share of edges', lambda s: s.measures['overlay'], False),
  ):
    yield page.histogram(groups(value), title, logarithmic=logarithmic)
  rates = {'files': [r.facts['frame_rate'] for r in results if r.facts]}
  yield page.histogram(rates, 'Frame rate of files, 1/s')
  sources = collections.Counter(
    r.facts['rate_from'] for r in results if r.facts
  )
  yield page.paragraph(
    'Frame rates from '
    + ', '.join(f'{name}: {n}' for name, n in sources.most_common())
  )


def _sources(results, stored, data) -> Iterator[str]:
  """Watermarks come with their source: the share of each group."""
  group_of = {shot['source']: shot['group'] for shot in stored}
  shares = corpus.overlay_shares(
    results,
    [group_of.get(result.name, result.name) for result in results],
    data.screening.max_overlay,
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


def _contact_sheet(results, stored, staging) -> np.ndarray | None:
  if not stored:
    return None
  by_name = {result.name: result for result in results}
  n = min(_SHEET_ROWS, len(stored))
  rows, captions = [], []
  for i in range(n):
    part = stored[i * len(stored) // n]
    result = by_name[part['source']]
    (shot,) = (s for s in result.shots if s.start == part['shot_start'])
    first, length = part['start'], part['n']
    wanted = np.linspace(0, length - 1, _SHEET_FRAMES).round().astype(int)
    frames = [
      next(staging.frames(part['source'], shot, first + k, first + k + 1))
      for k in wanted.tolist()
    ]
    rows.append(np.stack([coding.decode_frame(f) for f in frames]))
    base = part['source'].rsplit('/', 1)[-1]
    captions.append(
      f'{base[:30]}\n{part["n"]} frames, {part["splits"][0]}'
      if part['splits']
      else f'{base[:30]}\n{part["n"]} frames'
    )
  upscale = max(1, 96 // rows[0].shape[1])
  return video_files.contact_sheet(
    np.stack(rows), captions, frames=_SHEET_FRAMES, upscale=upscale
  )
