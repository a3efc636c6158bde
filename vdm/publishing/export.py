"""Exports a run's model: weights, card and videos.

All of it is written and read back in a folder beside the one that was named,
`.NAME.partial`, and then moves there: what is in the way is an export until a
whole one replaces it.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import logging
from etils import epath
import numpy as np

from vdm import generate
from vdm import prompts
from vdm import trained
from vdm.common import buckets
from vdm.common import errors
from vdm.common import files
from vdm.common import hub
from vdm.common import trees
from vdm.config import cascade_rules
from vdm.config import image_model_rules
from vdm.evaluation import real_clips
from vdm.media import samples
from vdm.media import video_files
from vdm.models.image_unets import adapters
from vdm.models.image_unets import inflated
from vdm.publishing import export_files
from vdm.publishing import model_card
from vdm.publishing import run_facts
from vdm.trained import manifest

UPSCALE = 2  # Of the videos of single samples, which are small.


@dataclasses.dataclass(frozen=True)
class Options:
  """How a run is exported.

  Attributes:
    checkpoint: latest, best or a step.
    ema: width of the average; None for the run's.
    dtype: of the parameters in the files, one of `manifest.DTYPES`.
    branches: without the published image model, adapters beside the branches.
    samples: number of videos.
    sampler: values of `config.sample` in place of the run's.
    overwrite: replace an export that is there.
    name: of the model, for the card; '' for the folder's.
    repo: owner/name on the hub, for the card; '' for none.
    license_name: of the parameters, as the hub spells it.
    data_license: of the data.
    notes: Markdown for the card's section on limits.
  """

  checkpoint: str = 'latest'
  ema: float | None = None
  dtype: str = 'float32'
  branches: bool = False
  samples: int = 8
  sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  overwrite: bool = False
  name: str = ''
  repo: str = ''
  license_name: str = ''
  data_license: str = ''
  notes: str = ''


def write(
  workdir: epath.PathLike, out: epath.PathLike, options: Options
) -> list[str]:
  """Writes an export and returns the names of its files but `config.json`.

  Args:
    workdir: of the run, or an export, which may get another sampler.
    out: folder to write to.
    options: how.

  Raises:
    FileNotFoundError: there is no run, or no such checkpoint.
    FileExistsError: something is in the folder already.
    UsageError: an export would be written as it is; the sampler is not one of
      the model; what was written cannot be read.
  """
  out = epath.Path(out)
  model = trained.load(workdir, options.ema, options.checkpoint)
  if model.workdir is None and not options.sampler:
    raise errors.UsageError(
      f'{workdir} is an export already: copy it, give it another sampler (by '
      '--steps, --guidance and so on), or name the workdir of a run.'
    )
  if options.sampler:
    model = _sampled(model, options.sampler)
  if options.branches:
    _check_branches(model)
  if model.config.model.adapter_rank and not options.branches:
    model = _merged(model)
  # By the source that was read: on the hub a branch may move.
  settings = trained.load_autoencoder(model.source)[0]
  # Here, because it refuses what the model cannot be asked for.
  generator = generate.make_generator(
    model.config, model.stage, worse=model.worse
  )
  facts, numbers = run_facts.collect(model), run_facts.measured(model)
  whole = model
  if options.branches:
    model = trained.mapped(
      model, lambda x: {k: v for k, v in x.items() if k != inflated.GROUP}
    )
  rounded = export_files.rounded(model, options.dtype)
  export_files.check_room(out, options.overwrite)
  part = export_files.make_partial(out)
  export_files.write_parameters(part, model, options.dtype)
  logging.info('Making %d videos with the exported weights.', options.samples)
  _write_samples(
    part / export_files.SAMPLES,
    _with_image(rounded, whole) if options.branches else rounded,
    generator,
    options,
  )
  card = model_card.text(
    model,
    facts,
    numbers,
    name=options.name or options.repo.split('/')[-1] or out.name,
    dtype=options.dtype,
    samples=options.samples,
    where=_where(out, options.repo),
    license_name=options.license_name,
    data_license=options.data_license,
    notes=options.notes,
  )
  files.write_text(part / manifest.CARD, card)
  export_files.write_manifest(part, model, settings, options.dtype, facts)
  _check(part, rounded)
  names = export_files.replace(out, part)
  size = sum((out / x).stat().length for x in (*names, manifest.CONFIG))
  logging.info(
    'The export is in %s: %d files, %.2f MB.', out, len(names) + 1, size / 1e6
  )
  return names


def _sampled(model: trained.Model, changes: Mapping[str, Any]) -> trained.Model:
  """Returns a model whose sampler has other values; see `change_sampler`."""
  config = model.config.copy_and_resolve_references()
  generate.change_sampler(config.sample, changes)
  return model._replace(config=config)


def _merged(model: trained.Model) -> trained.Model:
  """Returns a model whose adapters are part of its image model."""
  config = model.config.copy_and_resolve_references()
  config.model.adapter_rank = 0
  alpha = config.model.adapter_alpha
  model = trained.mapped(model, lambda params: adapters.merge(params, alpha))
  worse = model.worse and model.worse._replace(config=config)
  return model._replace(config=config, worse=worse)


def _with_image(model: trained.Model, whole: trained.Model) -> trained.Model:
  """Returns branches with the image model, which is not exported."""
  image = {inflated.GROUP: whole.params[inflated.GROUP]}
  worse = model.worse
  if worse is not None:
    of_worse = {inflated.GROUP: whole.worse.params[inflated.GROUP]}
    worse = worse._replace(params=worse.params | of_worse)
  return model._replace(params=model.params | image, worse=worse)


def _check_branches(model: trained.Model) -> None:
  """Checks that a model has branches, and warns if they are not all of it.

  Raises:
    UsageError: it has no published image model.
  """
  config = model.config
  if not image_model_rules.is_published(config.model):
    raise errors.UsageError(
      f'{model.source} has no published image model: leave --branches out.'
    )
  if inflated.IMAGE not in image_model_rules.constant_patterns(config):
    logging.warning(
      'A stage of the run trains the image model, too, which --branches leaves '
      'out: they may fit what it has become, and not what it was.'
    )


def _where(out: epath.Path, repo: str) -> str:
  """Returns the source for the card's commands; no path of this machine."""
  if repo:
    return f'{hub.PREFIX}{repo}@main'
  if out.is_absolute() or buckets.is_remote(out) or '..' in out.parts:
    return 'THIS_FOLDER'
  return out.as_posix()


def _write_samples(
  folder: epath.Path,
  model: trained.Model,
  generator: generate.Generator,
  options: Options,
) -> None:
  """Makes videos of the seeds 0, 1, ... and writes each, and a grid of all."""
  seeds = np.arange(options.samples)
  clips, num = None, options.samples
  if cascade_rules.is_told(model.config.model):
    real = real_clips.RealClips(model.config.data, model.stage)
    clips = real_clips.held_out(model, real, num)
  asked = prompts.for_preview(model.config, model.reader, num, clips)
  cond = asked.cond
  videos = generator.samples(model.params, model.frozen, cond, seeds)
  names = [model.label_names[n] if n >= 0 else 'sample' for n in cond['label']]
  if asked.captions:
    told = zip(asked.captions, names)
    names = [samples.wrapped(caption) or name for caption, name in told]
  captions = [f'{name}\nseed {seed}' for name, seed in zip(names, seeds)]
  folder.mkdir(parents=True, exist_ok=True)
  grid = video_files.tile(
    video_files.enlarge(videos, 2), pad=4, captions=captions
  )
  gif = video_files.gif_bytes(grid, model.frame_rate)
  files.write_bytes(folder / 'grid.gif', gif)
  for video, seed in zip(videos, seeds):
    video_files.write_mp4(
      folder / f'seed_{seed:06d}.mp4',
      video,
      model.frame_rate,
      upscale=UPSCALE,
      repeats=video_files.repeats(len(video), model.frame_rate),
    )


def _check(folder: epath.Path, written: trained.Model) -> None:
  """Reads an export and compares it with what was to be written."""
  found = trained.load_trained(folder)
  pairs = [
    (written.params, found.params),
    (written.frozen['params'], found.frozen['params']),
  ]
  if written.worse is not None:
    pairs.append((written.worse.params, found.worse.params))
  for old, new in pairs:
    old, new = trees.flatten(old), trees.flatten(new)
    if old.keys() != new.keys() or not all(
      np.array_equal(x, new[name]) for name, x in old.items()
    ):
      raise errors.UsageError(
        f'{folder} does not come back as it was written: check the disk and '
        'export again.'
      )
