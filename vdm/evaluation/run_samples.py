"""The samples that a run is judged by: made once, in parts that are kept."""

import json
from typing import Any

from absl import logging
from etils import epath
import jax
import numpy as np

from vdm import generate
from vdm.common import progress
from vdm.evaluation import final_score
from vdm.evaluation import result_cache
from vdm.multihost import arrays
from vdm.multihost import coordination

PART = 64  # Samples that are kept together, about.


def key(run: generate.Run, autoencoder: str) -> dict[str, Any]:
  """Returns what a sample depends on, but for its seed and label.

  Args:
    run: the trained model.
    autoencoder: fingerprint of the run's.
  """
  sample = run.config.sample.to_dict()
  for name in ('num', 'final', 'batch'):
    del sample[name]
  return {
    'step': run.step,
    'params': result_cache.fingerprint(run.params),
    'autoencoder': autoencoder,
    'sample': sample,
    'frames': run.stage.frames,
    'resolution': run.stage.resolution,
    'labels': 'in turn',
  }


def make(
  run: generate.Run,
  generator: generate.Generator,
  key: dict[str, Any],
  num: int,
  *,
  workdir: epath.Path,
  folder: epath.Path,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns videos uint8 [n t h w 3] and labels, the same on every process.

  They are the run's last ones where those are just what is asked for, else
  what is kept of them, and new ones for the rest.

  Args:
    run: the trained model.
    generator: its functions.
    key: see `key`.
    num: how many.
    workdir: of the run.
    folder: where parts are kept.
  """
  config = run.config
  labels = generate.preview_labels(config.model.num_classes, num)
  shape = (num, run.stage.frames, *2 * (run.stage.resolution,), 3)
  videos = last(run, workdir, labels) if jax.process_index() == 0 else None
  if coordination.first_says('the samples', videos is not None):
    logging.info('The samples are those of %s.', workdir / 'final')
    return arrays.from_first('the samples', videos, shape), labels
  size = max(1, -(-PART // config.sample.batch)) * config.sample.batch
  seeds = config.sample.seed + np.arange(num)
  report = progress.reporter('Samples', num)
  parts = []
  for begin in range(0, num, size):
    rows = slice(begin, min(begin + size, num))

    def compute(rows=rows):
      videos = generator.samples(
        run.params, run.frozen, labels[rows], seeds[rows]
      )
      return None if jax.process_index() else {'videos': videos}

    part = result_cache.get(
      folder, {**key, 'seeds': seeds[rows].tolist()}, compute
    )
    parts.append(part and part['videos'])
    report(rows.stop)
  videos = np.concatenate(parts) if jax.process_index() == 0 else None
  return arrays.from_first('the samples', videos, shape), labels


def last(
  run: generate.Run, workdir: epath.Path, labels: np.ndarray
) -> np.ndarray | None:
  """Returns the run's last samples if they are of these labels, and made so."""
  folder, num = workdir / 'final', len(labels)
  try:
    step = int((folder / final_score.DONE).read_text())
    metrics = json.loads((folder / 'metrics.json').read_text())
    made = metrics['protocol']['sample']
    with (folder / 'samples.npz').open('rb') as file:
      saved = np.load(file, allow_pickle=False)
      videos, given = saved['videos'], saved['labels']
  except (OSError, ValueError, KeyError):
    return None
  asked = json.loads(json.dumps(run.config.sample.to_dict()))
  if step != run.step or made != asked or len(videos) < num:
    return None
  side = run.stage.resolution
  if videos.shape[1:] != (run.stage.frames, side, side, 3):
    return None
  return videos[:num] if (given[:num] == labels).all() else None
