"""What videos are asked to show: by a person, by a configuration, by clips."""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict
import numpy as np

from vdm.common import vocabulary
from vdm.config import condition_rules
from vdm.config import guidance_rules
from vdm.config import ranges
from vdm.config import suggest
from vdm.diffusion import cascade
from vdm.diffusion import conditions
from vdm.preparation import text_encoder

# What tells each group of conditions.
_FLAGS = {
  'frame_rate': '--frame_rate',
  'motion': '--motion',
  'given': '--given',
  'label': '--label',
  'text': '--caption',
}


class Prompts(NamedTuple):
  """What videos are asked to show.

  Attributes:
    cond: their conditions, see `conditions`.
    captions: one each; () where no captions are read.
  """

  cond: dict[str, np.ndarray]
  captions: Sequence[str] = ()


def make(
  reader: vocabulary.Reader | None,
  labels: Sequence[int],
  captions: Sequence[str] = (),
) -> Prompts:
  """Returns a prompt for each label, with the captions in turn.

  Args:
    reader: of captions, if the network reads any.
    labels: classes; -1 for none.
    captions: '' and () tell nothing.
  """
  cond = {'label': np.asarray(labels, np.int32)}
  if reader is None:
    return Prompts(cond)
  captions = captions or ('',)
  told = [str(captions[i % len(captions)]) for i in range(len(labels))]
  return Prompts(cond | vocabulary.read_all(reader, told), told)


def configured(
  sample: ConfigDict, reader: vocabulary.Reader | None, num: int
) -> Prompts | None:
  """Returns `num` prompts of `sample.captions`; None if there are none.

  Args:
    sample: `config.sample`.
    reader: of captions, if the network reads any.
    num: number of videos.
  """
  if reader is None or not sample.captions:
    return None
  return make(reader, [-1] * num, sample.captions)


def for_preview(
  config: ConfigDict,
  reader: vocabulary.Reader | None,
  num: int,
  clips: Mapping[str, np.ndarray] | None = None,
) -> Prompts:
  """Returns prompts for `num` videos that show what a network can do.

  Labels come in turn, and all are null (-1) without classes. A network that
  reads captions gets `sample.captions` in turn; if there are none, what is
  told of `clips`, or nothing without clips. Where the training clips are fixed,
  labels are those of `clips`, too. Clips that come with smaller versions are
  to be made of these: all is as it is told of `clips`.

  Args:
    config: the run's.
    reader: of captions, if the network reads any.
    num: number of videos.
    clips: of `eval_clips.load_clips`.
  """
  if (found := configured(config.sample, reader, num)) is not None:
    return found
  if clips is not None and (
    reader is not None or config.data.fixed_clips or cascade.SMALL in clips
  ):
    rows = np.arange(num) % len(clips['label'])
    cond = {name: x[rows] for name, x in conditions.of(clips).items()}
    captions = () if reader is None else clips['caption'][rows].tolist()
    return Prompts(cond, captions)
  classes = config.model.num_classes
  return make(reader, np.arange(num) % classes if classes else np.full(num, -1))


def moved(
  reader: vocabulary.Reader | None, folder: str
) -> text_encoder.Encoder:
  """Returns the pretrained encoder of a model, read from another folder.

  Args:
    reader: the model's.
    folder: of the same encoder, which is checked when it is loaded.

  Raises:
    ValueError: the model has no pretrained encoder.
  """
  if not isinstance(reader, text_encoder.Encoder):
    raise ValueError(
      'The run reads no captions by a pretrained encoder: leave --text_encoder '
      'out.'
    )
  return dataclasses.replace(reader, name=folder, revision='')


def choose_captions(
  run: Any, caption: str | None, file: str | None = None
) -> Sequence[str]:
  """Returns the captions that a person gives; () for none.

  Args:
    run: a `trained.Model`.
    caption: one for all videos.
    file: of a caption a line; empty lines are left out.

  Raises:
    OSError: the file cannot be read.
    ValueError: the run reads no captions, or does not know a word.
  """
  if caption is None and file is None:
    return ()
  given = '--caption' if file is None else '--captions'
  if run.reader is None:
    raise ValueError(f'The run reads no captions: leave {given} out.')
  if caption is not None and file is not None:
    raise ValueError('--caption and --captions are both given: give one.')
  captions = [caption]
  if file is not None:
    try:
      lines = epath.Path(file).read_text().splitlines()
    except UnicodeDecodeError as error:
      raise ValueError(f'--captions={file} is no text file.') from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
      raise ValueError(f'--captions={file} has no line with a caption.')
  for one in captions:
    run.reader.check(one)
  return captions


def choose_labels(
  num_classes: int, label_names: list[str], label: str | None, num: int
) -> Sequence[int]:
  """Returns the class of each video.

  Raises:
    ValueError: the run has no such class.
  """
  if label is None:
    return [i % num_classes if num_classes else -1 for i in range(num)]
  names = label_names[:num_classes]
  if label in names:
    return [names.index(label)] * num
  if label.isdigit() and int(label) < num_classes:
    return [int(label)] * num
  if not num_classes:
    raise ValueError('The run knows no classes: leave --label out.')
  if (near := suggest.nearest(label, names)) is not None:
    raise ValueError(f'The run has no class {label!r}: did you mean {near!r}?')
  raise ValueError(
    f'The run has no class {label!r}{suggest.hint("", names)} Numbers are 0 to '
    f'{num_classes - 1}.'
  )


def choose_scalars(
  config: ConfigDict, **asked: float | None
) -> dict[str, float]:
  """Returns the numbers that videos are told, by name.

  Args:
    config: the run's.
    **asked: by name; None: they are not told it.

  Raises:
    ValueError: the run was not trained with them.
  """
  found = {name: x for name, x in asked.items() if x is not None}
  for name, value in found.items():
    if problem := ranges.problem(config, name, value):
      raise ValueError(problem)
  return found


def told_besides(
  config: ConfigDict, scalars: Collection[str], given: bool, windows: int
) -> set[str]:
  """Returns the groups of conditions besides labels and captions that are told.

  Args:
    config: the run's.
    scalars: names of the numbers that videos are told.
    given: whether frames are given.
    windows: of each video; each holds frames of the one before it.
  """
  told = {*scalars, *{'frame_rate'}.intersection(config.model.scalars)}
  return told | ({'given'} if given or windows > 1 else set())


def choose_guidance(
  config: ConfigDict,
  prompts: Prompts,
  asked: float | str | None,
  has_worse: bool,
  others: Collection[str] = (),
) -> float | str | None:
  """Returns the guidance, see `guidance_rules.read`; None: the run's.

  Args:
    config: of the run.
    prompts: of the videos.
    asked: guidance that is asked for, if any.
    has_worse: it is against a worse model, which needs no prompts.
    others: groups of conditions besides those of prompts that are told.

  Raises:
    ValueError: there is nothing to guide by, or it is no guidance.
  """
  scale = None if asked is None else guidance_rules.read(asked)
  if has_worse:
    return asked
  known = condition_rules.guided_by(config.model)
  by_groups = guidance_rules.parse(config.sample.guidance_by)
  if isinstance(scale, dict):
    by_groups |= scale
  elif scale is not None:
    by_groups = {}
  if asked is not None and not known and not by_groups:
    raise ValueError(
      'The run knows no classes and reads no captions: leave --guidance out.'
    )
  told = {*others}
  if max(prompts.cond['label']) >= 0:
    told.add('label')
  if any(prompts.captions):
    told.add('text')
  if by_groups:
    for name in scale if isinstance(scale, dict) else ():
      if scale[name] != 1 and name not in told:
        raise ValueError(
          f'--guidance names {name}, and the videos are told none: give '
          f'{_FLAGS[name]}, or leave {name} out.'
        )
    # What is not told has nothing to be guided by.
    untold = {name for name in (*known, *by_groups) if name not in told}
    return guidance_rules.show(by_groups | dict.fromkeys(untold, 1.0))
  if known and not told.intersection(known):
    if scale not in (None, 1):
      raise ValueError(
        f'Videos of nothing in particular have nothing to be guided by: give '
        f'{" or ".join(_FLAGS[name] for name in known)}, or leave --guidance '
        'out.'
      )
    return 1.0
  return asked
