"""The card of an export: README.md, with the front matter of the hub.

It says what a run recorded, and marks what only a person knows: the licences.
"""

from collections.abc import Mapping
import json
from typing import Any

from vdm import trained
from vdm.common import sizes
from vdm.common import trees
from vdm.config import cascade_rules
from vdm.config import condition_rules
from vdm.config import guidance_rules
from vdm.config import image_model_rules
from vdm.config import ranges
from vdm.config import sampling
from vdm.evaluation import card_text
from vdm.evaluation import final_tables
from vdm.publishing import run_facts
from vdm.publishing import sampling_section
from vdm.trained import image_models
from vdm.trained import manifest

TO_FILL_IN = '**to be filled in**'
_FOLLOWS = {  # By what `condition_rules.guided_by` names.
  (): 'Nothing can be asked for: it follows neither a class nor words.',
  ('label',): 'It follows a class and no words.',
  ('text',): 'It follows words, as the captions of its data use them.',
  ('label', 'text'): 'It follows a class, or words as its captions use them.',
}


def text(
  model: trained.Model,
  facts: dict[str, Any],
  numbers: dict[str, Any],
  *,
  name: str,
  dtype: str,
  samples: int,
  where: str = 'THIS_FOLDER',
  license_name: str = '',
  data_license: str = '',
  notes: str = '',
) -> str:
  """Returns the card in Markdown.

  Args:
    model: what is exported.
    facts: see `run_facts.collect`.
    numbers: see `run_facts.measured`.
    name: of the export.
    dtype: of the parameters in the files.
    samples: how many videos are in samples/.
    where: source for commands that sample from the export.
    license_name: of the parameters, as the hub spells it; '': not known.
    data_license: of the data; '': not known.
    notes: Markdown for the section on limits.
  """
  parts = [
    _front_matter(model, license_name),
    f'# {name}',
    _summary(model, dtype),
    f'![Generated videos of the seeds 0 to {samples - 1}](samples/grid.gif)',
    f'The samples of seeds 0 to {samples - 1}, not selected, made by these '
    f'files{_made_of(model)} ({_sampler(model)}).',
    '## Sampling',
    sampling_section.text(model, where),
    '## Data',
    _data(model, facts['dataset'], data_license),
    '## Training',
    _training(facts['stages']),
    '## Numbers',
    _numbers(model, numbers),
    '## Limits',
    _limits(model, notes),
    '## Files',
    _files(model, dtype),
  ]
  return '\n\n'.join(parts) + '\n'


def _front_matter(model, license_name) -> str:
  tags = ['video-generation', 'diffusion', 'video', 'jax', 'flax']
  # The hub has no task for videos that are made from a label or from nothing.
  return '\n'.join(
    [
      '---',
      'library_name: vdm',
      f'license: {json.dumps(license_name)}'
      if license_name
      else 'license: other  # To be filled in.',
      'pipeline_tag: other',
      f'tags: {json.dumps(tags)}',
      '---',
    ]
  )


def _summary(model, dtype) -> str:
  stage, config = model.stage, model.config
  height, width = sizes.of(stage)
  classes = config.model.num_classes
  count = sum(x.size for x in trees.flatten(model.params).values())
  published = image_model_rules.is_published(config.model)
  alone = image_models.is_branches(model)
  kind = f'of {classes} classes' if classes else 'without labels'
  if model.reader is not None:
    kind += ', from captions'
  how = 'on top of a published image model' if published else 'from scratch'
  what = 'factorised space-time U-Net'
  if published:
    what = f'published image U-Net (`{config.model.kind}`) with temporal layers'
  kind_of_model, network = 'video diffusion model', 'denoiser'
  if stage.objective == 'tokens':
    kind_of_model, network = 'model of masked video tokens', 'network'
    what = 'transformer'
  if cascade_rules.is_told(config.model):
    kind += f', from {_small(model)}'
  words = (
    f'A {kind_of_model} trained {how} with `vdm`. It generates '
    f'clips {kind}: {stage.frames} frames of {width} x '
    f'{height} px at {model.frame_rate:g} frames a second '
    f'({stage.frames / model.frame_rate:.2f} s). The {network} is a {what}'
    f'{"; these files hold" if alone else " of"} {count:,} parameters'
  )
  if config.autoencoder.kind != 'identity':
    words += (
      f' in the latents of an autoencoder (`{config.autoencoder.kind}`, '
      f'{config.autoencoder.factor} px per latent, '
      f'{config.autoencoder.channels} channels)'
    )
  words += (
    f'. These files hold step {model.step}, the average of width '
    f'{config.sample.ema:g}, in {dtype}.'
  )
  if model.worse is not None:
    words += (
      f' They also hold step {model.worse.step}, which knows less: samples are '
      'guided away from what it makes (autoguidance, arXiv:2406.02507).'
    )
  if alone:
    words += (
      '\n\n**The image model is not in these files**: they hold what was '
      'trained beside it, and fit every image model of the description in '
      '`config.json` (`architecture`). It was trained on '
      f'`{_file(config.model.weights) or "an image model of no file"}`.'
    )
  if names := model.label_names[:classes]:
    words += f'\n\nClasses: {", ".join(names)}.'
  return words


def _file(path: str) -> str:
  """Returns the last part of a path, which may be of another system."""
  return path.replace('\\', '/').rpartition('/')[2]


def _small(model) -> str:
  """Returns what videos a network enlarges."""
  low, stage = model.config.model.low, model.stage
  size = tuple(x // low.space_factor for x in sizes.of(stage))
  return (
    f'smaller ones of {stage.frames // low.time_factor} frames of '
    f'{sizes.text(size)} px at {model.frame_rate / low.time_factor:g} frames a '
    'second'
  )


def _made_of(model) -> str:
  if cascade_rules.is_told(model.config.model):
    return ' of smaller versions of clips of the data set'
  return ''


def _sampler(model) -> str:
  options = model.config.sample
  guidance = guidance_rules.words(model.config.model, options)
  if model.worse is not None:
    # Of one scale, whether or not there are conditions.
    guidance = f'{options.guidance:g} against step {model.worse.step}'
  words = f'{sampling.words(options)}, guidance {guidance}'
  if model.stage.objective == 'tokens':
    words += f', temperature {options.temperature:g}'
  return words


def _data(model, dataset, data_license) -> str:
  lines = [f'- data set: `{dataset["name"]}`']
  if 'version' in dataset:
    lines[0] += (
      f', version {dataset["version"]}, stored at {_px(dataset)} '
      f'and {dataset["frame_rate"]:g} frames a second'
    )
    lines += [
      f'- {name}: {split["shots"]:,} shots, {split["frames"]:,} frames'
      for name, split in dataset['splits'].items()
    ]
  else:
    lines.append('- number of videos: not recorded in this export')
  lines += [
    f'- fingerprint: `{dataset["fingerprint"] or "not recorded"}`',
    f'- licence of the data: {data_license or TO_FILL_IN}',
  ]
  return '\n'.join(lines)


def _training(stages) -> str:
  lines = [
    '| stage | objective | steps | frames | px | batch | time of the steps |',
    '|---|---|---|---|---|---|---|',
  ]
  for stage in stages:
    seconds = stage.get('step_seconds')
    time = 'not recorded' if seconds is None else _duration(seconds)
    cells = [stage[key] for key in ('name', 'objective', 'steps', 'frames')]
    cells += [sizes.text(sizes.of(stage)), stage['batch']]
    lines.append(f'| {" | ".join(map(str, cells))} | {time} |')
  lines.append(
    '\nTimes are of training steps alone, without compiling, previews and '
    'measurements. The run does not record the hardware.'
  )
  return '\n'.join(lines)


def _px(part: Mapping[str, Any]) -> str:
  return f'{sizes.text(sizes.of(part))} px'


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (f'{hours} h ' if hours else '') + f'{minutes} min {seconds} s'


def _numbers(model, numbers) -> str:
  parts = []
  if (report := numbers.get(run_facts.AUTOENCODER)) is not None:
    protocol, mean = report['protocol'], next(iter(report['mean'].values()))
    values = ', '.join(
      f'{title} {mean[key]:.3g}'
      for key, title in (('psnr', 'PSNR (dB)'), ('ssim', 'SSIM'))
      if mean.get(key) is not None
    )
    clips = f'clips of {protocol["frames"]} frames'
    parts.append(
      'The autoencoder is the ceiling of the video model. On '
      f'{protocol["clips"]} '
      f'{clips if protocol["frames"] > 1 else "single frames"} of '
      f'{_px(protocol)} ({protocol["split"]}): {values}.'
    )
  if (final := numbers.get(run_facts.FINAL)) is not None:
    parts.append(_final(final))
  if (card := numbers.get(run_facts.CARD)) is not None:
    protocol = card['protocol']
    reference = protocol['reference']
    whose = 'the run, before any rounding of this export'
    if model.workdir is None:
      whose = 'an export of these parameters'
    parts.append(
      f'The metrics card of {whose}. Reference: '
      f'{card["counts"]["reference"]} clips of the split '
      f'`{reference["split"]}` of `{reference["dataset"]}` '
      f'(`{reference["fingerprint"][:12]}`), chosen by {reference["sampling"]} '
      f'with seed {reference["seed"]}; {reference["frames"]} frames of '
      f'{_px(reference)}, stride {reference["stride"]}. The floor '
      'is the column `real`, the ceiling of the video model the column '
      '`autoencoder`.\n\n'
      f'```\n{card_text.text(card).rstrip()}\n```\n\n'
      f'Protocol: `{json.dumps(protocol, sort_keys=True)}`'
    )
  if not numbers.keys() & {run_facts.FINAL, run_facts.CARD}:
    parts.append(
      'The samples of this checkpoint were not measured before it was '
      'exported; `python -m vdm.evaluate run` does that.'
    )
  return '\n\n'.join(parts)


def _final(final) -> str:
  """Returns the numbers of a run's final videos."""
  protocol = final['protocol']
  words = (
    f'{protocol["videos"]} samples of the run, not selected and before any '
    f'rounding of this export, beside clips of the split `{protocol["split"]}` '
    f'of `{protocol["dataset"]}` (`{protocol["dataset_fingerprint"][:12]}`); '
    f'{protocol["frames"]} frames of {_px(protocol)}, stride '
    f'{protocol["stride"]}. `real` is the floor, `reconstruction` the ceiling.'
  )
  found = [f'{title}\n{table}' for title, table in final_tables.of(final)]
  if not found:
    return ''
  block = '\n\n'.join(found)
  return f'{words}\n\n```\n{block}\n```'


def _limits(model, notes) -> str:
  stage = model.stage
  lines = [
    f'- It was trained on clips of {stage.frames} frames of '
    f'{_px(stage)}, and nothing says how it does elsewhere.',
    '- It knows what its data shows and no more; it has their errors and '
    'biases too.',
    f'- {_FOLLOWS[condition_rules.guided_by(model.config.model)]}',
    *(
      f'- `--{name}` takes {low:.3g} to {high:.3g} {ranges.UNITS[name]}.'
      for name, (low, high) in ranges.trained(model.config).items()
    ),
    '- The numbers above are of the given numbers of samples; look at the '
    'videos as well.',
  ]
  body = '\n'.join(lines)
  return f'{body}\n\n{notes.strip()}' if notes.strip() else body


def _files(model, dtype) -> str:
  names = [manifest.WEIGHTS, manifest.AUTOENCODER]
  if model.worse is not None:
    names.insert(1, manifest.EARLIER)
  *others, last = [f'`{name}`' for name in names]
  return (
    f'{", ".join(others)} and {last} hold arrays in {dtype} '
    "under '/'-joined names (kernels are HWIO: height, width, in, out). "
    '`config.json` is plain data: the configuration of the run, the statistics '
    'of the latents, and the size and sha256 of every file but this one.'
  )
