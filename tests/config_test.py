"""Keys, checks and files of the configuration."""

import json
import math

import pytest

from vdm import models
from vdm.common import errors
from vdm.common import trees
from vdm.config import check
from vdm.config import keys
from vdm.config import rules
from vdm.config import schema
from vdm.config import serialize
from vdm.config import suggest

# A run in the latents of published weights.
GROUPS = {'autoencoder__time_factor': 2, 'stages__autoencoder__frames': 2}
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


def test_defaults_meet_their_constraints():
  config = schema.default()
  config.stages.video = schema.stage()
  of_run = schema.keys(['video'])
  assert serialize.flatten(config) == {
    name: key.default for name, key in of_run.items()
  }
  wrong = [name for name, key in of_run.items() if key.problem(key.default)]
  assert wrong == ['stages.video.steps']


@pytest.mark.parametrize(
  'key, good, bad',
  [
    (keys.plain(1), (0, 2), (-1, True, 1.0, '1', (1,))),
    (keys.plain(1.0), (0, 2.0), (-1.0, math.inf, math.nan, False)),
    (keys.plain(False), (True,), (1, 'True')),
    (keys.plain(''), ('a',), (1, None)),
    (keys.plain(()), (('a', 'b'), ()), ((1,), 'a', ['a'])),
    (keys.signed(0.0), (-1.0, -1, 1.0), (-math.inf, math.nan)),
    (keys.positive(0.5), (1, 0.1), (0, 0.0, -1.0)),
    (keys.positive((1, 2)), ((3,), ()), ((1, 0), (0.5,), 1)),
    (keys.at_least(2, (2,)), ((2, 3),), ((2, 1),)),
    (keys.below(0.3, (0.1,)), ((0.2, 0.1),), ((0.3,), (0.1, 0.0))),
    (keys.share(0.5), (0.0, 1, 1.0), (-0.1, 1.1)),
    (keys.even(2), (4,), (3, 0, -2)),
    (keys.one_of('a', 'b'), ('a', 'b'), ('c', '', ('a',))),
    (keys.one_of(8, 4), (4, 8), (6, 4.0)),
    (keys.some_of(('a', 'b')), ((), ('b', 'a')), (('c',), 'a')),
    (keys.regex(''), ('a+',), ('(a',)),
    (keys.regex(('a',)), ((), ('b', 'c')), (('b', '['),)),
    (
      keys.factors(),
      ((), (('^a/', 0.1), ('b', 2))),
      (('^a/', 0.1), (('^a/', 0.0),), (('(', 0.1),), ((0.1, 'a'),), (('a',),)),
    ),
    (keys.rising((0.0, 1.0)), ((-1.0, 2.0), ()), ((1.0, 1.0), (2.0, 1.0))),
    (keys.interval((0.0, 1.0)), ((-2.0, -2.0),), ((1.0, 0.0), (1.0,))),
    (keys.interval((1.0, 1.0), least=1.0), ((1.0, 2.0),), ((0.9, 2.0),)),
  ],
)
def test_constraints(key, good, bad):
  assert not key.problem(key.default)
  for value in good:
    assert not key.problem(value), value
  for value in bad:
    assert key.problem(value).endswith(('.', '?')), value


@pytest.mark.parametrize(
  'values, words',
  [
    ({'optim__name': 'adam'}, "config.optim.name='adam' .* adamw?"),
    ({'autoencoder__factor': 16}, 'autoencoder.factor=16 is not one of 8, 4'),
    ({'stages__video__objective': 'difusion'}, 'did you mean diffusion?'),
    ({'model__widths': (8.5, 16)}, '8.5 is not an integer'),
    ({'model__widths': (8, True)}, 'True is not an integer'),
    ({'model__widths': (8, -16)}, 'widths=-16 is not positive'),
    ({'optim__clip_norm': -1.0}, 'clip_norm=-1.0 is negative'),
    ({'optim__clip_norm': float('nan')}, 'not a finite number'),
    ({'model__dropout': 1.5}, 'dropout=1.5 is not a share'),
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
    ({'autoencoder__weights': 'a.pth'}, 'kind=kl is not one of them'),
    (
      TINY | {'autoencoder__load': 'runs/a'},
      'load and weights are both set',
    ),
    (TINY | {'autoencoder__weights_sha256': '12ab'}, "'12ab' is not a sha256"),
    (
      TINY | {'autoencoder__weights_sha256': ','.join(['0' * 64] * 3)},
      '3 hashes for the 2 files',
    ),
    (
      GROUPS | {'stages__video__frames': 17},
      'frames=17 is not divisible by config.autoencoder.time_factor=2',
    ),
    (
      GROUPS | {'stages__video__frame_levels__first': 0.2},
      'gives a single frame',
    ),
    (
      GROUPS | {'stages__video__image_fraction': 0.2},
      'takes single frames',
    ),
    (GROUPS | {'data__latents': 'z'}, 'latents of single frames'),
    (TINY | GROUPS, 'kind=tiny are of single frames'),
    ({'diffusion__sigma_data': 0.5}, 'is of prediction=edm and weighting=edm'),
    (
      {'model__time_patch': 2, 'stages__video__frames': 9},
      'frames=9 is not divisible by 2, the frames of a position',
    ),
    (
      GROUPS | {'model__time_patch': 4, 'stages__video__frames': 12},
      'frames=12 is not divisible by 8',
    ),
    (
      {'model__time_patch': 2, 'stages__video__image_fraction': 0.2},
      'a position has 2: set it to 0',
    ),
    (
      {
        'model__time_patch': 2,
        'model__kind': 'adm',
        'model__architecture': '{}',
      },
      'is of kind=unet',
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
      'levels=1 is below 2',
    ),
    ({'autoencoder__decoder_temporal': True}, 'has no neighbours'),
    (
      GROUPS | {'autoencoder__decoder_temporal': True},
      'frames=2 is one latent, which has no neighbours',
    ),
    ({'autoencoder__kind': 'pca'}, 'kind=pca leaves nothing to train'),
    *[
      (
        values | {'autoencoder__kind': 'pca', 'train__order': ('video',)},
        r'is of kind=kl, and kind=pca does not read it: leave it at \w+\.',
      )
      for values in (
        {'autoencoder__bottleneck': 'fsq'},
        {'autoencoder__decoder_temporal': True},
        {'autoencoder__adversarial_weight': 0.05},
      )
    ],
    *[
      (values, r'is of kind=autoencoder_kl, and kind=kl does not .* at [01.]+')
      for values in (
        {'autoencoder__scaling_factor': 0.18215},
        {'autoencoder__shift_factor': 0.1},
        {'autoencoder__norm_groups': 32},
      )
    ],
    (TINY | {'autoencoder__norm_groups': 32}, 'kind=tiny does not read it'),
    ({'stages__video__frames': 17}, 'spans 17 frames'),
    ({'data__stride': 2}, 'spans 31 frames'),
    ({'data__screening__rules': ('cut',)}, 'did you mean cuts?'),
    ({'data__screening__min_motion': 5.0}, 'min_motion is above max_motion'),
    ({'data__screening__min_distinct': 1.5}, 'is not a share: from 0 to 1'),
    ({'data__clip_frames': 8, 'data__min_frames': 16}, 'no clip would be left'),
    ({'data__group': '(a'}, 'is not a regular expression: missing'),
    (
      {'data__captions__boilerplate': ('[',)},
      'is not a regular expression: unterminated',
    ),
    (
      {'data__captions__manifest': 'm.csv', 'data__captions__caption': ''},
      'give both',
    ),
    (
      {
        'data__captions__min_seconds': 9.0,
        'data__captions__max_seconds': 2.5,
      },
      'max_seconds=2.5 is below min_seconds=9: raise it',
    ),
    (
      {'data__captions__max_words': 2},
      'max_words=2 is below min_words=3: raise it, or set it to 0 for any',
    ),
    ({'stages__video__warmup': 300}, 'warmup=300 is above steps=200'),
    (
      {'stages__video__frame_levels__shared': 0.0},
      'frame_levels are all 0',
    ),
    ({'stages__video__images': 'first'}, 'images=first is of steps on single'),
    ({'stages__video__context_noise': 0.1}, 'context=0 and first=0 give none'),
    ({'model__joint_levels': 5}, 'joint_levels=5 of'),
    (
      {'model__joint_levels': 2, 'model__joint_attention': False},
      'joint_levels=2 is of blocks that attend jointly',
    ),
    ({'model__adapter_alpha': 4.0}, 'adapter_rank=0 makes none: .* at 8'),
    ({'sample__image_first': True}, 'frame_levels.first above 0'),
    (
      {'sample__image_first': True, 'stages__video__frame_levels__first': 0.5},
      'image_fraction above 0',
    ),
    ({'model__blocks': (1,)}, 'differ in length'),
    ({'model__attention_levels': (2,)}, 'the last is 1'),
    (
      {'model__widths': (32, 100)},
      'widths has 100 channels, of which config.model.head_size=32 makes 3 '
      'heads of 33: .*such as 20',
    ),
    (
      {'model__widths': (32, 90), 'model__head_size': 20},
      'makes 4 heads of 22: take an even head_size that divides 90, such as 18',
    ),
    ({'model__widths': (32, 65)}, 'make it even, such as 66'),
    (
      {'model__kind': 'transformer', 'model__transformer__width': 100},
      'transformer.width has 100 channels, of which config.model.head_size=32',
    ),
    (
      {'model__text__encoder': 'learned', 'model__text__width': 100},
      'text.width has 100 channels, of which config.model.head_size=32',
    ),
    ({'model__temporal_levels': (0,)}, 'names level 1, which is not in'),
    ({'diffusion__logsnr_min': 20.0}, 'logsnr_min is not below logsnr_max'),
    ({'sample__sigma_min': 60.0}, 'sigma_min is not below sigma_max'),
    ({'diffusion__bin_edges': (0.0, 0.0)}, 'does not rise'),
    ({'diffusion__eval_levels': ()}, 'eval_levels is empty'),
    ({'sample__guidance_interval': (3.0, 1.0)}, 'is not .low, high'),
    ({'sample__method': 'heun', 'sample__eta': 0.5}, 'for ddim only'),
    ({'optim__ema': (0.05, 0.3)}, 'ema=0.3 is not between 0 and 0.2887'),
    ({'score__best': 'fvd'}, "score.best='fvd' is not one of"),
    ({'score__num': 3}, 'score.num=3 is too few'),
    ({'sample__ema': 0.2}, 'ema=0.2 is not the width of an average'),
    (
      {'model__num_classes': 4, 'model__label_dropout': 0.0},
      'label_dropout=0 leaves the null label untrained',
    ),
    (
      {'model__num_classes': 4, 'model__label_dropout': 1.0},
      'label_dropout=1 replaces every label',
    ),
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


@pytest.mark.parametrize(
  'values', [{'sample.guidance': 1.0}, {'model.num_classes': 0}]
)
def test_without_guidance_every_label_may_be_kept(values):
  config = make_config()
  config.model.update(num_classes=4, label_dropout=0.0)
  config.update_from_flattened_dict(values)
  check.validate(config)


@pytest.mark.parametrize(
  'values, read',
  [
    ({'attention_levels': (0,)}, True),
    # Attention over t reads nothing.
    ({}, False),
    ({'joint_attention': True}, True),
    # Without temporal branches in the middle, none is joint.
    ({'joint_attention': True, 'temporal_levels': (0,)}, False),
    (
      {
        'joint_attention': True,
        'joint_levels': 2,
        'temporal_levels': (0,),
      },
      True,
    ),
    ({'attention_levels': (0,), 'blocks': (0, 1)}, False),
  ],
)
def test_captions_that_no_block_reads_are_refused(values, read):
  config = make_config()
  config.model.text.encoder = 'learned'
  config.model.update(attention_levels=(), joint_attention=False)
  config.model.update(values)
  config.model.temporal_attention_levels = config.model.temporal_levels
  # As the network itself has it.
  network = models.make_network(config.model, 4, ())
  paths = trees.flatten(network.abstract_params())
  assert any('/text/' in path for path in paths) == read
  found = list(rules.problems(config))
  assert any('no block attends over space' in x for x in found) != read


def test_keys_of_a_kind_are_at_their_defaults_or_of_that_kind():
  check.validate(changed(autoencoder__adversarial_weight=0.05))
  values = {'autoencoder__kind': 'autoencoder_kl'}
  config = changed(**TINY | values, autoencoder__scaling_factor=0.18215)
  check.validate(config)


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


@pytest.mark.parametrize(
  'asked, batches, accumulate, devices',
  [
    (1, (8, 16), 1, 1),
    (2, (8, 16), 1, 2),
    (2, (8, 15), 1, 1),  # The stages of a run share their devices.
    (3, (8, 16), 1, 2),
    (3, (9, 12), 1, 3),
    (2, (8, 6), 2, 1),
    (2, (8, 12), 2, 2),
  ],
)
def test_a_cpu_acts_as_devices_that_divide_every_batch(
  asked, batches, accumulate, devices
):
  config = schema.default()
  config.train.update(order=('a', 'b'), cpu_devices=asked)
  for name, batch in zip('ab', batches):
    config.stages[name] = schema.stage(batch=batch, accumulate=accumulate)
  assert check.cpu_devices(config) == devices
  check.check_devices(config, devices)


def test_batches_divide_over_devices_and_processes():
  config = changed(stages__video__batch=24, stages__video__accumulate=2)
  check.check_devices(config, num_devices=4, num_processes=2)
  with pytest.raises(ValueError, match='multiple of 16, such as 32'):
    check.check_devices(config, num_devices=8, num_processes=2)
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
    ('optim.lr', 'stages.video.learning_rate'),
    ('optim.wd', 'optim.weight_decay'),
    ('model.zzz', None),
    ('9', None),
  ],
)
def test_nearest(name, nearest):
  keys = list(serialize.flatten(make_config()))
  keys = [key for key in keys if not key.startswith('stages.autoencoder.')]
  assert suggest.nearest(name, keys) == nearest


def test_hints_name_what_is_near_or_the_few_there_are():
  assert suggest.hint('9', ['right', 'left']) == ': there are right, left.'
  assert suggest.hint('rihgt', ['right', 'left']) == ': did you mean right?'
  assert suggest.hint('x', ['smoke'], '--') == ': there is --smoke.'
  assert suggest.hint('x', map(str, range(100, 200))) == '.'
  assert suggest.hint('x', []) == '.'


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


def test_changed_and_corrupt_files_are_refused(tmp_path):
  path = tmp_path / 'config.json'
  serialize.save(make_config(), path)
  content = json.loads(path.read_text())
  content['config']['seed'] = 7
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='was changed after the run'):
    serialize.load(path)
  path.write_text(json.dumps(content)[:100])
  with pytest.raises(ValueError, match='is not valid JSON'):
    serialize.load(path)
  path.write_text('[]')
  with pytest.raises(ValueError, match='not the config.json of a run'):
    serialize.load(path)


@pytest.mark.parametrize(
  'text, words',
  [
    ('[' * 20_000 + ']' * 20_000, 'not the config.json of a run'),
    ('{"hash": "", "label_names": [], "config": 5}', 'not the config.json'),
    ('{"hash": 5, "label_names": [], "config": {}}', 'not the config.json'),
    ('{"hash": "", "label_names": [5], "config": {}}', 'not the config.json'),
    ('{"hash": "", "label_names": [], "config": {"a.b": 1}}', 'config.json'),
    (
      '{"hash": "", "label_names": [], "config": {"a": %s}}'
      % ('[' * 500 + ']' * 500),
      'config.json',
    ),
  ],
)
def test_what_is_no_configuration_is_refused(tmp_path, text, words):
  path = tmp_path / 'config.json'
  path.write_text(text)
  with pytest.raises(errors.UsageError, match=words):
    serialize.load(path)


def test_bytes_are_refused(tmp_path):
  path = tmp_path / 'config.json'
  path.write_bytes(bytes(range(128, 256)))
  with pytest.raises(errors.UsageError, match='is not valid JSON'):
    serialize.load(path)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'data': 5}, 'config.data=5 is not a group'),
    ({'seed': {'x': {'y': 1}}}, 'config.seed is not a value'),
    ({'seed': 'one'}, "config.seed='one' is not an integer"),
    ({'model': {'widths': 8}}, 'config.model.widths=8 is not a tuple'),
    ({'stages': 5}, 'config.stages is not a group'),
    ({'stages': {'video': 5}}, 'config.stages.video=5 is not a group'),
    ({'train': {'order': ('vido',)}}, 'did you mean video?'),
  ],
)
def test_stored_values_of_other_types_are_refused(change, words):
  config = make_config().to_dict() | change
  with pytest.raises(errors.UsageError) as raised:
    schema.complete(schema.ConfigDict(config))
  assert words in str(raised.value)


def test_runs_of_earlier_versions_are_completed():
  config = changed(seed=3, stages__video__batch=16)
  old = schema.ConfigDict(config.to_dict())
  del old.score, old.train.keep, old.stages.video.zoom
  assert schema.complete(old) == config
  old.train.unknown = 1  # Of a later version: resuming names it.
  assert serialize.diff(schema.complete(old), config) == [
    'train.unknown: 1 -> (no such key)'
  ]


def test_renamed_keys_are_translated(monkeypatch):
  renamed = {
    'optim.clip': 'optim.clip_norm',
    'train.verbose': None,
    'stages.*.lr': 'stages.*.learning_rate',
    'stages.*.decay': None,
  }
  monkeypatch.setattr(schema, 'RENAMED', renamed)
  config = changed(optim__clip_norm=2.0, stages__video__learning_rate=0.5)
  old = schema.ConfigDict(config.to_dict())
  old.optim.clip, old.train.verbose = 2.0, True
  old.stages.video.lr, old.stages.video.decay = 0.5, 'linear'
  del old.optim.clip_norm, old.stages.video.learning_rate
  assert schema.complete(old) == config
  check.validate(schema.complete(old))


def test_renamed_keys_are_gone_and_their_names_exist():
  keys_now = schema.keys('*')
  assert not schema.RENAMED.keys() & keys_now.keys()
  assert set(schema.RENAMED.values()) <= {None, *keys_now}


def test_diff():
  old, new = make_config(), changed(seed=3, stages__video__batch=16)
  new.stages.more = schema.ConfigDict({'steps': 5})
  assert serialize.diff(old, new) == [
    'seed: 0 -> 3',
    'stages.more.steps: (no such key) -> 5',
    'stages.video.batch: 8 -> 16',
  ]
  assert serialize.diff(old, old) == []
