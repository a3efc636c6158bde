"""Text of published image models: what they see with a caption and without.

The captions here are encoded by a formula; tests/text_encoder_test.py has a
run whose encoder is CLIP's network. One step on everything is slow:

    bash launch/test.sh -m slow tests/image_text_test.py
"""

import functools
import json

import image_unet_cases as cases
import image_unets_test as nets
import jax
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm.common import trees
from vdm.config import image_model_rules
from vdm.config import rules
from vdm.data import cache_folder
from vdm.data import text_cache
from vdm.data import text_cache_writer
from vdm.diffusion import conditions
from vdm.models import autoencoders
from vdm.models.image_unets import inflated
from vdm.sampling import denoised
from vdm.training import train_state
from vdm.training import train_step

LENGTH, WIDTH = 4, 6
CAPTIONS = [f'{x} moves' for x in ('a disc', 'a square', 'it')]
DESCRIPTION = dict(
  in_channels=3,
  out_channels=3,
  block_out_channels=[8],
  norm_num_groups=4,
  layers_per_block=1,
  attention_head_dim=2,
  cross_attention_dim=WIDTH,
  down_block_types=['CrossAttnDownBlock2D'],
  mid_block_type=None,
  up_block_types=['CrossAttnUpBlock2D'],
)


def encode(captions):
  """As an encoder that pads: tokens of the empty prompt are not zero."""
  return [
    np.random.default_rng(list(x.encode())).normal(size=(LENGTH, WIDTH))
    for x in captions
  ]


def stored(caption):
  """The tokens of a caption as a cache has them."""
  return encode([caption])[0].astype(np.float16).astype(np.float32)


def write_cache(folder):
  facts = dict(name='tiny', revision='', length=LENGTH, features=WIDTH)
  text_cache_writer.write(
    str(folder),
    facts | dict(padded=True, sha256='a' * 64),
    CAPTIONS,
    encode,
    lambda captions: [LENGTH] * len(captions),
  )
  return str(folder)


def make_config(texts, **stage):
  config = tiny_runs.make_config(**stage)
  config.data.texts = texts
  config.model.update(
    kind='conditional',
    architecture=json.dumps(DESCRIPTION),
    num_classes=0,
    temporal_levels=(),
    temporal_attention_levels=(),
    joint_attention=False,
  )
  config.model.text.update(
    encoder='pretrained',
    name='tiny',
    padded=True,
    length=LENGTH,
    features=WIDTH,
  )
  return config


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
  return write_cache(tmp_path_factory.mktemp('texts') / 'cache')


def batch(texts):
  reader = text_cache.Texts(texts)
  rows = [reader.read(x) for x in (*CAPTIONS, *CAPTIONS, '', 'it moves')]
  told = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  return tiny_runs.batch() | told


# The network, against diffusers.


@pytest.mark.parametrize('name', cases.CONDITIONAL)
def test_without_a_token_it_sees_the_empty_prompt(name):
  values, x = nets.params('conditional', name), cases.frames(4)[None]
  levels = np.array([cases.LEVELS], np.float32)
  tokens, mask = cases.text()
  null = cases.null_text()[None]
  told = {
    'told': (null, np.ones(null.shape[:2], bool)),
    'none': (tokens, np.zeros_like(mask)),  # What is dropped, or guides.
  }
  out = {}
  for key, (tokens, mask) in told.items():
    cond = {'label': np.array([cases.LABEL]), 'text': tokens, 'text_mask': mask}
    out[key] = np.asarray(
      nets.apply('conditional', name)(values, x, levels, cond)
    )[0]
  np.testing.assert_array_equal(out['none'], out['told'])
  theirs = nets.GOLDEN['conditional'][f'{name}/y_null']
  assert nets.relative(out['none'], theirs) < 3e-5
  # It is not that of the caption.
  other = nets.GOLDEN['conditional'][f'{name}/y']
  assert nets.relative(other, theirs) > 0.01


def test_guidance_is_by_the_empty_prompt():
  """eps_null + s (eps_text - eps_null), of what diffusers' network returns."""
  name = 'sd1'
  config = nets.run_config('conditional', name)
  config.sample.guidance = 7.5
  tokens, mask = cases.text()
  cond = {'label': np.array([-1]), 'text': tokens, 'text_mask': mask}
  codec = autoencoders.make_autoencoder(config.autoencoder)
  denoise = functools.partial(
    denoised.make_denoiser(config, codec), nets.params('conditional', name)
  )
  levels = np.array([cases.LEVELS], np.float32)
  z = cases.frames(4)[None]
  x0 = jax.jit(denoised.guide(config, denoise, cond))(z, levels)
  level = levels[0, :, None, None, None].astype(np.float64)
  alpha, sigma = (1 / (1 + np.exp(x)) ** 0.5 for x in (-level, level))
  eps = (z[0] - alpha * np.asarray(x0[0], np.float64)) / sigma
  golden = nets.GOLDEN['conditional']
  null, text = golden[f'{name}/y_null'], golden[f'{name}/y']
  assert nets.relative(eps, null + 7.5 * (text - null)) < 1e-4


# A run.


def test_a_padded_cache_has_the_empty_prompt(texts):
  cache = text_cache.Texts(texts)
  np.testing.assert_array_equal(cache.null(), stored(''))
  assert cache.plan['captions'] == len(CAPTIONS) + 1
  found = cache.read(CAPTIONS[0])
  np.testing.assert_array_equal(found['text'], stored(CAPTIONS[0]))
  assert found['text_mask'].all()
  # Nothing told is no token, here and for every other encoder.
  assert not cache.read('')['text_mask'].any()


def test_a_cache_of_the_other_kind_is_refused(texts):
  text = make_config(texts).model.text
  assert text_cache.open_cache(texts, text)
  text.padded = False
  with pytest.raises(cache_folder.CacheError, match='padded True, not Fals'):
    text_cache.open_cache(texts, text)


def test_rows_that_lose_their_caption_see_the_empty_prompt(texts):
  config = make_config(texts)
  config.model.text.dropout = 0.5
  run = tiny_runs.Run(config)
  rows = run.objective.draw(batch(texts), jax.random.key(3), 0)
  gone = ~np.asarray(rows['text_mask']).any(axis=1)
  assert 2 <= gone.sum() <= 7 and gone[6]
  params = {**run.initial.params, 'null_text': stored('')}
  cond = conditions.of(rows)
  network = models.make_unet(config.model, 3)
  z = np.random.default_rng(0).normal(size=(8, 3, 4, 4, 3)).astype('f')
  predict = jax.jit(network.apply)
  found = np.asarray(predict(params, z, rows['levels'], cond))
  by_hand = np.where(gone[:, None, None], stored(''), rows['text'])
  told = cond | {'text': by_hand, 'text_mask': np.ones((8, LENGTH), bool)}
  wanted = np.asarray(predict(params, z, rows['levels'], told))
  np.testing.assert_array_equal(found, wanted)
  zeros = told | {'text': np.asarray(rows['text'])}
  assert np.abs(predict(params, z, rows['levels'], zeros) - found)[gone].max()


def begin(texts):
  """(run, its first state) of a stage that freezes nothing."""
  config = make_config(texts, warmup=1, learning_rate=1e-2)
  config.optim.weight_decay = 0.1
  run = tiny_runs.Run(config)
  state = train_state.initialise(
    config.optim, run.objective, jax.random.key(0), {}, run.mesh
  )
  run.trained, _ = train_step.trained_by(run.stage, run.objective, state.params)
  return run, state


def test_no_stage_trains_the_empty_prompt(texts):
  """Nothing is frozen, and it has neither moments nor averages."""
  run, state = begin(texts)
  assert run.objective.constant == (image_model_rules.NULL_TEXT,)
  assert inflated.NULL_TEXT in run.objective.abstract_params()
  np.testing.assert_array_equal(state.params['null_text'], stored(''))
  assert 'null_text' not in state.opt_state
  assert not any('null_text' in average for average in state.ema.values())
  flat = trees.flatten(state.params)
  assert set(run.trained) == flat.keys() - {'null_text'}
  # What makes videos has it.
  averaged = train_state.averaged(state, run.config.optim.ema[0])
  np.testing.assert_array_equal(averaged['null_text'], stored(''))


@pytest.mark.slow
def test_a_step_on_everything_leaves_the_empty_prompt(texts):
  run, state = begin(texts)
  run.initial = jax.tree.map(np.asarray, state)
  run.build()
  after, metrics = run.train([batch(texts)])
  assert np.isfinite(metrics[0]['loss'][0])
  np.testing.assert_array_equal(after.params['null_text'], stored(''))
  before = trees.flatten(state.params)
  changed = {
    path
    for path, x in trees.flatten(after.params).items()
    if not np.array_equal(x, before[path])
  }
  assert any('/text/k' in path for path in changed)


def test_another_run_brings_its_branches_and_not_its_empty_prompt(texts):
  config = make_config(texts)
  made = tiny_runs.Run(config).objective
  assert made.imported == (image_model_rules.NULL_TEXT,)
  config.model.weights = 'a file'
  made = tiny_runs.Run(config).objective
  assert inflated.IMAGE in made.imported and len(made.imported) == 2
  assert made.excluded_paths(False) == (image_model_rules.NULL_TEXT,)


@pytest.mark.parametrize(
  'changes',
  [{'model.kind': 'unet', 'model.architecture': ''}, {'model.kind': 'adm'}],
)
def test_padding_is_of_models_that_attend_to_text(changes, texts):
  config = make_config(texts)
  assert not any('padded' in x for x in rules.problems(config))
  config.update_from_flattened_dict(changes)
  assert any('text.padded=True' in x for x in rules.problems(config))
