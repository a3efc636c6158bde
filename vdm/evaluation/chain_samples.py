"""The samples that a chain of models is evaluated on, cached in parts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath
from etils.array_types import ui8
import jax
import numpy as np

from vdm import chain
from vdm import generate
from vdm import prompts
from vdm import trained
from vdm.common import sizes
from vdm.evaluation import real_clips
from vdm.evaluation import run_samples
from vdm.multihost import arrays


class Chain(NamedTuple):
  """Models one after the other.

  Attributes:
    first: the model that makes videos from nothing.
    links: what comes after it, see `chain`.
  """

  first: trained.Model
  links: list[chain.Link]

  @property
  def last(self) -> trained.Model:
    """The model whose videos are evaluated."""
    return self.links[-1].run


def load(
  sources: Sequence[epath.PathLike],
  ema: float | None,
  checkpoint: str,
  sample: dict[str, Any],
  autoguide: str | None = None,
) -> Chain:
  """Reads the models of a chain and checks that they fit.

  Args:
    sources: of the models, two or more.
    ema: width of the first one's average; None for its own.
    checkpoint: of the first one: latest, best or a step.
    sample: {key of config.sample: value} to change, of the first one.
    autoguide: what the first one is guided against, see `trained.load`.

  Raises:
    FileNotFoundError: there is no such run.
    ValueError: a model does not enlarge what the one before it makes, or the
      first makes other than the clips of the last are.
  """
  first = trained.load(sources[0], ema, checkpoint, autoguide=autoguide)
  generate.change_sampler(first.config.sample, sample)
  links = chain.plan(
    first,
    first.stage.frames,
    first.frame_rate,
    [trained.load(x) for x in sources[1:]],
  )
  last = links[-1]
  if last.task.frames != last.run.stage.frames:
    raise ValueError(
      f'--chain: {last.run.source} would make {last.task.frames} frames and '
      f'has clips of {last.run.stage.frames} to compare them with.'
    )
  return Chain(first, links)


def make(
  models: Chain, num: int, folder: epath.Path, mesh: jax.sharding.Mesh
) -> tuple[ui8['n t h w 3'], prompts.Prompts, dict[str, Any]]:
  """Returns videos, what they are made for, and the key of their cache.

  They are the same on every process. Labels are those of the last model's data
  set, by their names.

  Args:
    models: see `load`.
    num: number of videos.
    folder: of the cache.
    mesh: devices to split them over.
  """
  first, last = models.first, models.last

  def held_out():
    real = real_clips.RealClips(first.config.data, first.stage)
    return real_clips.held_out(first, real, num)

  asked = run_samples.asked(first, num, held_out)
  told = np.asarray(asked.cond['label'])
  seeds = first.config.sample.seed + np.arange(num)
  generators = chain.keeping(mesh)

  def compute(rows):
    videos = generators(first).samples(
      first.params,
      first.frozen,
      {name: x[rows] for name, x in asked.cond.items()},
      seeds[rows],
    )
    return chain.make(
      models.links,
      videos,
      told[rows],
      first.label_names,
      asked.captions[rows],
      seeds[rows],
      generators,
    )[0]

  key = {
    'chain': [
      run_samples.key(first),
      *(run_samples.key(link.run) for link in models.links),
    ],
  }
  if asked.captions:
    key['captions'] = list(asked.captions)
  if any(link.scalars for link in models.links):
    key['scalars'] = [link.scalars for link in models.links]
  videos = run_samples.in_parts(
    compute, key, seeds, folder=folder, batch=first.config.sample.batch
  )
  shape = (num, last.stage.frames, *sizes.of(last.stage), 3)
  videos = arrays.from_first('the samples', videos, shape)
  labels = chain.renamed(told, first.label_names, last.label_names)
  cond = asked.cond | {'label': np.asarray(labels, np.int32)}
  return videos, asked._replace(cond=cond), key
