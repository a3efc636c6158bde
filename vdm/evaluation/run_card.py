"""Makes the metrics card of a run: generates, measures and compares clips.

Everything slow is cached: samples in parts, under all that they depend on, in
the folder of the card; measurements of real clips, which other runs on the same
data set share, under the root of the data sets. The same command resumes.

There are three sets of real clips: the reference, with which all others are
compared; as many clips of other videos for the floor, which are also given
through the autoencoder (the ceiling of the video model) and corrupted; and the
training clips, among which the nearest of each sample is searched.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import time
from typing import Any

from etils import epath
from etils.array_types import IntArray, ui8
import jax
import numpy as np

from vdm import generate
from vdm import prompts
from vdm import trained
from vdm.common import sizes
from vdm.config import cascade_rules
from vdm.evaluation import chain_samples
from vdm.evaluation import clip_set
from vdm.evaluation import enlargement_score
from vdm.evaluation import feature_extraction
from vdm.evaluation import memorisation
from vdm.evaluation import metrics_card
from vdm.evaluation import real_clips
from vdm.evaluation import result_cache
from vdm.evaluation import run_samples
from vdm.evaluation import synthetic_score
from vdm.metrics import frame_metrics
from vdm.metrics import suite
from vdm.models import features
from vdm.multihost import coordination
from vdm.training import sharding


@dataclasses.dataclass(frozen=True)
class Options:
  """How a run is evaluated.

  Attributes:
    num: number of samples, and of real clips in the reference and the floor.
    split: of the reference.
    sampling: how real clips are chosen, see `windowing.sampled_order`.
    seed: of that choice.
    training_clips: that samples are compared with, at most; 0 for none, as it
      is for a reference of the training split.
    ema: width of the average; None for the run's. Of a chain this and the next
      three are of its first model.
    checkpoint: latest, best or a step.
    sample: {key of config.sample: value} to change.
    autoguide: what it is guided against, see `trained.load`.
    network: of the features for Frechet and kernel distances; None for none.
    classifier: of the logits for the Inception Score; None for none.
    unbiased: covariances over N - 1.
    statistics: folder of the cache of real clips; None for one under the root
      of the data sets.
  """

  num: int = 256
  split: str = 'validation'
  sampling: str = 'random'
  seed: int = 0
  training_clips: int = 4096
  ema: float | None = None
  checkpoint: str = 'latest'
  sample: dict[str, Any] = dataclasses.field(default_factory=dict)
  autoguide: str | None = None
  network: features.Features | None = None
  classifier: features.Features | None = None
  unbiased: bool = False
  statistics: str | None = None

  @property
  def searched(self) -> int:
    """The training clips in which copies are searched, at most.

    There are none where the reference is of them: that is no nearer to them by
    chance, and no measure of what was copied.
    """
    return 0 if self.split == 'train' else self.training_clips


def evaluate(
  sources: Sequence[epath.PathLike], out: epath.PathLike, options: Options
) -> dict[str, Any] | None:
  """Writes the card of a run and returns it; None on all but one process.

  Args:
    sources: of the model, see `trained`; several are a chain, see `chain`,
      whose videos are compared with clips of the last.
    out: folder of metrics_card.json, metrics_card.txt, pictures and the cache.
    options: how the run is evaluated.

  Raises:
    FileNotFoundError: there is no run, or nothing to sample from.
    ValueError: the clips are too short for motion.
  """
  out = epath.Path(out)
  how = options.ema, options.checkpoint
  if len(sources) > 1:
    models = chain_samples.load(
      sources, *how, options.sample, options.autoguide
    )
    card = _Evaluation(models.last, out, options, models).card()
  else:
    run = trained.load(sources[0], *how, autoguide=options.autoguide)
    generate.change_sampler(run.config.sample, options.sample)
    card = _Evaluation(run, out, options).card()
  if card is not None:
    card = metrics_card.write(out, card)
  # jax lets a process that has finished wait for others for minutes only.
  coordination.gather('the metrics card')
  return card


class _Evaluation:
  """The sets of clips of one run, and where they are cached."""

  def __init__(self, run, out, options, models=None):
    """Takes a run, or the last one of a chain and the chain."""
    config, stage = run.config, run.stage
    self.run, self.out, self.options = run, out, options
    self.models = models
    self.real = real_clips.RealClips(config.data, stage)
    self.mesh = sharding.make_mesh()
    self.generator = generate.make_generator(
      config, stage, self.mesh, worse=run.worse
    )
    self.statistics = epath.Path(
      options.statistics or epath.Path(config.data.root) / 'statistics'
    )
    self.scenes = synthetic_score.known_laws(config.data, stage)
    self.seconds = {}
    suite.check(np.zeros((1, stage.frames, 8, 8, 3), np.uint8))

  def card(self) -> dict[str, Any] | None:
    """Measures and compares every set, on all processes; see `evaluate`."""
    options, network = self.options, self.options.network
    real_key, floor_key = self.real.choose(
      options.num, options.split, options.sampling, options.seed
    )
    with self.timed('sampling'):
      videos, asked, samples_key = self.samples()
    labels = asked.cond['label']
    samples_key['num'] = options.num
    sets = self.sets(videos, labels, samples_key, floor_key)
    reference = self.measured(
      self.statistics, real_key, lambda: self.real.read(real_key), 'reference'
    )
    with self.timed('reconstruction'):
      quality = self.reconstruction_quality(floor_key)
    if not coordination.is_first():
      return None
    with self.timed('distances'):
      card = metrics_card.make(
        reference,
        sets,
        features=feature_extraction.metric_name(network) if network else '',
        unbiased=options.unbiased,
        captions=self.captions(asked, floor_key),
        side=min(sizes.of(self.run.stage)),
      )
    card['reconstruction'] = quality
    if self.models is None and cascade_rules.is_told(self.run.config.model):
      card['enlargement'] = enlargement_score.measure(
        self.run.config, videos, self.held_out
      )
    if options.searched:
      with self.timed('memorisation'):
        card['memorisation'] = memorisation.compare(
          self.run,
          *self.real.split('train'),
          videos,
          sets['samples'],
          reference,
          num=options.searched,
          out=self.out,
        )
    card['protocol'] = self.protocol(real_key, floor_key, samples_key)
    card['seconds'] = {k: round(v, 2) for k, v in self.seconds.items()}
    run_samples.write_sheet(
      self.out, videos, labels, self.run.label_names, asked.captions
    )
    return card

  def samples(
    self,
  ) -> tuple[ui8['n t h w 3'], prompts.Prompts, dict[str, Any]]:
    """Returns the samples, what they are made for and what they depend on."""
    cache, num = self.out / result_cache.FOLDER, self.options.num
    if self.models is not None:
      return chain_samples.make(self.models, num, cache, self.mesh)
    key = run_samples.key(self.run)
    asked = run_samples.asked(self.run, num, lambda: self.held_out)
    videos, _ = run_samples.make(
      self.run, self.generator, key, num, folder=cache, asked=asked
    )
    if asked.captions:
      key['captions'] = list(asked.captions)
    return videos, asked, key

  def captions(
    self, asked: prompts.Prompts, floor_key: dict[str, Any]
  ) -> dict[str, Sequence[str]]:
    """Returns the captions of the samples and of the floor's clips, if any."""
    if not asked.captions:
      return {}
    real = self.real.captions(floor_key)
    return {'samples': asked.captions, 'real': real, 'autoencoder': real}

  @functools.cached_property
  def held_out(self) -> dict[str, np.ndarray]:
    """The clips of whose captions or smaller versions samples are made."""
    return real_clips.held_out(self.run, self.real, self.options.num)

  def sets(
    self,
    videos: ui8['n t h w 3'],
    labels: IntArray[' n'],
    samples_key: dict[str, Any],
    floor_key: dict[str, Any],
  ) -> dict[str, clip_set.ClipSet | None]:
    """Returns the samples, the floor's clips, and these clips changed."""

    def read(change=lambda videos: videos):
      clips, groups, classes = self.real.read(floor_key)
      return change(clips), groups, classes

    sets = {
      'samples': self.measured(
        self.out / result_cache.FOLDER,
        samples_key,
        lambda: (videos, np.arange(len(videos)), labels),
        'samples',
      ),
      'real': self.measured(self.statistics, floor_key, read, 'real clips'),
      'autoencoder': self.measured(
        self.statistics,
        {**floor_key, 'autoencoder': self.run.fingerprint},
        functools.partial(read, self.reconstruct),
        'reconstructions',
      ),
    }
    for name, corrupt in metrics_card.CORRUPTIONS.items():
      sets[name] = self.measured(
        self.statistics,
        {**floor_key, 'spoiled': name},
        functools.partial(read, corrupt),
        f'{name} clips',
        networks=False,
      )
    return sets

  def measured(
    self,
    folder: epath.Path,
    key: dict[str, Any],
    read: Callable[..., tuple],
    title: str,
    networks: bool = True,
  ) -> clip_set.ClipSet | None:
    """Returns a set of clips, from the cache or measured.

    Args:
      folder: of the cache.
      key: what the clips depend on.
      read: () -> videos, groups and labels.
      title: of the set, for messages.
      networks: also compute features and logits.
    """
    read = functools.cache(read)  # Once, if at all.
    with self.timed('measuring'):
      clips = clip_set.cached(
        folder, {**key, **self.scenes}, read, title, **self.scenes
      )
    for name, network in (
      ('features', self.options.network),
      ('logits', self.options.classifier),
    ):
      if network is not None and networks:
        with self.timed(name):
          arrays = feature_extraction.cached(folder, key, read, network, name)
        clips = clips and clips._replace(**arrays)
    return clips

  def reconstruct(self, videos: ui8['n t h w 3']) -> ui8['n t h w 3']:
    """Encodes and decodes clips with the run's autoencoder."""
    return self.generator.reconstruct(self.run.frozen, videos)

  def reconstruction_quality(
    self, key: dict[str, Any]
  ) -> dict[str, float] | None:
    """Returns the mean frame metrics of the floor's clips, reconstructed."""

    def compute():
      videos = self.real.read(key)[0]
      reconstruction = self.reconstruct(videos)
      if not coordination.is_first():
        return None
      found = frame_metrics.compare(reconstruction, videos)
      # A clip without static pixels has no flicker.
      return {
        name: np.float64(v[np.isfinite(v)].mean())
        for name, v in found.items()
        if np.isfinite(v).any()
      }

    key = {**key, 'autoencoder': self.run.fingerprint, 'quality': 1}
    arrays = result_cache.get(self.statistics, key, compute)
    return arrays and {name: float(value) for name, value in arrays.items()}

  def protocol(
    self,
    real_key: dict[str, Any],
    floor_key: dict[str, Any],
    samples_key: dict[str, Any],
  ) -> dict[str, Any]:
    """Returns everything that the numbers of the card depend on."""
    network, classifier = self.options.network, self.options.classifier
    covariance = 'unbiased' if self.options.unbiased else 'biased'
    return {
      'reference': real_key,
      'floor': {k: floor_key[k] for k in ('split', 'clips')},
      'samples': samples_key,
      'clip_set': clip_set.VERSION,
      'training_clips': self.options.searched,
      'classifier': classifier and classifier.protocol,
      'features': network and {**network.protocol, 'covariance': covariance},
      'devices': f'{jax.device_count()} {jax.devices()[0].device_kind}',
      'versions': metrics_card.versions(),
    }

  @contextlib.contextmanager
  def timed(self, name: str) -> Iterator[None]:
    """Adds the duration of the body to `seconds`."""
    started = time.monotonic()
    yield
    duration = time.monotonic() - started
    self.seconds[name] = self.seconds.get(name, 0.0) + duration
