"""Plain-text tables: names aligned left, numbers aligned right."""

from collections.abc import Sequence


def lay_out(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows of cells as aligned lines; the first row is the header."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for first, *cells in rows:
    cells = [c.rjust(w) for c, w in zip(cells, widths[1:], strict=True)]
    lines.append('  '.join([first.ljust(widths[0]), *cells]).rstrip())
  return '\n'.join(lines)


def by_set(
  sets: dict[str, dict[str, float | str]],
  titles: dict[str, tuple[str, float]],
) -> str:
  """Returns a table, a line for each measure and a column for each set.

  Args:
    sets: {set: {measure: number, or words instead}}; '-' stands for a missing
      one.
    titles: {measure: (title, factor)}, in the order of the lines.
  """
  rows = [['', *sets]]
  for name, (title, factor) in titles.items():
    values = [values.get(name) for values in sets.values()]
    if any(value is not None for value in values):
      rows.append([title, *(_cell(value, factor) for value in values)])
  return lay_out(rows)


def _cell(value: float | str | None, factor: float) -> str:
  if value is None:
    return '-'
  return value if isinstance(value, str) else number(value * factor)


def number(value: float) -> str:
  """Returns a number with two decimals, or two digits if it is small."""
  small = 1e-6 < abs(value) < 0.095
  return f'{value:.2g}' if small else f'{value:.2f}'
