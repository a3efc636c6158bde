"""Exports a run's model: a folder to give away, and to sample from.

  python -m vdm.export --workdir runs/ucf101 --out exports/ucf101
  python -m vdm.sample --workdir exports/ucf101 --num 8

The folder holds weights as safetensors, a config.json of plain data with the
sha256 of every file, a card and videos; it names no folder of this machine.
--steps, --guidance and so on change how it is sampled by default, of an export
that there is already, too:

  python -m vdm.export --workdir exports/ucf101 --out exports/again --eta 1

With --push it also goes to the Hugging Face hub, with the token in HF_TOKEN.
"""

from collections.abc import Sequence
import pathlib

from absl import app
from absl import flags

from vdm.common import console
from vdm.common import errors
from vdm.config import flag
from vdm.config import sampler_flags

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'The folder of a run or an export, or one on the hub.'
)
_OUT = flags.DEFINE_string('out', None, 'Folder of the export.')
_OVERWRITE = flags.DEFINE_bool(
  'overwrite', False, 'Replace an export that is in the folder.'
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'latest', 'latest, a step, or best (see score.best).'
)
_EMA = flags.DEFINE_float(
  'ema', None, "Width of the average; by default the run's."
)
_DTYPE = flags.DEFINE_enum(
  'dtype',
  'float32',
  ['float32', 'bfloat16'],
  'Of the weights: the same videos to the bit, or half the size.',
)
_BRANCHES = flags.DEFINE_bool(
  'branches',
  False,
  'Of a published image model, only what was added to it: branches and '
  'adapters, to be put on any image model of the same description.',
)
_IMAGE = flags.DEFINE_bool(
  'image',
  False,
  'Of a published image model, that model alone, in the files and under the '
  'names that such models have: for config.model.weights, or diffusers.',
)
_SAMPLES = flags.DEFINE_integer(
  'samples', 8, 'How many videos to make.', lower_bound=1
)
_sampler = sampler_flags.define()
_NAME = flags.DEFINE_string(
  'name', '', "Of the model, in the card; by default the folder's."
)
_LICENSE = flags.DEFINE_string(
  'license', '', 'Of the weights, as the hub spells it, such as apache-2.0.'
)
_DATA_LICENSE = flags.DEFINE_string(
  'data_license', '', 'Of the data, in words.'
)
_NOTES = flags.DEFINE_string(
  'notes', '', "Markdown file for the card's section on limits."
)
_PUSH = flags.DEFINE_string(
  'push', '', 'Also upload to owner/name on the Hugging Face hub.'
)
_PUBLIC = flags.DEFINE_bool(
  'public', False, 'A repository that --push creates is public.'
)


def _check_image() -> None:
  """Stops if --image comes with what a file of weights alone has no use for."""
  card = (_SAMPLES, _NAME, _LICENSE, _DATA_LICENSE, _NOTES, _PUSH, _PUBLIC)
  unused = [
    *(x.name for x in (_BRANCHES, *card) if x.present),
    *_sampler(),
  ]
  if unused:
    flag.stop(
      '--image writes the image model alone, without videos, card or sampler: '
      f'leave out {", ".join(f"--{name}" for name in unused)}.'
    )


def main(argv: Sequence[str]) -> None:
  del argv
  for name, value in (('workdir', _WORKDIR.value), ('out', _OUT.value)):
    if not value:
      flag.stop(f'--{name} is missing: name a folder.')
  if _IMAGE.value:
    _check_image()
  if _PUBLIC.value and not _PUSH.value:
    flag.stop('--public is of a repository on the hub: add --push owner/name.')
  from vdm.multihost import initialize
  from vdm.publishing import export
  from vdm.publishing import image_model
  from vdm.publishing import upload

  console.start()
  try:
    if _PUSH.value:
      upload.check(_PUSH.value, _OUT.value)
    notes = pathlib.Path(_NOTES.value).read_text() if _NOTES.value else ''
    initialize.devices()
    if _IMAGE.value:
      image_model.write(
        _WORKDIR.value,
        _OUT.value,
        checkpoint=_CHECKPOINT.value,
        ema=_EMA.value,
        dtype=_DTYPE.value,
        overwrite=_OVERWRITE.value,
      )
      return
    names = export.write(
      _WORKDIR.value,
      _OUT.value,
      export.Options(
        checkpoint=_CHECKPOINT.value,
        ema=_EMA.value,
        dtype=_DTYPE.value,
        branches=_BRANCHES.value,
        samples=_SAMPLES.value,
        sampler=_sampler(),
        overwrite=_OVERWRITE.value,
        name=_NAME.value,
        repo=_PUSH.value,
        license_name=_LICENSE.value,
        data_license=_DATA_LICENSE.value,
        notes=notes,
      ),
    )
    if _PUSH.value:
      upload.push(_OUT.value, _PUSH.value, names, _PUBLIC.value)
  except (*errors.PATH_ERRORS, ValueError) as error:
    flag.stop(error)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
