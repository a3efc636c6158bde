"""Generates the final videos of a run and measures them."""

from collections.abc import Callable
import json
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import IntArray
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm import prompts
from vdm.common import files
from vdm.common import sizes
from vdm.common import vocabulary
from vdm.config import sampling
from vdm.data import builders
from vdm.diffusion import cascade
from vdm.evaluation import enlargement_score
from vdm.evaluation import given_score
from vdm.evaluation import synthetic_score
from vdm.media import samples
from vdm.metrics import frame_metrics
from vdm.multihost import coordination

DONE = samples.FINAL  # Written last.
BESIDE = 8  # Real clips that are stored, at most.


def write(
  config: ConfigDict,
  stage: ConfigDict,
  params: dict[str, Any],
  frozen: dict[str, Any],
  source: builders.ClipSource,
  clips: Callable[..., dict[str, np.ndarray]],
  mesh: jax.sharding.Mesh,
  folder: epath.Path,
  step: int,
  poll: Callable[..., None],
  texts: vocabulary.Reader | None = None,
  worse: generate.Worse | None = None,
) -> None:
  """Writes `final/` once: samples.npz, the videos, real.npz and metrics.json.

  Samples are not selected: video i has the seed `sample.seed` + i and the label
  i mod classes, or that of training clip i if the training clips are fixed. Of
  a run that reads captions it is made for `sample.captions` in turn or, if
  there are none, for what is told of clip i. A network that enlarges makes it
  of the small version of clip i.

  Args:
    config: of the run.
    stage: config of the last stage.
    params: averaged parameters that generate the videos.
    frozen: the autoencoder, {'params', 'stats'}.
    source: data set of the clips that they are compared with.
    clips: (frames) -> 'video' and 'label' of these clips, with as many frames;
      0: with those of the stage; {} where no shot is that long.
    mesh: devices to split the work over.
    folder: where to write.
    step: global step of the parameters.
    poll: called after every batch of videos; may raise.
    texts: reads captions, if the run does.
    worse: what the videos are guided against, if anything.
  """
  num = config.sample.final
  how = _protocol(config, stage, source)
  done = _is_complete(folder, step, how)
  if coordination.first_says('the final videos', done):
    logging.info('The final videos are already in %s.', folder)
    return
  logging.info('Generating %d final videos in %s', num, folder)
  real = clips(0)
  asked = prompts.for_preview(config, texts, num, real)
  cond = asked.cond
  seeds = config.sample.seed + np.arange(num)
  make = generate.make_generator(config, stage, mesh, poll, worse)
  videos = make.samples(params, frozen, cond, seeds)
  labels = cond['label']
  reconstruction = make.reconstruct(frozen, real['video'])
  frames = given_score.rolled_frames(config, stage)
  given = given_score.make(
    config,
    stage,
    make,
    params,
    frozen,
    real,
    reconstruction,
    clips(frames) if frames else {},
  )
  if not coordination.is_first():
    return
  frame_rate = source.info['frame_rate'] / config.data.stride
  # While the videos are replaced, the folder is complete for no step.
  (folder / DONE).unlink(missing_ok=True)
  samples.write(
    folder,
    videos,
    labels,
    source.info['label_names'],
    seeds,
    frame_rate,
    generate.describe_samples(config, folder.parent, step, worse),
    prompts=asked.captions,
  )
  rows = _like(labels[:BESIDE], real['label'])
  if cascade.SMALL in real:  # Sample i is made of clip i.
    rows = list(range(min(BESIDE, num, len(real['video']))))
  files.write_npz(
    folder / samples.REAL,
    {
      'videos': real['video'][rows],
      'reconstructions': reconstruction[rows],
      'labels': np.asarray(real['label'][rows], np.int32),
    },
  )
  metrics = {'step': step, 'protocol': how}
  metrics |= synthetic_score.score(
    config.data,
    stage,
    videos,
    labels,
    real,
    reconstruction,
    asked.captions,
  )
  if given:
    metrics['given'] = given_score.measure(config, stage, given)
    given_score.write_videos(folder, given, frame_rate)
  if found := enlargement_score.measure(config, videos, real, reconstruction):
    metrics['enlargement'] = found
    enlargement_score.write_videos(
      folder / 'enlarged', config, videos, real, frame_rate
    )
  if config.data.fixed_clips:
    sets = {'samples': videos, 'reconstruction': reconstruction}
    metrics['fixed_clips_psnr'] = {
      name: frame_metrics.nearest_psnr(clips, real['video'])
      for name, clips in sets.items()
    }
    logging.info('PSNR, dB: %s', metrics['fixed_clips_psnr'])
  files.write_json(folder / 'metrics.json', metrics)
  files.write_text(folder / DONE, str(step))
  logging.info('The final videos are in %s; see grid.mp4.', folder)


def _like(labels: IntArray[' n'], real: IntArray[' m']) -> list[int]:
  """Returns for each label a clip that has it, else any, each once at most."""
  left, chosen = list(range(len(real))), []
  for label in np.asarray(labels).tolist()[: len(real)]:
    row = next((i for i in left if real[i] == label), left[0])
    chosen.append(row)
    left.remove(row)
  return chosen


def _is_complete(folder, step, protocol) -> bool:
  """Returns whether a folder is complete for this step and protocol."""
  if not (folder / DONE).exists():
    return False
  metrics = json.loads((folder / 'metrics.json').read_text())
  protocol = json.loads(json.dumps(protocol))  # Tuples become lists.
  done = (folder / DONE).read_text() == str(step)
  return done and metrics['protocol'] == protocol


def _protocol(config, stage, source) -> dict[str, Any]:
  """Returns what the numbers depend on."""
  return {
    'dataset': source.info['name'],
    'dataset_fingerprint': source.info['fingerprint'],
    'split': source.split,
    'videos': config.sample.final,
    'frames': stage.frames,
    'stride': config.data.stride,
    **sizes.keys(sizes.of(stage)),
    'sample': settings(config.sample),
  }


def settings(sample: ConfigDict) -> dict[str, Any]:
  """Returns what a protocol says of `config.sample`."""
  found = sample.to_dict()
  # So are protocols of before there were these keys.
  for name in ('captions', 'guidance_by', 'low_noise', 'autoguide'):
    if not found[name]:
      del found[name]
  for name in sampling.others(sample.method):
    del found[name]
  return found
