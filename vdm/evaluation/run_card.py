"""Makes the metrics card of a run: samples once, measures, compares, shows.

Everything that takes long is kept: samples in parts, under all that they
depend on, in the folder that the card goes to; numbers of real clips, which
other runs on the same data set can use, under the data set's root. The same
command goes on where it was stopped.

Three sets of real clips play a part: the reference, that everything is held
against; as many others, of other videos, for the floor (given through the
autoencoder: the ceiling of the video model; and spoiled); and the training
clips, among which the nearest to each sample are looked for.
"""

import dataclasses
import functools
import itertools
import time
from typing import Any

from absl import logging
from etils import epath
import jax
import numpy as np

from vdm import generate
from vdm.common import progress
from vdm.data import builders
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.data import windowing
from vdm.evaluation import features
from vdm.evaluation import final_score
from vdm.evaluation import memorisation
from vdm.evaluation import metrics_card
from vdm.evaluation import result_cache
from vdm.evaluation import run_samples
from vdm.media import video_files
from vdm.metrics import frame_metrics
from vdm.metrics import suite
from vdm.models.autoencoders import files
from vdm.preparation import datasets
from vdm.training import sharding


@dataclasses.dataclass(frozen=True)
class Options:
  """How a run is evaluated.

  Attributes:
    num: samples, and real clips in the reference and for the floor.
    split: of the reference.
    sampling: which real clips, see `windows.sampled_order`.
    seed: of that choice.
    training_clips: that samples are compared with, at most; 0: not at all.
    ema: width of the average; None: the run's.
    checkpoint: latest, best or a step.
    sample: {key of config.sample: value} to change.
    features: `models.features.Features` of the network whose features distances
      are of; None: no such distances.
    classifier: the same of the network whose logits the Inception Score is of.
    unbiased: covariances over N - 1.
    statistics: folder for numbers of real clips; None: under the data's root.
  """

  num: int = 256
  split: str = 'validation'
  sampling: str = 'random'
  seed: int = 0
  training_clips: int = 4096
  ema: float | None = None
  checkpoint: str = 'latest'
  sample: dict[str, Any] = dataclasses.field(default_factory=dict)
  features: Any = None
  classifier: Any = None
  unbiased: bool = False
  statistics: str | None = None


def evaluate(workdir, out, options: Options) -> dict[str, Any] | None:
  """Writes the card of a run and returns it; None on all but one process.

  Args:
    workdir: of the run.
    out: folder for metrics_card.json, metrics_card.txt, pictures and what is
      kept.
    options: how.

  Raises:
    FileNotFoundError: there is no run, or nothing to sample from.
    ValueError: the clips are too short to have motion.
  """
  out = epath.Path(out)
  run = generate.load_run(workdir, options.ema, options.checkpoint)
  run.config.sample.update(options.sample)
  evaluation = _Evaluation(run, epath.Path(workdir), out, options)
  card = evaluation.card()
  if jax.process_index():
    return None
  return metrics_card.write(out, card)


class _Evaluation:
  """One run's sets of clips, and where they are kept."""

  def __init__(self, run, workdir, out, options):
    config, stage = run.config, run.stage
    self.run, self.out, self.options = run, out, options
    self.workdir = workdir
    self.stage, self.stride = stage, config.data.stride
    self.directory = datasets.ensure(config.data)
    self.mesh = sharding.make_mesh()
    self.make = generate.make_generator(config, stage, self.mesh)
    self.statistics = epath.Path(
      options.statistics or epath.Path(config.data.root) / 'statistics'
    )
    self.world = (
      final_score.world(config, stage)
      if final_score.is_synthetic(config)
      else None
    )
    self.straight = final_score.is_straight(config)
    self.splits, self.seconds = {}, {}
    self.autoencoder = files.load(workdir / 'autoencoder')[3]
    suite.check(np.zeros((1, stage.frames, 8, 8, 3), np.uint8))

  def card(self):
    """Measures every set, on all processes; see `evaluate`."""
    real_key, floor_key = self.choose()
    samples_key = run_samples.key(self.run, self.autoencoder)
    videos, labels = self.timed(
      'sampling',
      lambda: run_samples.make(
        self.run,
        self.make,
        samples_key,
        self.options.num,
        workdir=self.workdir,
        folder=self.out / 'kept',
      ),
    )
    first = jax.process_index() == 0
    sets = {
      'samples': self.known(
        self.out / 'kept',
        {**samples_key, 'num': self.options.num},
        lambda: (videos, np.arange(len(videos)), labels),
        'samples',
      ),
      'real': self.known(
        self.statistics, floor_key, lambda: self.real(floor_key), 'real clips'
      ),
      'autoencoder': self.known(
        self.statistics,
        {**floor_key, 'autoencoder': self.autoencoder},
        lambda: self.reconstructed(floor_key),
        'reconstructions',
      ),
    }
    for name, spoil in metrics_card.SPOILED.items():
      sets[name] = self.known(
        self.statistics,
        {**floor_key, 'spoiled': name},
        lambda spoil=spoil: self.spoiled(floor_key, spoil),
        f'{name} clips',
        with_features=False,
      )
    reference = self.known(
      self.statistics, real_key, lambda: self.real(real_key), 'reference'
    )
    quality = self.timed('reconstruction', lambda: self.quality(floor_key))
    if not first:
      return None
    began = time.monotonic()
    network = self.options.features
    card = metrics_card.make(
      reference,
      sets,
      features=features.metric(network) if network else '',
      unbiased=self.options.unbiased,
    )
    card['reconstruction'] = quality
    self.seconds['distances'] = time.monotonic() - began
    if self.options.training_clips:
      card['memorisation'] = self.timed(
        'memorisation',
        lambda: memorisation.compare(
          self.run,
          *self.clips('train'),
          videos,
          sets['samples'],
          reference,
          num=self.options.training_clips,
          out=self.out,
        ),
      )
    card['protocol'] = self.protocol(real_key, floor_key, samples_key)
    card['seconds'] = {k: round(v, 2) for k, v in self.seconds.items()}
    self.show(videos, labels)
    return card

  def timed(self, name, function):
    began = time.monotonic()
    result = function()
    seconds = time.monotonic() - began
    self.seconds[name] = self.seconds.get(name, 0.0) + seconds
    return result

  def clips(self, split):
    """Returns a split's source and the windows that it offers."""
    if split not in self.splits:
      source = builders.open_source(
        self.directory, split, self.run.config.data.split_list
      )
      spec = clip_spec.ClipSpec(
        frames=self.stage.frames,
        stride=self.stride,
        resolution=self.stage.resolution,
        max_bad=self.run.config.data.max_bad_records,
      )
      self.splits[split] = source, windowing.find_windows(source, spec)
    return self.splits[split]

  def choose(self):
    """Returns the keys of the reference and of the floor's clips."""
    num, split = self.options.num, self.options.split
    source, windows = self.clips(split)
    shots = len(windows)
    key = {
      'dataset': source.info['name'],
      'fingerprint': source.info['fingerprint'],
      'split': split,
      'sampling': self.options.sampling,
      'seed': self.options.seed,
      'clips': [0, num],
      'frames': self.stage.frames,
      'stride': self.stride,
      'resolution': self.stage.resolution,
      'suite': suite.VERSION,
    }
    if shots >= 2 * num:
      return key, {**key, 'clips': [num, 2 * num]}
    other = 'train' if split == 'validation' else 'validation'
    logging.info(
      '%s has %d videos, too few for %d clips and as many others: the floor is '
      'of %s clips.',
      split,
      shots,
      num,
      other,
    )
    return key, {**key, 'split': other}

  def real(self, key):
    """Reads the real clips of a key: videos, groups, labels."""
    source, windows = self.clips(key['split'])
    order = itertools.islice(
      windowing.sampled_order(windows, key['sampling'], key['seed']),
      *key['clips'],
    )
    clips, entries = [], []
    for shot, _, clip in eval_clips.read_clips(source, windows, order):
      clips.append(clip)
      entries.append(windows.entries[windows.bounds[shot]])
    names = np.asarray(source.index['shot'])[entries]
    groups = [f'{key["split"]}/{name}' for name in names]
    return np.stack(clips), groups, np.asarray(source.index['label'])[entries]

  def reconstructed(self, key):
    videos, groups, labels = self.real(key)
    return self.make.reconstruct(self.run.frozen, videos), groups, labels

  def spoiled(self, key, spoil):
    videos, groups, labels = self.real(key)
    return spoil(videos), groups, labels

  def known(self, folder, key, read, title, with_features=True):
    """Returns `card.Clips` of a set, from what is kept or measured now.

    Args:
      folder: where it is kept.
      key: what the clips depend on.
      read: () -> videos, groups, labels.
      title: of the set, for people.
      with_features: whether the networks' are wanted, too.
    """
    read = functools.cache(read)  # Once, if at all.
    networks = {}
    if with_features:
      networks = {
        'features': self.options.features,
        'logits': self.options.classifier,
      }

    def measure():
      videos, groups, labels = read()
      if jax.process_index():
        return None
      logging.info('Measuring %d %s.', len(videos), title)
      return metrics_card.pack(
        metrics_card.describe(
          videos,
          groups,
          labels,
          world=self.world,
          straight=self.straight,
          progress=progress.reporter(title, len(videos)),
        )
      )

    laws = {'world': self.world and list(self.world), 'straight': self.straight}
    arrays = self.timed(
      'measuring', lambda: result_cache.get(folder, {**key, **laws}, measure)
    )
    clips = None if arrays is None else metrics_card.unpack(arrays)
    for name, network in networks.items():
      if network is None:
        continue

      def extract(name=name, network=network):
        videos, _, _ = read()
        logging.info('%s: %s of %d %s.', network.name, name, len(videos), title)
        return {name: features.extract(network, videos)}

      own = {**key, 'features': network.protocol}
      arrays = self.timed(
        name, functools.partial(result_cache.get, folder, own, extract)
      )
      clips = clips and clips._replace(**arrays)
    return clips

  def quality(self, key):
    """Returns what the autoencoder does to the floor's clips."""

    def compute():
      videos, _, _ = self.real(key)
      again = self.make.reconstruct(self.run.frozen, videos)
      if jax.process_index():
        return None
      found = frame_metrics.compare(again, videos)
      # A clip without static pixels has no flicker.
      return {
        name: np.float64(v[np.isfinite(v)].mean())
        for name, v in found.items()
        if np.isfinite(v).any()
      }

    arrays = result_cache.get(
      self.statistics,
      {**key, 'autoencoder': self.autoencoder, 'quality': 1},
      compute,
    )
    return arrays and {name: float(value) for name, value in arrays.items()}

  def protocol(self, real_key, floor_key, samples_key):
    network = self.options.features
    return {
      'reference': real_key,
      'floor': {k: floor_key[k] for k in ('split', 'clips')},
      'samples': {**samples_key, 'num': self.options.num},
      'training_clips': self.options.training_clips,
      'classifier': self.options.classifier
      and self.options.classifier.protocol,
      'features': network
      and {
        **network.protocol,
        'covariance': 'unbiased' if self.options.unbiased else 'biased',
      },
      'devices': f'{jax.device_count()} {jax.devices()[0].device_kind}',
      'versions': metrics_card.versions(),
    }

  def show(self, videos, labels):
    """Writes a contact sheet of samples, as they come."""
    names = self.run.label_names
    shown = [
      f'sample {i}\n{names[label] if label >= 0 else ""}'
      for i, label in enumerate(labels[:16])
    ]
    video_files.write_png(
      self.out / 'samples.png',
      video_files.contact_sheet(videos[:16], shown, upscale=2),
    )
