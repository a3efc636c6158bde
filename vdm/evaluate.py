"""Evaluates a run, a folder of videos or an autoencoder.

`run` compares a run's samples with real clips, `folders` any videos with real
ones. Both write metrics_card.json, the same as text, and pictures, and resume
where they were stopped. `autoencoder` encodes and decodes clips with a run's
autoencoder: PSNR, SSIM, flicker where nothing moves, statistics of the latents,
and the worst clips. These numbers are the ceiling of the run's video model.

  python -m vdm.evaluate run --workdir runs/ucf101 --num 2048
  python -m vdm.evaluate run --chain runs/small,runs/enlarge
  python -m vdm.evaluate folders --real videos/real --fake videos/fake
  python -m vdm.evaluate autoencoder --workdir runs/ucf101
"""

from collections.abc import Sequence
import os
import pathlib

from absl import app
from absl import flags

from vdm.common import console
from vdm.config import flag
from vdm.config import sampler_flags

_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  "A run's folder, an export's, or an export on the hub: "
  'hf://owner/name@revision.',
)
_CHAIN = flags.DEFINE_list(
  'chain',
  [],
  'run: models in place of --workdir, the first of which makes videos and each '
  'next enlarges them; compared with the clips of the last. --checkpoint, '
  '--ema and flags of the sampler are of the first.',
)
_OUT = flags.DEFINE_string(
  'out',
  None,
  'Where to write; by default <workdir>/evaluation/<command>, of a chain '
  '<last>/evaluation/chain, of an export '
  'outputs/NAME/evaluation/<command>, of folders evaluation.',
)
_SPLIT = flags.DEFINE_enum(
  'split', 'validation', ['train', 'validation'], 'Split of the real clips.'
)
_NUM = flags.DEFINE_integer(
  'num', 256, 'Number of clips, real and generated.', lower_bound=1
)
_SAMPLING = flags.DEFINE_enum(
  'sampling',
  'random',
  ['random', 'middle', 'first'],
  'Which real clips: videos and places drawn by --seed; the middle of such '
  'videos; the start of the first videos by name.',
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of --sampling.', lower_bound=0)
_TRAINING_CLIPS = flags.DEFINE_integer(
  'training_clips',
  4096,
  'run: training clips that are searched for the nearest of each sample.',
  lower_bound=0,
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'latest', 'run: latest, best (lowest small score) or a step.'
)
_EMA = flags.DEFINE_float(
  'ema', None, "run: width of the EMA; by default the run's."
)
_sampler = sampler_flags.define('run: ')
_AUTOGUIDE = flags.DEFINE_string(
  'autoguide',
  None,
  'run: a worse model to guide against in place of the null label: a step of '
  'the run, or another run or export in the same latents; none: by the label. '
  "By default the run's.",
)
_REAL = flags.DEFINE_string('real', None, 'folders: real videos or .npz files.')
_FAKE = flags.DEFINE_string('fake', None, 'folders: videos to evaluate.')
_FRAMES = flags.DEFINE_integer(
  'frames', 16, 'folders: frames per clip.', lower_bound=3
)
_RESOLUTION = flags.DEFINE_integer(
  'resolution', 64, 'folders: height of the clips, px.', lower_bound=8
)
_WIDTH = flags.DEFINE_integer(
  'width',
  0,
  'folders: width of the clips, px; 0: as high.',
  lower_bound=0,
)
_STRIDE = flags.DEFINE_integer(
  'stride', 1, 'folders: every stride-th frame is taken.', lower_bound=1
)
_FRAME_RATE = flags.DEFINE_float(
  'frame_rate',
  0.0,
  'folders: to which videos are converted first; 0 for none.',
  lower_bound=0.0,
)
_PER_VIDEO = flags.DEFINE_integer(
  'per_video', 1, 'folders: clips per real video, at most.', lower_bound=1
)
_FEATURES = flags.DEFINE_string(
  'features', None, 'Network of Frechet and kernel distances: i3d:PATH.'
)
_CLASSIFIER = flags.DEFINE_string(
  'classifier',
  None,
  'Network of the Inception Score: c3d:conv3d_deepnetA_ucf.npz,mean2.npz.',
)
_WEIGHTS = flags.DEFINE_enum(
  'weights',
  None,
  ['kinetics400', 'imagenet', 'other'],
  'Which weights PATH holds, if the file does not say.',
)
_RESIZE = flags.DEFINE_enum(
  'resize', 'torch', ['torch', 'tf1'], "Bilinear resize to the network's input."
)
_CROP = flags.DEFINE_enum(
  'crop',
  'squash',
  ['squash', 'center'],
  'How frames are made square for --features: all of them, wide ones squashed '
  'as by StyleGAN-V, or their middle.',
)
_EPSILON = flags.DEFINE_float(
  'epsilon', 1e-3, 'Of its batch norms; some ports use 1e-5.', lower_bound=0.0
)
_COVARIANCE = flags.DEFINE_enum(
  'covariance',
  'biased',
  ['biased', 'unbiased'],
  'Of the Frechet distance: over N (StyleGAN-V) or N - 1 (TF-GAN).',
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed', 'auto', ['auto', 'on', 'off'], 'run: join the other processes.'
)

# The first process measures while the others wait for it, which takes hours for
# thousands of clips: longer than any barrier of training.
_BARRIER_SECONDS = 24 * 3600.0

_command = []  # The command that was given.


def main(argv: Sequence[str]) -> None:
  del argv
  required = {'folders': ('real', 'fake')}.get(_command[0], ('workdir',))
  if _command[0] == 'run' and _CHAIN.value:
    if _WORKDIR.value or len(_CHAIN.value) < 2:
      flag.stop('Give --chain two models or more, and no --workdir.')
    required = ()
  for name in required:
    if not flags.FLAGS[name].value:
      flag.stop(f'--{name} is missing: name a folder.')
  cache = pathlib.Path.home() / '.cache' / 'vdm' / 'jax'
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  from vdm.multihost import initialize

  console.start()
  try:
    if _command[0] == 'run':
      initialize.initialize(_DISTRIBUTED.value)
    initialize.devices()
    COMMANDS[_command[0]]()
  except (OSError, ValueError) as error:
    flag.stop(f'vdm.evaluate: {error}')


def _run() -> None:
  """Writes the card of a run and prints it."""
  from vdm import trained
  from vdm.evaluation import card_text
  from vdm.evaluation import run_card
  from vdm.multihost import coordination

  coordination.set_limit(_BARRIER_SECONDS)
  sources = _CHAIN.value or [_WORKDIR.value]
  model = trained.output_folder(sources[-1])
  command = 'chain' if _CHAIN.value else 'run'
  out = _out(os.path.join(model, 'evaluation', command))
  card = run_card.evaluate(
    sources,
    out,
    run_card.Options(
      split=_SPLIT.value,
      training_clips=_TRAINING_CLIPS.value,
      ema=_EMA.value,
      checkpoint=_CHECKPOINT.value,
      autoguide=_AUTOGUIDE.value,
      sample=_sampler(),
      **_shared_options(),
    ),
  )
  if card is not None:
    print(card_text.text(card))
    print(f'Raw numbers, protocol: {out}/metrics_card.json; see nearest.mp4.')


def _folders() -> None:
  """Writes the card of a folder against another and prints it."""
  from vdm.common import buckets
  from vdm.common import errors
  from vdm.evaluation import card_text
  from vdm.evaluation import folder_card

  out = _out('evaluation')
  for name in ('real', 'fake'):
    for problem in buckets.local_problems(flags.FLAGS[name].value, f'--{name}'):
      raise errors.UsageError(problem)
  card = folder_card.evaluate(
    _REAL.value,
    _FAKE.value,
    out,
    folder_card.Options(
      frames=_FRAMES.value,
      resolution=_RESOLUTION.value,
      width=_WIDTH.value,
      stride=_STRIDE.value,
      frame_rate=_FRAME_RATE.value,
      per_video=_PER_VIDEO.value,
      **_shared_options(),
    ),
  )
  print(card_text.text(card))
  print(f'Raw numbers and protocol: {out}/metrics_card.json.')


def _out(default):
  """Returns the folder to write to."""
  from vdm.common import buckets

  out = buckets.given(_OUT.value or default, '--out')
  buckets.check_writable(out, '--out')
  return out


def _shared_options():
  """Returns the options that cards of runs and of folders share."""
  return dict(
    num=_NUM.value,
    sampling=_SAMPLING.value,
    seed=_SEED.value,
    network=_network(),
    classifier=_classifier(),
    unbiased=_COVARIANCE.value == 'unbiased',
  )


def _network():
  """Returns the network that --features names; None if it names none."""
  from absl import logging

  from vdm.evaluation import feature_extraction

  if not _FEATURES.value:
    logging.info('%s', feature_extraction.NO_NETWORK)
    return None
  kind, _, path = _FEATURES.value.partition(':')
  if kind != 'i3d' or not path:
    raise ValueError(f'--features={_FEATURES.value} is not i3d:PATH.')
  from vdm.models.features import i3d

  return i3d.load(
    path,
    _WEIGHTS.value,
    resize=_RESIZE.value,
    crop=_CROP.value,
    epsilon=_EPSILON.value,
  )


def _classifier():
  """Returns the network that --classifier names; None if it names none."""
  if not _CLASSIFIER.value:
    return None
  kind, _, paths = _CLASSIFIER.value.partition(':')
  if kind != 'c3d' or not paths:
    raise ValueError(f'--classifier={_CLASSIFIER.value} is not c3d:PATH,PATH.')
  from vdm.models.features import c3d

  return c3d.load(paths)


def _autoencoder() -> None:
  """Writes the report of a run's autoencoder and prints it."""
  from vdm import trained
  from vdm.common import sizes
  from vdm.data import builders
  from vdm.evaluation import reconstruction
  from vdm.preparation import datasets
  from vdm.training import sharding

  model = trained.output_folder(_WORKDIR.value)
  out = _out(f'{model}/evaluation/autoencoder')
  config = trained.load_config(_WORKDIR.value)
  source = builders.open_source(
    datasets.ensure(config.data), _SPLIT.value, config.data.split_list
  )
  last = config.stages[config.train.order[-1]]
  content = reconstruction.report(
    _WORKDIR.value,
    source,
    out,
    num=_NUM.value,
    size=sizes.of(last),
    stride=config.data.stride,
    mesh=sharding.make_mesh(),
  )
  print(reconstruction.table(content))
  print(f'\nEvery clip is in {out}/table.txt, the worst in worst_01.mp4.')


COMMANDS = {'run': _run, 'folders': _folders, 'autoencoder': _autoencoder}


def _parse(argv: Sequence[str]) -> list[str]:
  """Removes the command from the command line and parses the rest."""
  if flag.wants_help(argv):
    return flag.parse(argv)
  if len(argv) < 2 or argv[1] not in COMMANDS:
    flag.stop(
      f'Say what to evaluate, {", ".join(COMMANDS)}: python -m vdm.evaluate '
      'run --workdir RUN.'
    )
  _command[:] = argv[1:2]
  return flag.parse([argv[0], *argv[2:]])


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
