"""Progress of long work: a bar on a terminal, lines in a log otherwise."""

from collections.abc import Callable, Iterable, Iterator
import sys
import time
from typing import TypeVar

from absl import logging

T = TypeVar('T')
LOG_SECONDS = 10.0  # Between two lines of the log, at least.


def reporter(title: str, total: int, unit: str = '') -> Callable[[int], None]:
  """Returns a function to call with the number of items done so far."""
  if sys.stderr.isatty():
    import tqdm

    bar = tqdm.tqdm(desc=title, total=total, unit=f' {unit}')

    def advance(done: int) -> None:
      bar.update(done - bar.n)
      if done == total:
        bar.close()

    return advance
  started = shown = time.monotonic()

  def log(done: int) -> None:
    nonlocal shown
    now = time.monotonic()
    # Work shorter than one interval logs nothing.
    if now - shown >= LOG_SECONDS or (
      done == total and now - started >= LOG_SECONDS
    ):
      shown, rate = now, done / max(now - started, 1e-9)
      logging.info(
        '%s: %d of %d%s, %.3g a second, %.0f s left',
        title,
        done,
        total,
        f' {unit}s' if unit else '',
        rate,
        (total - done) / rate,
      )

  return log


def track(
  items: Iterable[T], total: int, title: str, unit: str = ''
) -> Iterator[T]:
  """Yields the items and reports how many the consumer has processed."""
  report = reporter(title, total, unit)
  for done, item in enumerate(items, 1):
    yield item
    report(done)
