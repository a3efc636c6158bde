"""The samples that a run is evaluated on: generated once, cached in parts."""

from collections.abc import Callable, Sequence
import json
from typing import Any
import zipfile

from absl import logging
from etils import epath
from etils.array_types import IntArray, ui8
import numpy as np

from vdm import generate
from vdm import prompts
from vdm import trained
from vdm.common import progress
from vdm.common import sizes
from vdm.config import cascade_rules
from vdm.evaluation import final_score
from vdm.evaluation import result_cache
from vdm.media import samples
from vdm.media import video_files
from vdm.multihost import arrays
from vdm.multihost import coordination

PART = 64  # Samples per cached part, about.
SHEET_VIDEOS = 16


def key(run: trained.Model) -> dict[str, Any]:
  """Returns what a sample depends on, except its seed and label."""
  sample = final_score.settings(run.config.sample)
  for name in ('num', 'final', 'batch'):
    del sample[name]
  sample.pop('captions', None)  # See `make`.
  told = cascade_rules.is_told(run.config.model)
  against, worse = {}, run.worse
  if worse is not None:
    against['autoguide'] = {
      'step': worse.step,
      'ema': worse.config.sample.ema,
      'params': result_cache.fingerprint(worse.params),
    }
  return {
    **against,
    'step': run.step,
    'params': result_cache.fingerprint(run.params),
    'autoencoder': run.fingerprint,
    'sample': sample,
    'frames': run.stage.frames,
    **sizes.keys(sizes.of(run.stage)),
    'labels': 'of held-out clips, enlarged' if told else 'in turn',
  }


def asked(
  run: trained.Model, num: int, held_out: Callable[[], dict[str, Any]]
) -> prompts.Prompts:
  """Returns what samples are made for, see `prompts.for_preview`.

  Args:
    run: the trained model.
    num: number of samples.
    held_out: called for `real_clips.held_out` where they are of such clips.
  """
  reads = run.reader is not None and not run.config.sample.captions
  shown = reads or cascade_rules.is_told(run.config.model)
  clips = held_out() if shown else None
  return prompts.for_preview(run.config, run.reader, num, clips)


def make(
  run: trained.Model,
  generator: generate.Generator,
  key: dict[str, Any],
  num: int,
  *,
  folder: epath.Path,
  asked: prompts.Prompts | None = None,
) -> tuple[ui8['n t h w 3'], IntArray[' n']]:
  """Returns videos and labels, the same on every process.

  They are the run's final videos if these match, else parts are read from the
  cache and the rest is generated.

  Args:
    run: the trained model.
    generator: its functions.
    key: see `key`.
    num: number of samples.
    folder: of the cache.
    asked: `num` of them; by default those of `prompts.for_preview`.
  """
  config = run.config
  if asked is None:
    asked = prompts.for_preview(config, run.reader, num)
  cond, labels = asked.cond, asked.cond['label']
  if asked.captions:
    key = {**key, 'captions': list(asked.captions)}
    if not cascade_rules.is_told(config.model):
      key['labels'] = 'none'
  shape = (num, run.stage.frames, *sizes.of(run.stage), 3)
  first = coordination.is_first()
  videos = None
  # These are guided against an average of the run's own, if any.
  if first and ('autoguide' in key) == (config.sample.autoguide > 0):
    videos = final_videos(run, labels, asked.captions)
  if coordination.first_says('the samples', videos is not None):
    logging.info('The samples are those of %s.', run.workdir / 'final')
    return arrays.from_first('the samples', videos, shape), labels
  seeds = config.sample.seed + np.arange(num)

  def compute(rows):
    return generator.samples(
      run.params,
      run.frozen,
      {name: x[rows] for name, x in cond.items()},
      seeds[rows],
    )

  videos = in_parts(
    compute, key, seeds, folder=folder, batch=config.sample.batch
  )
  return arrays.from_first('the samples', videos, shape), labels


def in_parts(
  compute: Callable[[slice], ui8['m t h w 3']],
  key: dict[str, Any],
  seeds: IntArray[' n'],
  *,
  folder: epath.Path,
  batch: int,
) -> ui8['n t h w 3'] | None:
  """Returns videos, from the cache or made; None on all but one process.

  Args:
    compute: of a range of the videos, makes them; on every process.
    key: what they depend on, but for the seeds.
    seeds: of the videos.
    folder: of the cache.
    batch: how many are made at once; parts hold multiples of it.
  """
  first, num = coordination.is_first(), len(seeds)
  size = max(1, -(-PART // batch)) * batch
  report = progress.reporter('Samples', num)
  parts = []
  for start in range(0, num, size):
    rows = slice(start, min(start + size, num))

    def make_part(rows=rows):
      videos = compute(rows)
      return {'videos': videos} if first else None

    part = result_cache.get(
      folder, {**key, 'seeds': seeds[rows].tolist()}, make_part
    )
    parts.append(part and part['videos'])
    report(rows.stop)
  return np.concatenate(parts) if first else None


def final_videos(
  run: trained.Model, labels: IntArray[' n'], captions: Sequence[str] = ()
) -> ui8['n t h w 3'] | None:
  """Returns the run's final videos; None if prompts or settings differ."""
  if run.workdir is None:
    return None
  folder, num = run.workdir / 'final', len(labels)
  try:
    step = int((folder / final_score.DONE).read_text())
    metrics = json.loads((folder / 'metrics.json').read_text())
    settings = metrics['protocol']['sample']
    with (folder / 'samples.npz').open('rb') as file:
      saved = np.load(file, allow_pickle=False)
      videos, classes = saved['videos'], saved['labels']
    record = json.loads((folder / samples.RECORD).read_text())
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None
  wanted = json.loads(json.dumps(final_score.settings(run.config.sample)))
  if record.get('captions', [])[:num] != list(captions):
    return None
  if step != run.step or settings != wanted or len(videos) < num:
    return None
  if videos.shape[1:] != (run.stage.frames, *sizes.of(run.stage), 3):
    return None
  return videos[:num] if (classes[:num] == labels).all() else None


def write_sheet(
  out: epath.Path,
  videos: ui8['n t h w 3'],
  labels: IntArray[' n'],
  label_names: Sequence[str],
  captions: Sequence[str] = (),
) -> None:
  """Writes samples.png, a contact sheet of the first samples."""
  told = [label_names[label] if label >= 0 else '' for label in labels]
  if captions:
    told = list(map(samples.wrapped, captions))
  titles = [f'sample {i}\n{x}' for i, x in enumerate(told[:SHEET_VIDEOS])]
  sheet = video_files.contact_sheet(videos[:SHEET_VIDEOS], titles, upscale=2)
  video_files.write_png(out / 'samples.png', sheet)
