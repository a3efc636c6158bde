"""Prepares datasets: python -m vdm.prepare COMMAND --config configs/ucf101.py.

`clips` decodes and screens the videos that config.data names, writes a TFDS
dataset of clips under config.data.root, and reports what was kept and what was
left out: in data_report.html for people, in manifest.jsonl for programs. After
an interruption the same command continues: files that are done are not prepared
again.

`captions` encodes the captions of that dataset with the pretrained text encoder
that config.model.text names, and the prompts of config.sample.captions, into
config.data.texts, which training then reads.

`latents` encodes that dataset with the autoencoder of --workdir into
config.data.latents, which training then reads in place of frames.
"""

import collections
from collections.abc import Sequence
import functools
import os

from absl import app
from absl import flags
from ml_collections import ConfigDict

from vdm.common import console
from vdm.common import errors
from vdm.common import sizes
from vdm.config import flag
from vdm.data import builders
from vdm.preparation import beam_runner
from vdm.preparation import data_report
from vdm.preparation import datasets
from vdm.preparation import video_dataset
from vdm.preparation import workers

_CONFIG = flag.define()
_ALLOW_MISSING = flags.DEFINE_bool(
  'allow_missing',
  False,
  'Build without the listed clips that are missing or do not decode.',
)
_RUNNER = flags.DEFINE_string(
  'runner',
  None,
  'clips: prepare videos with this Apache Beam runner, such as FnApiRunner or '
  'PortableRunner, instead of with processes of this machine.',
)
_BEAM_OPTIONS = flags.DEFINE_list(
  'beam_options',
  [],
  'clips: further options of the Beam pipeline, joined by commas, such as '
  '--job_endpoint=localhost:8099,--environment_type=LOOPBACK.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'latents: folder of the run whose autoencoder encodes.'
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed', 'auto', ['auto', 'on', 'off'], 'latents: join other processes.'
)


def main(argv: Sequence[str]) -> None:
  commands = {'clips': _clips, 'captions': _captions, 'latents': _latents}
  commands[argv[1]]()


def _captions() -> None:
  """Encodes the captions of a dataset."""
  from vdm.preparation import encode_captions

  console.start()
  try:
    plan = encode_captions.build(_CONFIG.value)
  except (
    builders.BuildError,
    builders.MissingDataset,
    errors.UsageError,
    *errors.PATH_ERRORS,
  ) as error:
    flag.stop(f'vdm.prepare: {error}')
  print(
    f'{plan["captions"]} captions in {_CONFIG.value.data.texts}\n'
    f'  encoder {plan["name"]} {plan["revision"]}, {plan["sha256"][:12]}; '
    f'{plan["length"]} tokens of {plan["features"]} channels at most\n'
    f'  fingerprint {plan["fingerprint"]}'
  )


def _latents() -> None:
  """Encodes a dataset; imports the jax side, which `clips` does not need."""
  if not _WORKDIR.value:
    flag.stop(
      '--workdir is missing: name the folder of the run whose autoencoder '
      'encodes.'
    )
  from vdm.multihost import initialize
  from vdm.training import cache_latents

  console.start()
  try:
    initialize.initialize(_DISTRIBUTED.value)
    initialize.devices()
    plan = cache_latents.build(_CONFIG.value, _WORKDIR.value)
  except (errors.UsageError, *errors.PATH_ERRORS) as error:
    flag.stop(f'vdm.prepare: {error}')
  print(
    f'Latents of {plan["frames"]} frames ({plan["unreadable"]} unreadable) in '
    f'{_CONFIG.value.data.latents}\n'
    f'  autoencoder {plan["autoencoder"][:12]}, data set '
    f'{plan["dataset"]["fingerprint"][:12]}, {plan["split"]}; '
    f'{"x".join(map(str, plan["shape"]))} of {sizes.text(sizes.of(plan))} px'
    f'{", mirrored, too" if plan["mirrored"] else ""}\n'
    f'  fingerprint {plan["fingerprint"]}'
  )


def _clips() -> None:
  data = _CONFIG.value.data
  try:
    directory = datasets.build(
      data, allow_missing=_ALLOW_MISSING.value, runner=_runner(data.limits)
    )
  except (
    builders.BuildError,
    builders.MissingDataset,
    ImportError,
    OSError,
    ValueError,
  ) as error:
    flag.stop(f'vdm.prepare: {error}')
  print(_summary(directory))


def _runner(limits: ConfigDict) -> workers.Runner | None:
  """Returns what prepares the videos; None: processes of this machine."""
  if not _RUNNER.value:
    return None
  return functools.partial(
    beam_runner.run,
    options=[f'--runner={_RUNNER.value}', *_BEAM_OPTIONS.value],
    limits=video_dataset.worker_limits(limits),
  )


def _summary(directory: str) -> str:
  """Returns what the dataset contains, a line each, for people."""
  info = builders.read_info(directory)
  stored = [entry.stat().st_size for entry in os.scandir(directory)]
  seconds = info['frames'] / info['frame_rate']
  lines = [
    f'{info["name"]} {info["version"]} in {directory}',
    f'  {info["shots"]} shots, {info["records"]} records, {info["frames"]}'
    f' frames of {sizes.text(sizes.of(info))} px at {info["frame_rate"]:g}/s,'
    f' {seconds / 3600:.3g} hours, {sum(stored) / 1e6:.1f} MB',
    f'  splits: {", ".join(info["splits"])}; {info["num_classes"]} classes',
    f'  fingerprint {info["fingerprint"]}',
  ]
  reasons = collections.Counter(
    skipped['reason'] for skipped in builders.read_skipped(directory)
  )
  if reasons:
    counts = ', '.join(f'{n} {reason}' for reason, n in reasons.most_common())
    lines.append(
      f'  skipped {reasons.total()} files: {counts}; each is listed in'
      f' {os.path.join(directory, builders.SKIPPED_FILE)}'
    )
  report = os.path.join(directory, data_report.REPORT_FILE)
  if os.path.exists(report):
    lines.append(f'  report: {report}')
  return '\n'.join(lines)


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses the command line; returns the program's name and the command."""
  if flag.wants_help(argv):
    return flag.parse(argv)
  if len(argv) < 2 or argv[1] not in ('clips', 'captions', 'latents'):
    flag.stop(
      'Say what to prepare, clips, captions or latents: python -m vdm.prepare '
      'clips --config CONFIG.'
    )
  return [*flag.parse([argv[0], *argv[2:]]), argv[1]]


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
