"""Rules between the keys of a configuration.

Each function yields sentences, one per problem, that name keys and say what to
do. `check` has validated each key by itself before (see `schema`).
"""

from collections.abc import Iterator
import re

from ml_collections import ConfigDict

from vdm.common import buckets
from vdm.config import attention_rules
from vdm.config import autoencoder_rules
from vdm.config import cascade_rules
from vdm.config import condition_rules
from vdm.config import guidance_rules
from vdm.config import image_model_rules
from vdm.config import size_rules
from vdm.config import suggest
from vdm.config import token_rules

# The order in which stages of each objective come.
OBJECTIVES = ('autoencoder', 'diffusion', 'consistency', 'tokens')


def problems(config: ConfigDict) -> Iterator[str]:
  """Yields what is wrong, one sentence per problem."""
  yield from _data_problems(config.data)
  yield from _order_problems(config)
  yield from autoencoder_rules.problems(config)
  yield from image_model_rules.problems(config.model)
  yield from _model_problems(config.model)
  yield from attention_rules.problems(config.model)
  if config.model.time_patch > 1:
    yield from _patch_problems(config)
  yield from token_rules.problems(config)
  yield from cascade_rules.problems(config)
  yield from condition_rules.text_problems(config)
  yield from condition_rules.scalar_problems(config)
  yield from guidance_rules.problems(
    config.model, config.sample, config.sample.autoguide > 0
  )
  yield from guidance_rules.autoguide_problems(config)
  yield from _diffusion_problems(config.diffusion)
  yield from _sample_problems(config.sample, config.optim)
  yield from _score_problems(config.score)
  yield from _log_problems(config.log)
  for name in config.train.order:
    yield from _stage_problems(config, name)


def _data_problems(data: ConfigDict) -> Iterator[str]:
  paths = {name: data[name] for name in ('root', 'source', 'latents', 'texts')}
  for name, path in (
    paths | {'captions.manifest': data.captions.manifest}
  ).items():
    yield from buckets.local_problems(path, f'config.data.{name}')
  if data.screening.min_motion > data.screening.max_motion:
    yield 'config.data.screening.min_motion is above max_motion.'
  if 0 < data.clip_frames < data.min_frames:
    yield (
      f'config.data.clip_frames={data.clip_frames} is below '
      f'min_frames={data.min_frames}: no clip would be left.'
    )
  captions = data.captions
  for name in ('seconds', 'words'):
    least, most = captions[f'min_{name}'], captions[f'max_{name}']
    if 0 < most < least:
      yield (
        f'config.data.captions.max_{name}={most:g} is below min_{name}='
        f'{least:g}: raise it, or set it to 0 for any.'
      )
  if captions.manifest and not (captions.file and captions.caption):
    yield 'config.data.captions.file and caption name columns: give both.'
  if data.latents and data.fixed_clips:
    yield (
      'config.data.latents and fixed_clips: a few clips are encoded as fast '
      'as they are read, so leave one of them out.'
    )


def _order_problems(config: ConfigDict) -> Iterator[str]:
  order, stages = config.train.order, config.stages
  if not order:
    yield 'config.train.order is empty: name the stages to run, in order.'
  for name in order:
    if name not in stages:
      hint = suggest.hint(name, stages)
      yield f'config.train.order names {name!r}, which is not a stage{hint}'
  if len(set(order)) < len(order):
    yield 'config.train.order names a stage twice.'
  objectives = [stages[name].objective for name in order]
  kind, load = config.autoencoder.kind, config.autoencoder.load
  if kind == 'kl' and not load and objectives[:1] != ['autoencoder']:
    yield (
      'config.train.order starts with no autoencoder stage: add one, set '
      'config.autoencoder.load to a run that has one, or set '
      'config.autoencoder.kind to pca or identity.'
    )
  if kind == 'identity' and load:
    yield 'config.autoencoder.load is set, but kind=identity loads nothing.'
  if (kind != 'kl' or load) and 'autoencoder' in objectives:
    why = 'load' if kind == 'kl' else f'kind={kind}'
    yield (
      f'config.train.order has an autoencoder stage, which config.autoencoder.'
      f'{why} leaves nothing to train: drop it from the order.'
    )
  if objectives != sorted(objectives, key=OBJECTIVES.index):
    yield (
      'config.train.order has its stages in another order than '
      f'{", ".join(OBJECTIVES)}.'
    )
  if 'consistency' in objectives:
    yield from _consistency_problems(config, objectives)


def _consistency_problems(
  config: ConfigDict, objectives: list[str]
) -> Iterator[str]:
  prediction, scale = config.diffusion.prediction, config.consistency.guidance
  if 'diffusion' not in objectives and not config.train.init_from:
    yield (
      'config.train.order has a consistency stage and nothing that it could '
      'start from: put a diffusion stage before it, or set '
      'config.train.init_from to a run that has one.'
    )
  if prediction not in ('v', 'flow', 'edm'):
    yield (
      f'config.diffusion.prediction={prediction} gives no consistency model, '
      'which has to return a clean clip as it is: train with v, flow or edm.'
    )
  yield from condition_rules.guidance_problems(
    config.model, scale, 'config.consistency.guidance'
  )


def _model_problems(model: ConfigDict) -> Iterator[str]:
  levels = len(model.widths)
  if not levels:
    yield 'config.model.widths is empty: give the channels of each level.'
  if len(model.blocks) != levels:
    yield (
      f'config.model.blocks={model.blocks} and widths={model.widths} differ '
      'in length: both have one number per level.'
    )
  for key in ('attention', 'temporal', 'temporal_attention'):
    for level in model[f'{key}_levels']:
      if level >= levels:
        yield (
          f'config.model.{key}_levels names level {level}: with '
          f'{levels} widths the last is {levels - 1}.'
        )
  missing = set(model.temporal_attention_levels) - set(model.temporal_levels)
  if missing:
    yield (
      f'config.model.temporal_attention_levels names level {min(missing)}, '
      'which is not in temporal_levels.'
    )
  if model.joint_levels > levels:
    yield (
      f'config.model.joint_levels={model.joint_levels} of {levels} levels: '
      'it counts from the coarsest.'
    )
  if model.joint_levels and not model.joint_attention:
    yield (
      f'config.model.joint_levels={model.joint_levels} is of blocks that '
      'attend jointly, and joint_attention=False leaves none: set '
      'joint_attention=True, or joint_levels=0.'
    )
  if model.num_classes and model.label_dropout == 1:
    yield (
      'config.model.label_dropout=1 replaces every label, so that none is '
      'learnt: lower it, or set config.model.num_classes=0.'
    )


def _patch_problems(config: ConfigDict) -> Iterator[str]:
  """Yields why frames cannot be seen in patches of several."""
  size, kind = config.model.time_patch, config.model.kind
  key = f'config.model.time_patch={size}'
  if kind != 'unet':
    yield f'{key} is of kind=unet: leave it at 1 for kind={kind}.'
  frames = size * config.autoencoder.time_factor
  for name in config.train.order:
    stage = config.stages[name]
    if stage.objective == 'autoencoder':
      continue
    if stage.frames % frames:
      yield (
        f'config.stages.{name}.frames={stage.frames} is not divisible by '
        f'{frames}, the frames of a position with {key}: it has no images '
        'either.'
      )
    if stage.image_fraction:
      yield (
        f'config.stages.{name}.image_fraction={stage.image_fraction:g} takes '
        f'single frames, and with {key} a position has {frames}: set it to 0.'
      )


def few_steps_problems(
  stage: ConfigDict, sample: ConfigDict, worse: bool
) -> Iterator[str]:
  """Yields why a consistency model cannot be sampled as `sample` says.

  Args:
    stage: of the model.
    sample: `config.sample`, as it applies to the stage.
    worse: whether it is to be guided against a worse model.
  """
  scales = (sample.guidance, *guidance_rules.parse(sample.guidance_by).values())
  if stage.objective == 'consistency' and (worse or {*scales} != {1}):
    yield (
      'A consistency model cannot be guided, since its values are clips and no '
      'means of clips: sample with guidance 1, or distil another '
      'config.consistency.guidance.'
    )


def image_first_problems(
  config: ConfigDict, stage: ConfigDict
) -> Iterator[str]:
  """Yields why a stage's videos cannot begin with an image (Emu Video)."""
  if not _gives_frames(stage):
    yield (
      'config.sample.image_first=True makes videos from their first frame, '
      'which the network has never been given: train it with '
      'config.stages.<name>.frame_levels.first above 0, such as 0.7.'
    )
  stages = [config.stages[name] for name in config.train.order]
  if not any(
    s.objective == stage.objective and (s.frames == 1 or s.image_fraction)
    for s in stages
  ):
    yield (
      'config.sample.image_first=True makes the first frame as an image, and '
      'no stage trains on images: set config.stages.<name>.image_fraction '
      'above 0, such as 0.2.'
    )


def _gives_frames(stage: ConfigDict) -> bool:
  """Returns whether a stage trains on clips with some frames given."""
  return stage.frame_levels.context > 0 or stage.frame_levels.first > 0


def _diffusion_problems(diffusion: ConfigDict) -> Iterator[str]:
  if diffusion.logsnr_min >= diffusion.logsnr_max:
    yield 'config.diffusion.logsnr_min is not below logsnr_max.'
  if diffusion.sigma_data != 1 and 'edm' not in (
    diffusion.prediction,
    diffusion.weighting,
  ):
    yield (
      f'config.diffusion.sigma_data={diffusion.sigma_data:g} is of '
      'prediction=edm and weighting=edm: take one of them, or leave it at 1.'
    )
  if not diffusion.eval_levels:
    yield 'config.diffusion.eval_levels is empty: give at least one log-SNR.'


def _sample_problems(sample: ConfigDict, optim: ConfigDict) -> Iterator[str]:
  if sample.sigma_min >= sample.sigma_max:
    yield 'config.sample.sigma_min is not below sigma_max.'
  if sample.eta and sample.method != 'ddim':
    yield f'config.sample.eta is for ddim only, not for {sample.method}.'
  if sample.ema not in optim.ema:
    yield (
      f'config.sample.ema={sample.ema} is not the width of an average: '
      f'config.optim.ema is {optim.ema}.'
    )


def _score_problems(score: ConfigDict) -> Iterator[str]:
  if score.every and score.num < 4:
    yield f'config.score.num={score.num} is too few to compare: 4 at least.'


def _log_problems(log: ConfigDict) -> Iterator[str]:
  for name, project in log.items():
    if not re.fullmatch(r'[\w. -]{0,128}', project):
      yield (
        f'config.log.{name}={project!r} is not the name of a project: letters, '
        'digits, spaces and . _ - only, 128 at most.'
      )


def _stage_problems(config: ConfigDict, name: str) -> Iterator[str]:
  stage, data = config.stages[name], config.data
  prefix = f'config.stages.{name}'
  if stage.batch % stage.accumulate:
    yield (
      f'{prefix}.batch={stage.batch} is not divisible by '
      f'accumulate={stage.accumulate}.'
    )
  yield from size_rules.problems(config, name)
  stride = max(data.stride, data.max_stride)
  span = (stage.frames - 1) * stride + 1
  if data.name == 'synthetic_scenes' and span > data.scenes.frames:
    yield (
      f'{prefix}.frames={stage.frames} at stride {stride} spans {span} '
      f'frames: config.data.scenes.frames is {data.scenes.frames}.'
    )
  if (
    config.sample.image_first
    and stage.objective != 'autoencoder'
    and stage.frames > 1
  ):
    yield from image_first_problems(config, stage)
  if stage.objective in ('diffusion', 'tokens'):
    yield from guidance_rules.given_problems(stage, config.sample)
  if stage.warmup > stage.steps:
    yield f'{prefix}.warmup={stage.warmup} is above steps={stage.steps}.'
  if sum(stage.frame_levels.values()) <= 0:
    yield f'{prefix}.frame_levels are all 0: at least one must be positive.'
  if stage.images == 'first' and not stage.image_fraction:
    yield (
      f'{prefix}.images=first is of steps on single frames, and there are '
      'none: set image_fraction above 0.'
    )
  if stage.context_noise and not _gives_frames(stage):
    yield (
      f'{prefix}.context_noise={stage.context_noise:g} is of given frames, and '
      f'{prefix}.frame_levels.context=0 and first=0 give none: raise one.'
    )
