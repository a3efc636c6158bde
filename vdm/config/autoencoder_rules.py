"""Rules for the keys of `config.autoencoder`."""

from collections.abc import Iterator
import re

from ml_collections import ConfigDict

from vdm.config import schema

# Autoencoders whose weights come from elsewhere.
PUBLISHED = ('tiny', 'autoencoder_kl')
# Keys that one kind alone reads. Those of sizes and losses, which recipes set
# whatever the kind is, are not among them.
OWN = {
  'kl': ('bottleneck', 'decoder_temporal', 'adversarial_weight'),
  'autoencoder_kl': ('scaling_factor', 'shift_factor', 'norm_groups'),
}


def problems(config: ConfigDict) -> Iterator[str]:
  """Yields what is wrong, one sentence per problem."""
  yield from _kind_problems(config.autoencoder)
  yield from _network_problems(config)
  yield from _weights_problems(config.autoencoder)
  if config.autoencoder.time_factor > 1:
    yield from _time_problems(config)


def _kind_problems(autoencoder: ConfigDict) -> Iterator[str]:
  for kind, keys in OWN.items():
    if kind == autoencoder.kind:
      continue
    changed = schema.changed('autoencoder', autoencoder, keys)
    for key, default in changed.items():
      yield (
        f'config.autoencoder.{key}={autoencoder[key]} is of kind={kind}, and '
        f'kind={autoencoder.kind} does not read it: leave it at {default}.'
      )


def _network_problems(config: ConfigDict) -> Iterator[str]:
  autoencoder = config.autoencoder
  if autoencoder.kind != 'kl':
    return
  levels, channels = autoencoder.levels, autoencoder.channels
  if autoencoder.bottleneck == 'fsq' and len(levels) != channels:
    yield (
      f'config.autoencoder.levels={levels} does not have one number for each '
      f'of the {channels} channels: config.autoencoder.channels={len(levels)} '
      'fits.'
    )
  if autoencoder.decoder_temporal and not autoencoder.load:
    for name in config.train.order:
      stage = config.stages[name]
      one = stage.frames == autoencoder.time_factor
      if stage.objective == 'autoencoder' and one:
        yield (
          f'config.stages.{name}.frames={stage.frames} is one latent, which '
          'has no neighbours for config.autoencoder.decoder_temporal to learn '
          f'from: take {2 * stage.frames} or more.'
        )


def _time_problems(config: ConfigDict) -> Iterator[str]:
  factor = config.autoencoder.time_factor
  key = f'config.autoencoder.time_factor={factor}'
  if config.autoencoder.kind not in ('kl', 'pca'):
    yield (
      f'{key} is for kind=kl and pca: those of '
      f'kind={config.autoencoder.kind} are of single frames.'
    )
  for name in config.train.order:
    stage = config.stages[name]
    if stage.frames % factor:
      yield (
        f'config.stages.{name}.frames={stage.frames} is not divisible by '
        f'{key}: a latent holds {factor} frames, and none is of an image.'
      )
    if stage.image_fraction:
      yield (
        f'config.stages.{name}.image_fraction={stage.image_fraction:g} takes '
        f'single frames, and with {key} a latent holds {factor}: set it to 0.'
      )
    if stage.objective != 'autoencoder' and stage.frame_levels.first:
      yield (
        f'config.stages.{name}.frame_levels.first='
        f'{stage.frame_levels.first:g} gives a single frame, and with {key} a '
        f'latent holds {factor}: use context.'
      )
  if config.data.latents:
    yield (
      f'config.data.latents holds latents of single frames, and with {key} '
      f'a latent is of {factor}: leave one of them out.'
    )


def _weights_problems(autoencoder: ConfigDict) -> Iterator[str]:
  kind, weights = autoencoder.kind, autoencoder.weights
  hashes = autoencoder.weights_sha256
  if kind in PUBLISHED and not weights and not autoencoder.load:
    yield (
      f'config.autoencoder.kind={kind} is a published network: set '
      'config.autoencoder.weights to its files, see docs/autoencoders.md.'
    )
  if (weights or hashes) and kind not in PUBLISHED:
    yield (
      'config.autoencoder.weights is for published networks, and '
      f'kind={kind} is not one of them.'
    )
  if weights and autoencoder.load:
    yield 'config.autoencoder.load and weights are both set: give one.'
  parts = hashes.split(',') if hashes else []
  if any(not re.fullmatch(r'\s*[0-9a-f]{64}\s*', part) for part in parts):
    yield (
      f'config.autoencoder.weights_sha256={hashes!r} is not a sha256: give the '
      '64 hexadecimal digits that sha256sum prints, of several files with '
      'commas.'
    )
  if parts and len(parts) != len(weights.split(',')):
    yield (
      f'config.autoencoder.weights_sha256 has {len(parts)} hashes for the '
      f'{len(weights.split(","))} files of weights: give one each.'
    )
