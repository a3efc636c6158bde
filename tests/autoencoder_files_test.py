"""A frozen autoencoder on disk."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from vdm.config import schema
from vdm.models import autoencoders
from vdm.models.autoencoders import files

CONFIG = schema.default().autoencoder
CONFIG.update(
  factor=4, channels=4, encoder_width=4, decoder_width=4, decoder_blocks=1
)
STATS = {
  'mean': np.array([0.1, -0.2, 0.3, 1 / 3], np.float32),
  'scale': np.full(4, 0.7, np.float32),
}


def make():
  random = np.random.default_rng(0)
  clips = random.uniform(-1, 1, (2, 1, 8, 8, 3)).astype(np.float32)
  autoencoder = autoencoders.make_autoencoder(CONFIG)
  return autoencoder, autoencoder.init(jax.random.key(0), clips), clips


def test_round_trip_is_exact(tmp_path):
  autoencoder, params, clips = make()
  written = files.save(tmp_path / 'autoencoder', CONFIG, params, STATS)
  config, loaded, stats, fingerprint = files.load(tmp_path / 'autoencoder')
  assert fingerprint == written and len(fingerprint) == 64
  assert jax.tree.structure(loaded) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded))
  jax.tree.map(np.testing.assert_array_equal, stats, STATS)
  x = jnp.asarray(clips)
  np.testing.assert_array_equal(
    autoencoders.make_autoencoder(config).encode(loaded, x)[0],
    autoencoder.encode(params, x)[0],
  )
  assert sorted(p.name for p in (tmp_path / 'autoencoder').iterdir()) == [
    'config.json',
    'weights.npz',
  ]


def test_identity_round_trip(tmp_path):
  config = ml_collections.ConfigDict(dict(kind='identity', load=''))
  files.save(tmp_path, config, {}, STATS)
  loaded, params, _, _ = files.load(tmp_path)
  assert loaded.kind == 'identity' and params == {}


def test_changed_weights_are_refused(tmp_path):
  _, params, _ = make()
  files.save(tmp_path, CONFIG, params, STATS)
  path = tmp_path / 'weights.npz'
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  with pytest.raises(ValueError, match='weights.npz is not what was written'):
    files.load(tmp_path)


def test_changed_statistics_are_refused(tmp_path):
  _, params, _ = make()
  files.save(tmp_path, CONFIG, params, STATS)
  path = tmp_path / 'config.json'
  content = json.loads(path.read_text())
  content['statistics']['scale'][0] *= 2
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='config.json was changed'):
    files.load(tmp_path)


@pytest.mark.parametrize(
  'part, change, words',
  [
    ('settings', {'decoder_blocks': 400}, 'ask for 401 blocks'),
    ('statistics', {'mean': [1e308] * 4}, 'the mean of its latents'),
    ('statistics', {'scale': [1e-60] * 4}, 'the scale of its latents'),
  ],
)
def test_claims_that_no_autoencoder_makes_are_refused(
  tmp_path, part, change, words
):
  """Also with the fingerprint that they should have."""
  _, params, _ = make()
  files.save(tmp_path, CONFIG, params, STATS)
  path = tmp_path / 'config.json'
  content = json.loads(path.read_text())
  content[part].update(change)
  content['fingerprint'] = files.fingerprint(content)
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f'config.json is refused: .*{words}'):
    files.load(tmp_path)


def test_is_written_once(tmp_path):
  _, params, _ = make()
  assert not files.exists(tmp_path)
  first = files.save(tmp_path, CONFIG, params, STATS)
  assert files.exists(tmp_path)
  # A stage that is resumed at its end writes the same again.
  assert files.save(tmp_path, CONFIG, params, STATS) == first
  other = {**STATS, 'mean': STATS['mean'] + 1}
  with pytest.raises(FileExistsError, match='another autoencoder'):
    files.save(tmp_path, CONFIG, params, other)
  assert files.load(tmp_path)[3] == first


def test_a_missing_or_unfinished_autoencoder_is_named(tmp_path):
  (tmp_path / 'weights.npz').write_bytes(b'')
  with pytest.raises(FileNotFoundError, match='finished its autoencoder stage'):
    files.load(tmp_path)


def test_only_float32_is_stored(tmp_path):
  _, params, _ = make()
  half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
  with pytest.raises(ValueError, match='float32'):
    files.save(tmp_path, CONFIG, half, STATS)


@pytest.mark.parametrize(
  'text, words',
  [
    ('[]', 'is not the config.json of an autoencoder'),
    ('{"settings": [], "statistics": {}}', 'is not the config.json'),
    ('{"settings": ', 'is not valid JSON'),
    ('[' * 20_000 + ']' * 20_000, 'is not valid JSON'),
  ],
)
def test_a_foreign_config_json_is_refused(tmp_path, text, words):
  _, params, _ = make()
  files.save(tmp_path, CONFIG, params, STATS)
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(ValueError, match=words):
    files.load(tmp_path)
