"""Checks, files and command line of the configuration."""

import json
import subprocess
import sys

from conftest import ROOT
import pytest

from vdm.config import check
from vdm.config import rules
from vdm.config import schema
from vdm.config import serialize
from vdm.config import suggest

SCRIPT = """
from absl import app, flags
from vdm.config import flag
flag.define()
flags.DEFINE_string('workdir', 'runs/none', '')
def main(argv):
  config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
  print([config.model.widths, config.optim.clip_norm, config.train.tensorboard,
         config.stages.video.steps, config.is_locked, workdir])
if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
"""
CONFIG = """
from vdm.config import schema
def get_config(variant=''):
  if variant not in ('', 'smoke'):
    raise ValueError(f'{variant!r} is no variant: it takes smoke.')
  config = schema.default()
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=200)
  config.stages.video = schema.stage(
    steps=100 if variant else 200, frames=16)
  config.train.order = ('autoencoder', 'video')
  return config
"""


# A run in the latents of published weights.
TINY = {
  'autoencoder__kind': 'tiny',
  'autoencoder__weights': 'encoder.pth,decoder.pth',
  'train__order': ('video',),
}


def make_config():
  config = schema.default()
  config.stages.autoencoder = schema.stage(objective='autoencoder', steps=200)
  config.stages.video = schema.stage(steps=200, frames=16)
  config.train.order = ('autoencoder', 'video')
  return config


def changed(**values):
  config = make_config()
  config.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in values.items()}
  )
  return config


def test_good_config_breaks_no_rule():
  assert not list(rules.problems(make_config()))


def test_good_config_passes():
  check.validate(make_config())


def test_tables_name_keys_and_defaults_that_exist():
  keys = serialize.flatten(schema.default()) | {
    f'stage.{key}': value
    for key, value in serialize.flatten(schema.stage()).items()
  }
  for key, choices in check.CHOICES.items():
    assert keys[key] in choices, key
  tables = check.POSITIVE | check.SIGNED | check.SHARES
  assert tables <= keys.keys()
  assert not check.POSITIVE & check.SIGNED


@pytest.mark.parametrize(
  'values, words',
  [
    ({'optim__name': 'adam'}, "config.optim.name='adam' .* adamw?"),
    ({'autoencoder__factor': 16}, 'autoencoder.factor=16 is not one of 4, 8'),
    ({'stages__video__objective': 'difusion'}, 'did you mean diffusion?'),
    ({'model__widths': (8.5, 16)}, '8.5 is not an integer'),
    ({'model__widths': (8, True)}, 'True is not an integer'),
    ({'model__widths': (8, -16)}, 'widths=-16 is not positive'),
    ({'optim__clip_norm': -1.0}, 'clip_norm=-1.0 is negative'),
    ({'optim__clip_norm': float('nan')}, 'not a finite number'),
    ({'model__dropout': 1.5}, 'dropout=1.5 is a share'),
    ({'stages__video__steps': 0}, 'steps=0 is not positive'),
    ({'train__order': ()}, 'order is empty'),
    ({'train__order': ('autoencoder', 'vido')}, 'did you mean video?'),
    ({'train__order': ('autoencoder',) * 2}, 'a stage twice'),
    ({'train__order': ('video',)}, 'starts with no autoencoder stage'),
    ({'train__order': ('video', 'autoencoder')}, 'no autoencoder stage'),
    ({'autoencoder__kind': 'identity'}, 'kind=identity leaves nothing'),
    ({'autoencoder__load': 'runs/a'}, 'autoencoder.load leaves nothing'),
    ({'autoencoder__kind': 'tiny'}, 'kind=tiny leaves nothing'),
    (
      {'autoencoder__kind': 'tiny', 'train__order': ('video',)},
      'set config.autoencoder.weights to its files',
    ),
    ({'autoencoder__weights': 'a.pth'}, 'and kind=kl is none'),
    (
      TINY | {'autoencoder__load': 'runs/a'},
      'load and weights are both set',
    ),
    (TINY | {'autoencoder__weights_sha256': '12ab'}, "'12ab' is no sha256"),
    (
      TINY | {'autoencoder__weights_sha256': ','.join(['0' * 64] * 3)},
      '3 hashes for the 2 files',
    ),
    (
      {'stages__video__batch': 7, 'stages__video__accumulate': 2},
      'batch=7 is not divisible by accumulate=2',
    ),
    ({'stages__video__resolution': 128}, 'above config.data.resolution=64'),
    ({'stages__autoencoder__resolution': 60}, 'not divisible by 8'),
    ({'stages__video__resolution': 56}, 'not divisible by 16'),
    ({'stages__autoencoder__crop': 72}, 'crop=72 is above resolution=64'),
    ({'stages__autoencoder__crop': 20}, 'crop=20 is not divisible by 8'),
    ({'stages__autoencoder__zoom': (0.5, 1.0)}, 'both at least 1'),
    ({'stages__autoencoder__zoom': (1.0, 2.0)}, 'is 1 times resolution=64'),
    ({'autoencoder__bottleneck': 'fsq'}, 'channels=4 fits'),
    (
      {
        'autoencoder__bottleneck': 'fsq',
        'autoencoder__channels': 2,
        'autoencoder__levels': (8, 1),
      },
      'at least 2 values',
    ),
    ({'autoencoder__decoder_temporal': True}, 'has no neighbours'),
    ({'autoencoder__kind': 'pca'}, 'kind=pca leaves nothing to train'),
    ({'stages__video__frames': 17}, 'spans 17 frames'),
    ({'data__stride': 2}, 'spans 31 frames'),
    ({'data__screening__rules': ('cut',)}, 'did you mean cuts?'),
    ({'data__screening__min_motion': 5.0}, 'min_motion is above max_motion'),
    ({'data__screening__min_distinct': 1.5}, 'a share: at most 1'),
    ({'data__clip_frames': 8, 'data__min_frames': 16}, 'no clip would be left'),
    ({'data__group': '(a'}, 'is no pattern: missing'),
    ({'data__captions__boilerplate': ('[',)}, 'is no pattern: unterminated'),
    (
      {'data__captions__manifest': 'm.csv', 'data__captions__caption': ''},
      'give both',
    ),
    ({'stages__video__warmup': 300}, 'warmup=300 is above steps=200'),
    (
      {'stages__video__frame_levels__shared': 0.0},
      'frame_levels are all 0',
    ),
    ({'model__blocks': (1,)}, 'differ in length'),
    ({'model__attention_levels': (2,)}, 'the last is 1'),
    ({'model__temporal_levels': (0,)}, 'names level 1, which is not in'),
    ({'diffusion__logsnr_min': 20.0}, 'logsnr_min is not below logsnr_max'),
    ({'sample__sigma_min': 60.0}, 'sigma_min is not below sigma_max'),
    ({'diffusion__bin_edges': (0.0, 0.0)}, 'does not rise'),
    ({'diffusion__eval_levels': ()}, 'eval_levels is empty'),
    ({'sample__guidance_interval': (3.0, 1.0)}, 'is not .low, high'),
    ({'sample__method': 'heun', 'sample__eta': 0.5}, 'for ddim alone'),
    ({'optim__ema': (0.05, 0.3)}, 'below 0.288'),
    ({'score__best': 'fvd'}, "score.best='fvd' is not one of"),
    ({'score__num': 3}, 'score.num=3 is too few'),
    ({'sample__ema': 0.2}, 'ema=0.2 is not kept'),
  ],
)
def test_impossible_values_are_named(values, words):
  config = make_config()
  # An unlocked, untyped copy: what a careless file in configs/ could hold.
  config = schema.ConfigDict(config.to_dict(), type_safe=False)
  config.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in values.items()}
  )
  with pytest.raises(ValueError, match=words) as error:
    check.validate(config)
  assert '\n' not in str(error.value)


def test_keys_that_a_file_adds_or_leaves_out_are_named():
  config = make_config()
  config.model.widht = 64
  with pytest.raises(ValueError, match=r'did you mean config\.model\.widths'):
    check.validate(config)
  config = make_config()
  del config.stages.video.frozen
  with pytest.raises(ValueError, match=r'stages\.video\.frozen is missing'):
    check.validate(config)


def test_identity_needs_no_autoencoder_stage():
  config = changed(autoencoder__kind='identity', train__order=('video',))
  # 60 is no multiple of the autoencoder's 8, but of the U-Net's 2.
  config.stages.video.resolution = 60
  check.validate(config)


def test_published_weights_need_no_autoencoder_stage():
  check.validate(changed(**TINY))
  hashes = ','.join(['0' * 64, 'f' * 64])
  check.validate(changed(**TINY, autoencoder__weights_sha256=hashes))
  config = changed(**TINY, stages__video__resolution=56)
  with pytest.raises(ValueError, match='the autoencoder divides it by 8'):
    check.validate(config)


def test_batches_divide_over_devices_and_hosts():
  config = changed(stages__video__batch=24, stages__video__accumulate=2)
  check.check_devices(config, num_devices=4, num_hosts=2)
  with pytest.raises(ValueError, match='multiple of 16, such as 32'):
    check.check_devices(config, num_devices=8, num_hosts=2)
  config.train.fsdp = 3
  with pytest.raises(ValueError, match='fsdp=3 does not divide the 4'):
    check.check_devices(config, num_devices=4)


@pytest.mark.parametrize(
  'name, nearest',
  [
    ('model.widht', 'model.widths'),
    ('modle.widths', 'model.widths'),
    ('learning_rate', 'stages.video.learning_rate'),
    ('model.guidance', 'sample.guidance'),
    ('stages.vidoe.batch', 'stages.video.batch'),
  ],
)
def test_nearest(name, nearest):
  keys = list(serialize.flatten(make_config()))
  keys = [key for key in keys if not key.startswith('stages.autoencoder.')]
  assert suggest.nearest(name, keys) == nearest


def test_hash_is_of_the_values():
  config = make_config()
  shuffled = schema.ConfigDict(dict(reversed(list(config.to_dict().items()))))
  assert serialize.config_hash(shuffled) == serialize.config_hash(config)
  other = changed(seed=1)
  assert serialize.config_hash(other) != serialize.config_hash(config)
  # printf '{"a":{"c":0.5},"b":[1,2]}' | sha256sum
  small = schema.ConfigDict({'b': (1, 2), 'a': {'c': 0.5}})
  assert serialize.config_hash(small) == (
    '54715e9ef380776089eae66cb17281e6a9468100a865b15cdde5eff97862d11e'
  )


def test_save_and_load(tmp_path):
  config = changed(optim__clip_norm=2.0, stages__video__frozen=('a/.*',))
  path = tmp_path / 'config.json'
  serialize.save(config, path, label_names=['right', 'left'])
  loaded = serialize.load(path)
  assert serialize.flatten(loaded) == serialize.flatten(config)
  assert isinstance(loaded.model.widths, tuple)
  assert type(loaded.optim.clip_norm) is float
  assert serialize.load_label_names(path) == ['right', 'left']
  assert [file.name for file in tmp_path.iterdir()] == ['config.json']
  check.validate(loaded)


def test_changed_and_damaged_files_are_refused(tmp_path):
  path = tmp_path / 'config.json'
  serialize.save(make_config(), path)
  content = json.loads(path.read_text())
  content['config']['seed'] = 7
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='was changed after the run'):
    serialize.load(path)
  path.write_text(json.dumps(content)[:100])
  with pytest.raises(ValueError, match='is damaged'):
    serialize.load(path)
  path.write_text('[]')
  with pytest.raises(ValueError, match='not the config.json of a run'):
    serialize.load(path)


def test_diff():
  old, new = make_config(), changed(seed=3, stages__video__batch=16)
  new.stages.more = schema.ConfigDict({'steps': 5})
  assert serialize.diff(old, new) == [
    'seed: 0 -> 3',
    'stages.more.steps: (no such key) -> 5',
    'stages.video.batch: 8 -> 16',
  ]
  assert serialize.diff(old, old) == []


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('command')
  (folder / 'configs').mkdir()
  (folder / 'configs/synthetic.py').write_text(CONFIG)
  (folder / 'command.py').write_text(SCRIPT)
  return folder


def run(folder, *arguments):
  return subprocess.run(
    [sys.executable, 'command.py', *arguments],
    cwd=folder,
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_overrides_reach_the_command(folder):
  result = run(
    folder,
    '--config=configs/synthetic.py:smoke',
    '--config.model.widths=(8,16)',
    '--config.optim.clip_norm=2',
    '--noconfig.train.tensorboard',
    '--workdir',
    'a folder',
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.strip() == "[(8, 16), 2.0, False, 100, True, 'a folder']"


@pytest.mark.parametrize(
  'arguments, words',
  [
    ('--config.model.widht=64', 'did you mean --config.model.widths?'),
    ('--config.learning_rate=1', '.video.learning_rate?'),
    ('--config.stages.vidoe.batch=8', '--config.stages.video.batch?'),
    ('--config.stages.video.steps=1e5', 'takes an integer'),
    ('--config.stages.video.steps=2.5', 'takes an integer'),
    ('--config.optim.clip_norm=high', 'takes a number'),
    ('--config.model.widths=8', 'takes a tuple'),
    ('--config.train.tensorboard=maybe', 'takes true or false'),
    ('--config.model=8', '--config.model is a group of keys'),
    ('--config.stages.video.batch=0', 'batch=0 is not positive'),
    ('--model.widths=8', 'did you mean --config.model.widths?'),
    ('--wrkdir=x', 'did you mean --workdir?'),
    ('stray', "'stray' belongs to no flag"),
    ('-- --config.seed=1', 'belongs to no flag'),
    ('--config=configs/synthetik.py', 'did you mean configs/synthetic.py?'),
    ('--config=configs/synthetic.py:smok', "'smok' is no variant"),
  ],
)
def test_mistakes_end_in_one_sentence(folder, arguments, words):
  result = run(
    folder, '--config', 'configs/synthetic.py', *arguments.split(' ')
  )
  assert words in result.stderr
  assert result.stderr.count('\n') == 1
  assert result.returncode == 2
  assert result.stdout == ''


def test_config_is_required(folder):
  result = run(folder)
  assert result.stderr.startswith('--config is missing')
  assert (result.returncode, result.stderr.count('\n')) == (2, 1)
