"""Line charts for a page: hover for values, click a name to hide its line.

A chart is drawn by `SCRIPT` of `chart_script`, in the size that the page has,
from numbers that are stored with it. However long a series is, it is thinned to
a few hundred points of which the smallest and the largest of each bin are kept:
a spike of one step stays visible.
"""

from collections.abc import Mapping, Sequence
import itertools
import json
import math
from typing import Any, NamedTuple

from etils.array_types import FloatArray, IntArray
import numpy as np

from vdm.media import page

BINS = 300  # Of a series; each keeps two points.

STYLE = """
.charts { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)) }
figure.chart { display: block; margin: 0; max-width: none; min-width: 0;
  position: relative }
.chart h3 { margin: .4rem 0 .2rem; display: flex;
  justify-content: space-between; gap: 1rem; overflow-wrap: anywhere }
.chart h3 label { font-weight: normal; font-size: .8rem; white-space: nowrap }
.chart svg { display: block; width: 100%; touch-action: pan-y }
.chart .legend { font-size: .78rem; line-height: 1.5 }
.chart .legend button { all: unset; cursor: pointer; margin-right: .8rem;
  overflow-wrap: anywhere }
.chart .legend button:focus-visible { outline: 1px solid }
.chart .legend button.off { opacity: .35; text-decoration: line-through }
.chart .tip { position: absolute; pointer-events: none; font-size: .78rem;
  background: Canvas; color: CanvasText; border: 1px solid var(--line);
  padding: .2rem .4rem; white-space: pre; z-index: 1;
  font-variant-numeric: tabular-nums }
.controls { margin: .6rem 0 }
.grid { stroke: var(--line); stroke-width: 1; fill: none }
"""


class Series(NamedTuple):
  """One line of a chart.

  Attributes:
    name: plain text.
    x: {axis: values}, rising, for every axis that the page offers.
    y: values; those that are not finite are marked and leave a gap.
    colour: number of the line's colour; the page repeats them after eight.
    dashed: whether the line is.
  """

  name: str
  x: Mapping[str, FloatArray[' n']]
  y: FloatArray[' n']
  colour: int = 0
  dashed: bool = False


def chart(
  title: str,
  series: Sequence[Series],
  *,
  logarithmic: bool = False,
  bins: int = BINS,
) -> str:
  """Returns a chart, to be put inside of `grid`.

  Args:
    title: plain text, with the unit.
    series: the lines.
    logarithmic: whether the vertical axis is at first; the page can change it.
    bins: that each series is thinned to.
  """
  content = {
    'log': logarithmic,
    'series': [_content(line, bins) for line in series if len(line.y)],
  }
  data = page.text(json.dumps(content, separators=(',', ':'), allow_nan=False))
  return (
    f'<figure class="chart" data-chart="{data}"><h3>{page.text(title)}</h3>'
    '<noscript>Charts take JavaScript.</noscript></figure>'
  )


def grid(charts: Sequence[str]) -> str:
  """Returns charts side by side, as many as fit into the page's width."""
  return f'<div class="charts">{"".join(charts)}</div>'


def axis_choice(axes: Mapping[str, str]) -> str:
  """Returns a menu for the horizontal axis of all charts.

  Args:
    axes: {axis of the series: its title}, the first one at first.
  """
  options = ''.join(
    f'<option value="{page.text(name)}">{page.text(title)}</option>'
    for name, title in axes.items()
  )
  return (
    '<p class="controls"><label>Over <select class="axis" autocomplete="off">'
    f'{options}</select></label></p>'
  )


def thin(y: FloatArray[' n'], bins: int = BINS) -> IntArray[' m']:
  """Returns the indices of the points to keep, rising.

  Of each of `bins` parts of equal length these are the smallest and the largest
  value and the first that is not finite; and the ends of the series.
  """
  y = np.asarray(y, np.float64)
  if len(y) <= 2 * bins:
    return np.arange(len(y))
  kept = {0, len(y) - 1}
  edges = np.linspace(0, len(y), bins + 1).astype(int)
  for start, stop in itertools.pairwise(edges):
    part = y[start:stop]
    finite = np.isfinite(part)
    if finite.any():
      kept.add(start + int(np.argmin(np.where(finite, part, np.inf))))
      kept.add(start + int(np.argmax(np.where(finite, part, -np.inf))))
    if not finite.all():
      kept.add(start + int(np.argmin(finite)))
  return np.array(sorted(kept))


def _content(line: Series, bins: int) -> dict[str, Any]:
  """Returns a series as JSON values, in five significant digits."""
  kept = thin(line.y, bins)
  return {
    'name': line.name,
    'colour': line.colour,
    'dashed': line.dashed,
    'x': {
      axis: [_short(v) for v in np.asarray(values)[kept]]
      for axis, values in line.x.items()
    },
    'y': [_short(v) for v in np.asarray(line.y)[kept]],
  }


def _short(value: float) -> float | int | None:
  value = float(value)
  if not math.isfinite(value):
    return None
  if value == int(value) and abs(value) < 1e9:
    return int(value)
  return float(f'{value:.5g}')
