"""Numbers as text to read: names to the left, numbers to the right."""

from collections.abc import Sequence


def lay_out(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows of cells in columns; the first row is the header."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for first, *cells in rows:
    cells = [c.rjust(w) for c, w in zip(cells, widths[1:], strict=True)]
    lines.append('  '.join([first.ljust(widths[0]), *cells]).rstrip())
  return '\n'.join(lines)


def by_set(
  sets: dict[str, dict[str, float]], titles: dict[str, tuple[str, float]]
) -> str:
  """Returns a line a measure and a column a set, '-' where it has none.

  Args:
    sets: {set: {measure: number}}.
    titles: {measure: (what it is called, factor)}; in this order.
  """
  rows = [['', *sets]]
  for name, (title, factor) in titles.items():
    values = [values.get(name) for values in sets.values()]
    if any(value is not None for value in values):
      cells = [
        '-' if value is None else number(value * factor) for value in values
      ]
      rows.append([title, *cells])
  return lay_out(rows)


def number(value: float) -> str:
  """Returns a number with two decimals, or two digits where it is small."""
  small = 1e-6 < abs(value) < 0.095
  return f'{value:.2g}' if small else f'{value:.2f}'
