"""A self-contained HTML page of text, tables, pictures and histograms.

It fetches nothing, so it can be mailed, archived and opened from a disk, and it
runs no script but the one that `page` is given: its policy forbids the browser
anything else. Functions return HTML. Whatever comes from outside (file names,
messages of libraries) is escaped by `text`.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
import hashlib
import html

import numpy as np

# Of a histogram: px, colours of its groups, places along the axis.
_WIDTH, _HEIGHT, _LEFT = 560, 120, 40
_COLOURS = ('var(--one)', 'var(--two)')
_TICKS = (0, 0.25, 0.5, 0.75, 1)

_STYLE = """
:root { color-scheme: light dark;
  --line: #8884; --one: #3b78b5; --two: #d0883a }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.2rem; margin-top: 2.2rem }
h3 { font-size: 1rem; margin-bottom: .3rem }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
td { overflow-wrap: break-word; max-width: 40rem }
.scroll { overflow-x: auto }
pre { font-size: .8rem; overflow-x: auto }
details { margin: .6rem 0 }
summary { cursor: pointer }
figure { display: inline-block; margin: 0 .6rem .6rem 0; max-width: 14rem;
  vertical-align: top }
figure.wide { max-width: 100% }
figure img { max-width: 100%; display: block }
figcaption { font-size: .75rem; overflow-wrap: anywhere; opacity: .8 }
code { font-size: .85em; overflow-wrap: anywhere }
svg text { font: 11px system-ui, sans-serif; fill: currentColor }
"""


def page(
  title: str, parts: Iterable[str], *, style: str = '', script: str = ''
) -> str:
  """Returns a complete document.

  Args:
    title: plain text.
    parts: HTML, one below the other.
    style: further rules of CSS.
    script: JavaScript, the only one that the page may run.
  """
  policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
  end = ''
  if script:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy += f"; script-src 'sha256-{digest}'"
    end = f'\n<script>{script}</script>'
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<meta name="viewport" content="width=device-width">'
    f'<title>{text(title)}</title><style>{_STYLE}{style}</style></head><body>\n'
    f'<h1>{text(title)}</h1>\n' + '\n'.join(parts) + f'{end}\n</body></html>\n'
  )


def text(value: object) -> str:
  """Returns plain text as HTML."""
  return html.escape(str(value))


def heading(value: str, level: int = 2) -> str:
  """Returns a heading of plain text."""
  return f'<h{level}>{text(value)}</h{level}>'


def paragraph(value: str) -> str:
  """Returns a paragraph of plain text."""
  return f'<p>{text(value)}</p>'


def table(rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
  """Returns a table of plain text; numbers are aligned to the right."""

  def cell(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    kind = ' class="number"' if is_number else ''
    shown = f'{value:,}' if is_number else value
    return f'<td{kind}>{text(shown)}</td>'

  lines = [f'<th>{text(name)}</th>' for name in head]
  body = [f'<tr>{"".join(map(cell, row))}</tr>' for row in rows]
  head_row = f'<tr>{"".join(lines)}</tr>' if lines else ''
  return f'<div class="scroll"><table>{head_row}{"".join(body)}</table></div>'


def preformatted(value: str) -> str:
  """Returns plain text as it is, in letters of one width."""
  return f'<pre>{text(value)}</pre>'


def folded(summary: str, parts: Iterable[str]) -> str:
  """Returns HTML that is shown once its summary, plain text, is clicked."""
  return (
    f'<details><summary>{text(summary)}</summary>{"".join(parts)}</details>'
  )


def picture(data: bytes, caption: str = '', *, wide: bool = False) -> str:
  """Returns a picture with a caption.

  Args:
    data: bytes of a PNG, JPEG, GIF or WebP.
    caption: plain text.
    wide: as wide as the page, at most.
  """
  return (
    f'<figure{" class=wide" if wide else ""}>'
    f'<img alt="{text(caption)}" src="{address(data)}">'
    f'<figcaption>{text(caption)}</figcaption></figure>'
  )


def address(data: bytes) -> str:
  """Returns a data URI of the bytes of a picture, see `picture`."""
  kinds = {b'\x89PNG': 'png', b'GIF8': 'gif', b'RIFF': 'webp'}
  kind = kinds.get(data[:4], 'jpeg')
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def histogram(
  groups: Mapping[str, Sequence[float]],
  title: str,
  *,
  bins: int = 24,
  logarithmic: bool = False,
) -> str:
  """Draws how often values occur, groups stacked on top of each other.

  Args:
    groups: up to two named groups of values; only finite ones count.
    title: what is counted, with its unit.
    bins: number of bars.
    logarithmic: bars of equal ratio; values of 0 or less go to the first.
  """
  arrays = {k: np.asarray(list(v), np.float64) for k, v in groups.items()}
  arrays = {k: v[np.isfinite(v)] for k, v in arrays.items()}
  every = np.concatenate([*arrays.values(), np.zeros(0)])
  if not every.size:
    return ''
  positive = every[every > 0]
  logarithmic = logarithmic and positive.size > 0
  if logarithmic:
    low, high = np.log10(positive.min()), np.log10(positive.max())
    arrays = {
      k: np.log10(np.maximum(v, positive.min())) for k, v in arrays.items()
    }
  else:
    low, high = every.min(), every.max()
  if high - low < 1e-9:
    low, high = low - 0.5, high + 0.5
  edges = np.linspace(low, high, bins + 1)
  counts = [np.histogram(v, edges)[0] for v in arrays.values()]
  top = max(1, int(np.sum(counts, axis=0).max()))
  ticks = [low + share * (high - low) for share in _TICKS]
  ticks = [10**tick for tick in ticks] if logarithmic else ticks
  legend = ', '.join(
    f'<span style="color:{colour}">&#9632;</span> {text(name)} ({len(values)})'
    for colour, (name, values) in zip(_COLOURS, arrays.items())
  )
  size = (_LEFT + _WIDTH + 20, _HEIGHT + 32)
  return (
    f'<h3>{text(title)}</h3><div>{legend}</div>'
    f'<svg viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" role="img">'
    f'{_bars(counts, top)}{_axis(ticks, top)}</svg>'
  )


def _bars(counts: Sequence[np.ndarray], top: int) -> str:
  """Returns SVG bars of the groups' counts; `top` reaches the full height."""
  bins = len(counts[0])
  step = _WIDTH / bins
  base = np.zeros(bins)
  shapes = []
  for colour, count in zip(_COLOURS, counts):
    for i, n in enumerate(count):
      if n:
        y = 10 + _HEIGHT * (1 - (base[i] + n) / top)
        shapes.append(
          f'<rect x="{_LEFT + i * step:.1f}" y="{y:.1f}" '
          f'width="{step - 1:.1f}" height="{_HEIGHT * n / top:.1f}" '
          f'fill="{colour}"><title>{n}</title></rect>'
        )
    base += count
  return ''.join(shapes)


def _axis(ticks: Sequence[float], top: int) -> str:
  """Returns an SVG axis with its ticks, and the count `top`."""
  labels = [
    f'<text x="{_LEFT + share * _WIDTH:.0f}" y="{_HEIGHT + 26}" '
    f'text-anchor="middle">{_short(tick)}</text>'
    for share, tick in zip(_TICKS, ticks, strict=True)
  ]
  line = f'<path d="M{_LEFT} {_HEIGHT + 10}h{_WIDTH}" stroke="currentColor"/>'
  return f'{"".join(labels)}<text x="0" y="16">{top}</text>{line}'


def _short(value: float) -> str:
  """Returns a number with three significant digits."""
  if value and (abs(value) < 0.01 or abs(value) >= 10_000):
    return f'{value:.0e}'
  return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'
