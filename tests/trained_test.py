"""A model is the same from a run and from an export; a bad export is refused.

Whoever made the files: each is damaged here as by accident, and as by somebody
who also mends the hashes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

from conftest import ROOT
from etils import epath
import image_unets_test as nets
import jax.numpy as jnp
import numpy as np
import pytest

from vdm import generate
from vdm import models
from vdm import trained
from vdm.common import errors
from vdm.common import files
from vdm.common import hub as common_hub
from vdm.common import trees
from vdm.config import serialize
from vdm.models import safetensors
from vdm.models.autoencoders import files as autoencoder_files
from vdm.publishing import export_files
from vdm.trained import claims
from vdm.trained import export_folder
from vdm.trained import manifest
from vdm.trained import words as captions

WEIGHTS, CONFIG = manifest.WEIGHTS, manifest.CONFIG


@pytest.fixture(scope='module')
def run(finished_run):
  return trained.load(finished_run)


@pytest.fixture(scope='module')
def exports(run, finished_run, tmp_path_factory):
  """{dtype: folder}; leave them as they are."""
  settings = trained.load_autoencoder(finished_run)[0]
  folders = {}
  for dtype in manifest.DTYPES:
    folder = epath.Path(tmp_path_factory.mktemp(dtype))
    export_files.write_parameters(folder, run, dtype)
    export_files.write_manifest(folder, run, settings, dtype, {})
    folders[dtype] = folder
  return folders


@pytest.fixture
def folder(exports, tmp_path):
  """A copy of the export in float32 to spoil."""
  return epath.Path(shutil.copytree(exports['float32'], tmp_path / 'export'))


def videos(model):
  make = generate.make_generator(model.config, model.stage)
  return make.samples(model.params, model.frozen, {'label': [0, 5]}, [3, 4])


def test_an_export_in_float32_is_the_run_to_the_bit(run, exports):
  export = trained.load(exports['float32'])
  assert export.workdir is None and run.workdir is not None
  assert (export.step, export.frame_rate) == (run.step, run.frame_rate)
  assert export.label_names == run.label_names
  assert export.stage == run.stage
  np.testing.assert_array_equal(videos(export), videos(run))
  # The autoencoder is known by the same name.
  assert export.fingerprint == run.fingerprint != ''


def test_an_export_in_bfloat16_differs_by_its_rounding(run, exports):
  export = trained.load(exports['bfloat16'])
  old, new = trees.flatten(run.params), trees.flatten(export.params)
  assert old.keys() == new.keys()
  for path, x in old.items():
    np.testing.assert_array_equal(
      new[path], np.asarray(x).astype(jnp.bfloat16).astype(np.float32)
    )
  difference = videos(export).astype(int) - videos(run)
  assert 0 < np.abs(difference).max() <= 8
  assert np.abs(difference).mean() < 1.0  # Grey levels of 256.
  assert export.fingerprint != run.fingerprint
  sizes = [(exports[x] / WEIGHTS).stat().length for x in manifest.DTYPES]
  assert sizes[1] < 0.7 * sizes[0]


def test_what_an_export_has_one_of_can_be_asked_for(exports):
  folder = exports['float32']
  model = trained.load(folder, ema=0.10, checkpoint='12')
  assert model.config.sample.ema == 0.10
  with pytest.raises(ValueError, match='average of width 0.100: it has none'):
    trained.load(folder, ema=0.05)
  with pytest.raises(FileNotFoundError, match='an export of step 12'):
    trained.load(folder, checkpoint='best')


def test_an_export_names_no_folder_of_the_machine(run, exports):
  assert '/' in run.config.data.root
  text = (exports['float32'] / CONFIG).read_text()
  assert run.config.data.root not in text
  config = trained.load(exports['float32']).config
  assert '/' not in config.data.root
  config.data.update(
    source='/home/someone/videos/', latents='gs://bucket/a/latents'
  )
  config.autoencoder.update(weights='/a/b.pth,hf://owner/name@main/c.pth')
  config.model.text.name = 'weights/sd15/text_encoder'
  changed = export_files.without_paths(config)
  assert changed.model.text.name == 'text_encoder'
  config.model.text.update(name='owner/name', revision='main')
  assert export_files.without_paths(config).model.text.name == 'owner/name'
  assert changed.data.source == 'videos'
  assert changed.data.latents == 'latents'
  assert changed.autoencoder.weights == 'b.pth,hf://owner/name@main/c.pth'


def test_files_that_are_not_listed_change_nothing(folder):
  (folder / 'extra.py').write_text('raise SystemExit(1)')
  (folder / manifest.CARD).write_text('Filled in by hand.')
  trained.load(folder)


def refused(folder, words):
  """Checks that an export is refused in one sentence with these words."""
  with pytest.raises(errors.UsageError) as raised:
    trained.load(folder)
  text = str(raised.value)
  assert words in text and '\n' not in text and len(text) < 600


def test_accidents_are_found_before_anything_is_read(folder, exports, tmp_path):
  good = (folder / WEIGHTS).read_bytes()
  other = (folder / manifest.AUTOENCODER).read_bytes()
  flipped = bytearray(good)
  flipped[-3] ^= 1
  for data, words in (
    (bytes(flipped), 'its model.safetensors is not what was written'),
    (good[:-5], f'has {len(good) - 5} bytes, not {len(good)}'),
    (other, f'has {len(other)} bytes'),
  ):
    (folder / WEIGHTS).write_bytes(data)
    refused(folder, words)
  (folder / WEIGHTS).rename(folder / 'weights.safetensors')
  refused(folder, 'its model.safetensors is missing')
  (folder / 'weights.safetensors').write_bytes(good)
  shutil.copy(exports['bfloat16'] / CONFIG, folder / CONFIG)
  (folder / 'weights.safetensors').rename(folder / WEIGHTS)
  refused(folder, 'bytes, not')
  (folder / CONFIG).unlink()
  refused(folder, 'its config.json, which is written last, is missing')


def test_a_changed_config_is_refused(folder):
  text = (folder / CONFIG).read_text()
  for changed, words in (
    (text[:-20], 'its config.json is corrupt'),
    (text.replace('"step": 12', '"step": 13'), 'was changed after'),
    (text.replace('"step": 12', '"step": "12"'), 'has no step'),
    (text.replace('"step": 12', '"step": 12, "step": 12'), 'is corrupt'),
    (text.replace('"step": 12', '"step": NaN'), 'is corrupt'),
    ('[' * 100_000, 'is corrupt'),
    ('{"format": ' + '{"a": ' * 100_000, 'is corrupt'),
    ('{}' + ' ' * 2_000_000, 'is corrupt'),
    ('[]', 'is corrupt'),
    ('{"format": "vdm-export", "format_version": 2}', 'update vdm'),
    ('\xff\xfe', 'is corrupt'),
  ):
    assert changed != text
    (folder / CONFIG).write_bytes(changed.encode('latin-1'))
    refused(folder, words)


def sealed(folder, change):
  """Changes a config.json as somebody would who mends its hashes too."""
  content = json.loads((folder / CONFIG).read_text())
  change(content)
  model = content['model']
  text = json.dumps(model['config'], sort_keys=True, separators=(',', ':'))
  model['hash'] = hashlib.sha256(text.encode()).hexdigest()
  for name in ('format', 'format_version', 'sha256'):
    del content[name]
  files.write_json(folder / CONFIG, manifest.seal(content))


def nested(depth):
  value = 1
  for _ in range(depth):
    value = {'a': value}
  return value


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda x: x['files'].update({'../x': x['files'][WEIGHTS]}),
      "lists '../x', which is no name",
    ),
    (lambda x: x['files'].update({'/etc/passwd': {}}), 'which is no name'),
    (lambda x: x['files'].update({'a/../../b': {}}), 'which is no name'),
    (lambda x: x['files'].update({'a\\b': {}}), 'which is no name'),
    (lambda x: x['files'].update({'a.bin': 1}), 'size and sha256 of a.bin'),
    (lambda x: x['files'][WEIGHTS].update(bytes='9'), 'does not list the size'),
    (
      lambda x: x['files'][WEIGHTS].update(bytes=-1),
      'does not list the size',
    ),
    (lambda x: x['files'].pop(WEIGHTS), 'does not list model.safetensors'),
    (lambda x: x.update(dtype='float8'), 'has a dtype that is none of'),
    (lambda x: x.update(dtype='bfloat16'), 'is float32, not bfloat16'),
    (lambda x: x.update(step=True), 'has no step, or one of another type'),
    (lambda x: x.update(step=-1), 'out of range'),
    (lambda x: x.update(frame_rate=1e9), 'out of range'),
    (lambda x: x.update(stage='nothing'), 'its stage is none of'),
    (lambda x: x.update(stage='autoencoder'), 'its stage is none of'),
    (lambda x: x['model'].update(label_names=[1]), 'is not the config.json'),
    (lambda x: x['model'].update(label_names=['\x1b[2J']), 'no plain text'),
    (lambda x: x['model'].update(config=[]), 'is not the config.json'),
    (lambda x: x['model']['config'].update(stages=1), 'is not a group'),
    (lambda x: x['model']['config']['model'].update(widths='8'), 'widths='),
    (lambda x: x['model']['config']['model'].update(widths=[-8]), 'widths='),
    (lambda x: x['model']['config']['model'].update(widths=[16]), 'another'),
    (
      lambda x: x['model']['config'].update(a=nested(100)),
      'does not know its config.a',
    ),
    (
      lambda x: x['model']['config'].update(a=nested(400)),
      'does not know its config.a',
    ),
    (lambda x: x['autoencoder']['settings'].update(factor=8), 'fingerprint'),
    (
      lambda x: x['autoencoder']['statistics'].update(mean=['a']),
      'does not describe its autoencoder',
    ),
  ],
)
def test_a_hostile_config_is_refused(change, words, folder):
  sealed(folder, change)
  refused(folder, words)


@pytest.mark.parametrize(
  'part, change',
  [
    ('model', dict(blocks=[400, 1])),
    ('model', dict(blocks=[20, 1], temporal_depth=20)),
    ('model', dict(text=dict(encoder='learned', layers=400))),
    ('model', dict(kind='transformer', transformer=dict(depth=400))),
    ('model', dict(kind='adm', architecture='{"num_res_blocks":400}')),
    (
      'model',
      dict(
        kind='conditional',
        architecture='{"transformer_layers_per_block":[1,1,1,400]}',
      ),
    ),
    ('autoencoder', dict(encoder_blocks=400)),
  ],
)
def test_no_larger_network_is_made_than_the_file_can_hold(
  part, change, folder, monkeypatch
):
  def update(content):
    options = content['model']['config'][part]
    for name, value in change.items():
      if isinstance(value, dict):
        options[name].update(value)
      else:
        options[name] = value

  def functional(module, *args, **kwargs):
    raise AssertionError(f'{module} was made')

  sealed(folder, update)
  monkeypatch.setattr(models, 'functional', functional)
  refused(folder, 'asks for' if part == 'model' else 'ask for')


@pytest.mark.parametrize(
  'part, change, words',
  [
    ('settings', dict(decoder_blocks=400), 'ask for'),
    ('statistics', dict(mean=[1e308] * 4), 'the mean of its latents'),
    ('statistics', dict(scale=[1e-60] * 4), 'the scale of its latents'),
  ],
)
def test_hostile_claims_about_an_autoencoder_are_refused(
  part, change, words, folder
):
  def update(content):
    described = content['autoencoder']
    described[part].update(change)
    described['fingerprint'] = autoencoder_files.fingerprint(described)

  sealed(folder, update)
  refused(folder, words)


@pytest.mark.parametrize('kind, name', nets.ALL)
def test_image_models_have_a_tensor_for_each_layer_at_least(kind, name):
  options = nets.options(kind, name)
  paths = trees.flatten(nets.network(kind, name).abstract_params())
  branches = [x for x in paths if not export_folder.IMAGE.match(x)]
  claims.check_layers(options, len(paths), image_left_out=False)
  claims.check_layers(options, len(branches), image_left_out=True)
  own, image = claims.layers(options)
  assert 2 < own <= len(branches) and 5 < image <= len(paths) - len(branches)


def header(text, body=b''):
  text = text.encode()
  return len(text).to_bytes(8, 'little') + text + body


@pytest.mark.parametrize(
  'data, words',
  [
    (b'', 'it is no safetensors file'),
    (b'PK\x03\x04' + b'\0' * 99, 'it is no safetensors file'),
    ((2**63).to_bytes(8, 'little') + b'{}', 'it is no safetensors file'),
    ((200_000_000).to_bytes(8, 'little') + b'{}', 'no safetensors file'),
    (header('{"a": ' * 50_000), 'does not fit'),
    (header('{"a": 1}'), 'does not fit'),
    (
      header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,99]}}', b'12'),
      'not where the header says',
    ),
    (
      header(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b'12' * 4
      ),
      'not where the header says',
    ),
    (
      header(
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b'1234'
      ),
      'an invalid shape',
    ),
    (
      header(
        '{"a":{"dtype":"F32","shape":[9'
        + ','.join(['9' * 4000] * 40)
        + '],"data_offsets":[0,4]}}',
        b'1234',
      ),
      'an invalid shape',
    ),
    (
      header('{"a":{"dtype":"O","shape":[1],"data_offsets":[0,4]}}', b'1234'),
      'is of type O',
    ),
    (
      header(
        '{"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}', b'1234'
      ),
      'does not fit',
    ),
    (
      header(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b'1234x'
      ),
      'belong to no tensor',
    ),
    (
      safetensors.to_bytes({'a': np.full(2, np.nan, np.float32)}, {}),
      'not finite',
    ),
    (
      safetensors.to_bytes({'a': np.zeros(2, np.float32)}, {}),
      'another network',
    ),
    (safetensors.to_bytes({'a': np.zeros(2, np.int64)}, {}), 'is int64, not'),
  ],
)
def test_hostile_weights_are_refused(data, words, folder):
  (folder / WEIGHTS).write_bytes(data)
  entry = {WEIGHTS: manifest.describe(data)}
  sealed(folder, lambda content: content['files'].update(entry))
  refused(folder, words)


def test_a_hostile_autoencoder_is_refused(folder):
  path = folder / manifest.AUTOENCODER
  tensors = safetensors.parse(path.read_bytes())
  name = next(x for x in tensors if x.endswith('head/kernel'))
  for changed, words in (
    ({k: v for k, v in tensors.items() if k != name}, 'does not fit'),
    ({**tensors, name: tensors[name][..., :-1]}, 'does not fit'),
    ({**tensors, f'{name}/x': tensors[name]}, 'does not fit'),
  ):
    data = safetensors.to_bytes(changed, {})
    path.write_bytes(data)
    entry = {path.name: manifest.describe(data)}
    sealed(folder, lambda content, x=entry: content['files'].update(x))
    refused(folder, words)


def test_links_stay_in_the_folder(folder, tmp_path):
  elsewhere = tmp_path / 'elsewhere'
  (folder / WEIGHTS).rename(elsewhere)
  os.symlink(elsewhere, folder / WEIGHTS)
  refused(folder, 'a link that leads out of the folder')
  # As in the cache of downloads, where the folder is not the outermost.
  export_folder.read(export_folder.open_folder(folder, tmp_path))
  (folder / WEIGHTS).unlink()
  os.mkfifo(folder / WEIGHTS)  # Reading it would wait forever.
  refused(folder, 'model.safetensors is missing')


class Hub:
  """A repository of the hub, with the cache of downloads."""

  def __init__(self, folder, cache):
    self.folder, self.asked = folder, []
    self.snapshot = cache / 'models--o--n/snapshots/c0ffee'

  def fetch(self, repo, revision, file):
    self.asked.append((repo, revision, file))
    source, target = self.folder / file, self.snapshot / file
    if not source.exists():
      return None
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target

  def size(self, repo, revision, file):
    del repo, revision
    return (self.folder / file).stat().length


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
  repository = Hub(folder, tmp_path / 'cache')
  for name in ('fetch', 'size'):
    monkeypatch.setattr(common_hub, name, getattr(repository, name))
  return repository


def test_what_describes_an_export_comes_first_from_the_hub(hub, run):
  found = trained.load('hf://o/n')
  assert found.source == 'hf://o/n@c0ffee'
  assert found.fingerprint == run.fingerprint
  assert hub.asked == [
    ('o/n', 'main', CONFIG),
    ('o/n', 'c0ffee', WEIGHTS),
    ('o/n', 'c0ffee', manifest.AUTOENCODER),
  ]
  # The rest is in the cache then.
  del hub.asked[:]
  trained.load('hf://o/n@v1')
  assert hub.asked == [('o/n', 'v1', CONFIG)]


def test_nothing_else_of_a_wrong_repository_is_downloaded(hub, monkeypatch):
  (hub.folder / 'pytorch_model.safetensors').write_bytes(b'1')
  free = shutil.disk_usage(hub.folder)._replace(free=1000)
  with monkeypatch.context() as full:
    full.setattr(shutil, 'disk_usage', lambda _: free)
    refused('hf://o/n', 'bytes to download and the disk of')
  (hub.folder / WEIGHTS).write_bytes(b'1')
  refused('hf://o/n', 'its model.safetensors has 1 bytes, not')
  (hub.folder / CONFIG).write_text('{"_class_name": "UNet2DConditionModel"}')
  refused('hf://o/n', 'its config.json is not that of an export')
  (hub.folder / CONFIG).unlink()
  refused('hf://o/n', 'its config.json, which is written last, is missing')
  assert hub.asked == [('o/n', 'main', CONFIG)] * 4


def test_a_vocabulary_is_of_the_commit_of_its_configuration(hub):
  path = hub.folder / captions.VOCABULARY
  path.write_bytes(captions.to_bytes(['a', 'b']))

  def learn(content):
    content['model']['config']['model']['text']['encoder'] = 'learned'
    content['files'][path.name] = manifest.describe(path.read_bytes())

  sealed(hub.folder, learn)
  assert trained.load_vocabulary('hf://o/n') == ('a', 'b')
  assert [x for x in hub.asked if x[2] == CONFIG] == [('o/n', 'main', CONFIG)]


def test_an_export_is_neither_written_nor_resumed_as_a_run(folder):
  from vdm.config import serialize

  with pytest.raises(
    errors.UsageError, match='is not the config.json of a run'
  ):
    serialize.load(folder / CONFIG)
  with pytest.raises(FileExistsError, match='already holds an export'):
    export_files.check_room(folder, overwrite=False)


def test_a_run_is_never_overwritten(tmp_path):
  (tmp_path / CONFIG).write_text('{"hash": ""}')
  with pytest.raises(FileExistsError, match="is no export's"):
    export_files.check_room(epath.Path(tmp_path), overwrite=True)
  assert (tmp_path / CONFIG).exists()


def test_files_about_an_export_go_elsewhere(folder, finished_run):
  assert trained.output_folder(folder) == epath.Path('outputs/export')
  assert trained.output_folder('hf://owner/name@v1') == epath.Path(
    'outputs/owner-name'
  )
  assert trained.output_folder(finished_run) == epath.Path(finished_run)
  with pytest.raises(errors.UsageError, match='names nothing on the hub'):
    trained.output_folder('hf://owner')


def test_autoencoders_and_averages_are_taken_from_exports(run, exports):
  from vdm.training import train_state

  config, _, stats, found = trained.load_autoencoder(exports['float32'])
  assert found == run.fingerprint and config.channels == 4
  np.testing.assert_array_equal(stats['mean'], run.frozen['stats']['mean'])
  taken = trees.flatten(
    train_state.inherit(str(exports['float32']), run.params)
  )
  for path, x in trees.flatten(run.params).items():
    np.testing.assert_array_equal(taken[path], x)


def test_reading_and_sampling_import_no_library_of_training():
  code = """
import sys
from vdm import generate, prompts, request, sample, trained
from vdm.multihost import initialize
request.choose_folder('runs/none', 1, None, False)
prompts.choose_labels(0, [], None, 1)
heavy = {'tensorflow', 'tensorflow_datasets', 'clu', 'grain', 'torch',
         'array_record', 'safetensors', 'huggingface_hub'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_a_run_of_another_network_is_refused(finished_run, tmp_path):
  """As it is after a version that names or shapes parameters otherwise."""
  workdir = epath.Path(shutil.copytree(finished_run, tmp_path / 'run'))
  path = workdir / 'config.json'
  config = serialize.load(path)
  config.model.embed_width *= 2
  serialize.save(config, path, serialize.load_label_names(path))
  with pytest.raises(errors.UsageError, match='is of another network: .* Anot'):
    trained.load(workdir)


def test_a_run_whose_checkpoints_are_all_corrupt_is_refused(
  finished_run, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(finished_run, workdir)
  averages = [
    path
    for path in (workdir / 'checkpoints').glob('*/ema/**/*')
    if path.is_file()
  ]
  for path in averages:
    path.write_bytes(b'')
  with pytest.raises(errors.UsageError, match='No checkpoint in'):
    trained.load(workdir)
