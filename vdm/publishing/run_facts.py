"""What a run recorded about itself and its data, for the card of an export."""

from collections.abc import Iterable
import json
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vdm import evaluation
from vdm import trained
from vdm.common import sizes
from vdm.config import serialize
from vdm.evaluation import final_score
from vdm.evaluation import metrics_card
from vdm.evaluation import result_cache
from vdm.preparation import facts
from vdm.trained import run_folder
from vdm.training import stages
from vdm.training import writer

FINAL, CARD, AUTOENCODER = evaluation.NUMBERS[:3]


def collect(model: trained.Model) -> dict[str, Any]:
  """Returns the facts that go into `config.json`, as JSON values.

  Args:
    model: read from a run's folder, or from an export, which has them.
  """
  versions = {'exported_with': metrics_card.versions()}
  if model.workdir is None:
    return trained.load_facts(model.source) | versions
  meta = run_folder.read_meta(model.workdir, model.step)
  config = serialize.load(model.workdir / 'config.json')
  return {
    'config_hash': serialize.config_hash(config),
    'dataset': _dataset(model.config.data, meta.get('dataset', '')),
    'stages': _stages(model),
    **versions,
  }


def measured(model: trained.Model) -> dict[str, Any]:
  """Returns the numbers about this checkpoint: {FINAL, CARD, AUTOENCODER: ...}.

  A file that is missing, or is of another step or another way to sample, is
  left out.
  """
  found, folder = {}, model.workdir or trained.output_folder(model.source)
  for name in (FINAL, CARD, AUTOENCODER):
    try:
      content = json.loads((folder / name).read_text())
    except FileNotFoundError:
      continue
    except ValueError as error:
      logging.warning('%s/%s is left out: %s', folder, name, error)
      continue
    if name == AUTOENCODER or _is_of(model, name, content):
      found[name] = content
  return found


def _is_of(model: trained.Model, name: str, content: dict[str, Any]) -> bool:
  """Returns whether numbers are of a model's checkpoint and its own samples."""
  protocol = content['protocol']
  samples = content if name == FINAL else protocol['samples']
  found = (protocol if name == FINAL else samples)['sample']
  own = json.loads(json.dumps(final_score.settings(model.config.sample)))
  # How many there are is no matter; what they are told, the card says.
  keys = sorted({*own, *found} - {'num', 'final', 'batch', 'captions'})
  others = [key for key in keys if found.get(key) != own.get(key)]
  if name == CARD and ('autoguide' in samples) != (model.worse is not None):
    others.append('autoguide')
  # Another export may have had the same name, and so the same folder.
  if model.workdir is None and (
    samples.get('params') != result_cache.fingerprint(model.params)
  ):
    others.append('model')
  if samples['step'] == model.step and not others:
    return True
  logging.warning(
    '%s: %s is of step %d%s: the card leaves it out.',
    model.source,
    name,
    samples['step'],
    f' with another {", ".join(others)}' if others else '',
  )
  return False


def _dataset(data: ConfigDict, fingerprint: str) -> dict[str, Any]:
  """Returns what is known of the data set that a run was trained on."""
  found, problem = facts.describe(data, fingerprint)
  if problem:
    logging.warning('The card has no counts. %s', problem)
  return found


def _stages(model: trained.Model) -> list[dict[str, Any]]:
  """Returns the stages that led to a model, with the time of their steps."""
  try:
    rows = writer.read_rows(model.workdir)
  except ValueError as error:
    logging.warning('The card has no times: %s', error)
    rows = []
  found = []
  for span in stages.spans(model.config):
    steps = min(span.stop, model.step) - span.start
    if steps <= 0:
      break
    seconds = _seconds(rows, span.start, span.start + steps)
    found.append(
      {
        'name': span.name,
        'steps': steps,
        **{k: span.stage[k] for k in ('objective', 'frames')},
        **sizes.keys(sizes.of(span.stage)),
        'batch': span.stage.batch,
        **({} if seconds is None else {'step_seconds': round(seconds, 1)}),
      }
    )
  return found


def _seconds(
  rows: Iterable[dict[str, Any]], start: int, stop: int
) -> float | None:
  """Returns the time of the steps from `start` to `stop`; None if unknown.

  A row has the mean over the steps since the row before. A step that was made
  again after an interruption counts once.
  """
  paces = {
    row['step']: row['seconds_per_step']
    for row in rows
    if start < row['step'] <= stop and 'seconds_per_step' in row
  }
  total, last = 0.0, start
  for step in sorted(paces):
    total += (step - last) * paces[step]
    last = step
  return total if last == stop else None
