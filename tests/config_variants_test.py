"""Every config file, in every variant, is one the code can run."""

import importlib.util

from conftest import ROOT
import pytest

from vdm.config import check
from vdm.config import serialize
from vdm.config import variants

VARIANTS = {
  'synthetic': (
    '',
    'smoke',
    'overfit',
    'given',
    'given,smoke',
    'few_steps',
    'few_steps,smoke',
    'steady',
    'steady,smoke',
    'gpu',
    'gpu,smoke',
  ),
  'synthetic_text': ('', 'smoke', 'overfit'),
  'synthetic_cascade': (
    '',
    'smoke',
    'frames',
    'frames,smoke',
    'enlarge',
    'enlarge,smoke',
    'crossing',
    'frames,crossing',
    'frames,crossing,smoke',
  ),
  'synthetic_inflate': ('', 'image', 'all', 'smoke', 'image,smoke'),
  'synthetic_tokens': ('', 'smoke', 'overfit', 'given'),
  'video_folder': (
    '',
    'smoke',
    'overfit',
    'enlarge',
    'enlarge,smoke',
    'cpu',
    'cpu,smoke',
  ),
  'ucf101_autoencoder': (
    '',
    'smoke',
    '128',
    'f8c16',
    'fsq',
    'sharp',
    'temporal',
    'cpu',
    '128,fsq,temporal,smoke',
  ),
  'driving': ('', 'smoke', 'overfit', 'wide', 'wide,smoke'),
  'webvid': ('', 'smoke', 'overfit'),
  'inflate': (
    '',
    'smoke',
    'sd15',
    'sd21',
    'bksdm',
    'all',
    'sd21,all',
    'all,smoke',
  ),
  'ucf101': (
    '',
    'smoke',
    'overfit',
    '64x32',
    '128x16',
    'uncond',
    'given',
    'told',
    'given,told',
    'told,smoke',
    'tokens',
    'tokens,128x16,given',
    'tokens,smoke',
    'tokens,overfit',
    '128x16,uncond,smoke',
  ),
}


def get_config(name, variant=''):
  path = ROOT / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


@pytest.mark.parametrize(
  'name, variant', [(n, v) for n, vs in VARIANTS.items() for v in vs]
)
def test_config_is_valid(name, variant):
  config = get_config(name, variant)
  check.validate(config)
  assert serialize.config_hash(config) == serialize.config_hash(
    get_config(name, variant)
  )


def test_every_config_file_is_tested():
  files = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert files == set(VARIANTS)


@pytest.mark.parametrize('name', VARIANTS)
def test_smoke_swaps_neither_data_nor_stages(name):
  full, small = get_config(name), get_config(name, 'smoke')
  kept = [
    line
    for line in serialize.diff(full, small)
    if line.startswith(('data.', 'diffusion.', 'train.order'))
    and not line.startswith(('data.scenes.', 'data.threads'))
  ]
  assert kept == []
  assert all(stage.steps <= 60 for stage in small.stages.values())


@pytest.mark.parametrize('name', ['synthetic', 'ucf101'])
def test_given_changes_the_levels_of_videos(name):
  given = get_config(name, 'given')
  if name == 'ucf101':  # The demo's network sees outlines in other frames, too.
    changed = serialize.diff(get_config(name), given)
    assert all('.frame_levels.' in x or '.context_noise' in x for x in changed)
  for stage in given.stages.values():
    trains = stage.objective == 'diffusion' and stage.frames > 1
    assert (stage.frame_levels.context > 0) == trains
    assert (stage.frame_levels.independent > 0) == trains


def test_overfit_keeps_the_first_and_the_last_stage():
  config = get_config('ucf101', 'overfit')
  assert config.train.order == ('autoencoder', 'video')
  assert set(config.stages) == {'autoencoder', 'video'}
  assert config.data.fixed_clips == 2
  # The autoencoder has to know every frame that the videos consist of.
  assert {stage.frames for stage in config.stages.values()} == {16}


@pytest.mark.parametrize('name', VARIANTS)
def test_unknown_variant_names_the_known_ones(name):
  with pytest.raises(ValueError, match="no variant 'somke', only .*smoke"):
    get_config(name, 'somke')


def test_variants_need_no_particular_config():
  config = get_config('ucf101', '128x16')
  variants.smoke(config)
  check.validate(config)
