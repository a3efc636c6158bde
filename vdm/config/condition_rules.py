"""Rules for what a network is told: labels, text and numbers."""

from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from vdm.config import attention_rules
from vdm.config import image_model_rules


def guided_by(model: ConfigDict) -> tuple[str, ...]:
  """Returns the conditions that a network knows, and guidance acts on."""
  known = ('label',) if model.num_classes else ()
  return known + (('text',) if model.text.encoder != 'none' else ())


def guidance_scale(model: ConfigDict, scale: float) -> float:
  """Returns a scale of guidance; 1 for a network that is told nothing."""
  return scale if guided_by(model) else 1.0


def told_loss(model: ConfigDict) -> str:
  """Returns the name of the validation loss with the clips' own conditions.

  It is '' for a network without conditions.
  """
  names = {'label': 'val_loss_labelled', 'text': 'val_loss_captioned'}
  if guided_by(model):
    return names[guided_by(model)[-1]]
  return 'val_loss_told' if model.scalars else ''


def text_problems(config: ConfigDict) -> Iterator[str]:
  """Yields what is wrong with the keys of captions, one sentence each."""
  model, text = config.model, config.model.text
  if text.encoder == 'none':
    for name in ('sample.captions', 'data.texts'):
      group, key = name.split('.')
      if config[group][key]:
        yield (
          f'config.{name} is set, and config.model.text.encoder=none reads no '
          'captions: set it to learned or pretrained.'
        )
    return
  if text.dropout == 1:
    yield (
      'config.model.text.dropout=1 replaces every caption, so that none is '
      'learnt: lower it, or set config.model.text.encoder=none.'
    )
  if image_model_rules.is_published(model) and text.encoder == 'learned':
    yield (
      f'config.model.kind={model.kind} reads encoded captions and learns no '
      'words: set config.model.text.encoder=pretrained, or none.'
    )
  if model.kind == 'unet' and not attention_rules.reads_text(model):
    yield (
      'config.model.text: no block attends over space, and so none to words: '
      'name levels in config.model.attention_levels, or set joint_attention '
      'with the last level in temporal_levels.'
    )
  if text.encoder == 'learned' and config.data.texts:
    yield (
      'config.data.texts is of encoded captions, and config.model.text.encoder='
      'learned reads words: set it to pretrained, or leave data.texts out.'
    )
  if text.padded and (text.encoder == 'learned' or model.kind != 'conditional'):
    yield (
      'config.model.text.padded=True is of captions encoded for a published '
      'image model: set it to False, or config.model.kind=conditional and '
      'text.encoder=pretrained.'
    )
  if text.encoder == 'pretrained' and not (text.name and config.data.texts):
    yield (
      'config.model.text.encoder=pretrained needs config.model.text.name, the '
      'encoder, and config.data.texts, the folder of the captions that it has '
      'encoded.'
    )


def scalar_problems(config: ConfigDict) -> Iterator[str]:
  """Yields what is wrong with the keys of numbers, one sentence each."""
  model, data = config.model, config.data
  if 0 < data.max_stride < data.stride:
    yield (
      f'config.data.max_stride={data.max_stride} is below stride='
      f'{data.stride}: raise it, or set it to 0 for that stride alone.'
    )
  if not model.scalars:
    return
  if model.scalar_dropout in (0, 1):
    yield (
      f'config.model.scalar_dropout={model.scalar_dropout:g}: with 0 the '
      'network never learns to do without a number, with 1 it learns none; '
      'take 0.1.'
    )
  if 'frame_rate' in model.scalars and data.max_stride <= data.stride:
    yield (
      'config.model.scalars has frame_rate, and all clips have one: set '
      f'config.data.max_stride above stride={data.stride}, or leave it out.'
    )
  if 'motion' in model.scalars and data.latents:
    yield (
      'config.model.scalars has motion, which is measured on frames, and '
      'config.data.latents holds none: leave one of them out.'
    )


def guidance_problems(
  model: ConfigDict,
  scale: float | Mapping[str, float],
  key: str = 'config.sample.guidance',
) -> Iterator[str]:
  """Yields why a model cannot be guided by what it is told.

  Args:
    model: `config.model`.
    scale: of guidance, or {group: scale}; 1: none.
    key: that says so.
  """
  shares = {
    'label': (model.label_dropout, 'label_dropout', 'the null label'),
    'text': (model.text.dropout, 'text.dropout', 'captions that are not told'),
  }
  for group in guided_by(model):
    share, name, what = shares[group]
    own, prefix = scale, f'{key}='
    if isinstance(scale, Mapping):
      own, prefix = scale.get(group, 1), f'{key}={group}='
    if own != 1 and not share:
      yield (
        f'config.model.{name}=0 leaves {what} untrained, which {prefix}{own:g} '
        f'needs: train with {name}=0.1, or set {prefix}1.'
      )
