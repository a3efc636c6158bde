"""Prepares videos with Apache Beam instead of with processes of one machine.

The function called per file and what it stages are the same, so the dataset
is, too. Workers see the source and `config.data.root` under the same paths as
the machine that starts the pipeline, as on a shared file system. Each file is
prepared in a limited process beside the Beam worker: one that crashes, hangs
or raises becomes a dead letter, staged with its reason, and the pipeline
continues.

Beam comes with `pip install '.[beam]'` and is imported only here.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import logging
from typing import Any

from vdm.preparation import prepare_file
from vdm.preparation import workers

# Files that one limited process prepares, one after the other: it takes longer
# to start than to prepare a short video.
_BATCH = 16


def run(
  function: Callable[[Any, Callable[[], None]], Any],
  tasks: Sequence[prepare_file.Task],
  *,
  options: Sequence[str],
  limits: workers.Limits,
) -> Iterator[tuple[int, Any]]:
  """Yields (number of the task, None) when all are staged.

  Args:
    function: `prepare_file.prepare`.
    tasks: the files.
    options: of the pipeline, as on a command line: '--runner=FnApiRunner'.
    limits: of each file.

  Raises:
    ImportError: Beam is not installed.
  """
  try:
    import apache_beam as beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise ImportError(
      "--runner needs Apache Beam: pip install 'apache-beam>=2.77,<2.78'."
    ) from error
  if tasks:
    batch = max(1, min(_BATCH, len(tasks) // 8))
    with beam.Pipeline(
      options=pipeline_options.PipelineOptions(list(options))
    ) as pipeline:
      outcomes = (
        pipeline
        | 'Tasks' >> beam.Create(list(tasks))
        | 'Spread' >> beam.Reshuffle()
        | 'Batch'
        >> beam.BatchElements(min_batch_size=batch, max_batch_size=batch)
        | 'Prepare'
        >> beam.FlatMap(
          functools.partial(_prepare, function=function, limits=limits)
        ).with_outputs('dead_letters', main='done')
      )
      _ = outcomes.dead_letters | 'Stage' >> beam.Map(_stage)
  for number in range(len(tasks)):
    yield number, None


def _prepare(
  tasks: Sequence[prepare_file.Task],
  *,
  function: Callable[[Any, Callable[[], None]], Any],
  limits: workers.Limits,
) -> Iterator[Any]:
  """Yields names of files, and dead letters: (task, failure)."""
  from apache_beam import metrics
  from apache_beam import pvalue

  def count(reason):
    metrics.Metrics.counter('prepare', reason).inc()

  for number, outcome in workers.run(function, tasks, workers=1, limits=limits):
    if isinstance(outcome, workers.Failure):
      count(outcome.reason)
      yield pvalue.TaggedOutput('dead_letters', (tasks[number], outcome))
    else:
      count('done')
      yield outcome


def _stage(dead_letter: tuple[prepare_file.Task, workers.Failure]) -> None:
  task, failure = dead_letter
  logging.warning('%s: %s', task.file.name, failure)
  prepare_file.fail(task, failure)
