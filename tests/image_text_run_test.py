"""A run from words on a published image model, with an encoder like CLIP.

A small pipeline in diffusers' layout with random weights, from encoding the
captions to videos of an export. Some minutes on two cores:

    bash launch/test.sh -m slow tests/image_text_run_test.py
"""

import json

from absl import flags
from absl.testing import flagsaver
import image_text_test
import jax
import numpy as np
import pytest
import text_encoder_test
import text_run_test

from vdm import models
from vdm import sample
from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.data import text_cache
from vdm.models import safetensors
from vdm.models.image_unets import inflated
from vdm.models.image_unets import names
from vdm.preparation import datasets
from vdm.preparation import encode_captions
from vdm.preparation import text_encoder
from vdm.publishing import export
from vdm.sampling import denoised

WIDTH = text_encoder_test.WIDTH
DESCRIPTION = image_text_test.DESCRIPTION | dict(cross_attention_dim=WIDTH)
SCHEDULER = dict(prediction_type='epsilon', beta_schedule='scaled_linear')
PROMPT = 'a red disc'


def write_unet(folder, config):
  """Writes a random U-Net under its published names."""
  own = config.copy_and_resolve_references()
  own.model.architecture = json.dumps(DESCRIPTION)
  shapes = models.make_unet(own.model, 3).abstract_params()['image']
  random = np.random.RandomState(0)
  flat = {
    path: 0.3 * random.standard_normal(x.shape).astype('f')
    for path, x in trees.flatten(shapes).items()
  }
  layers = names.table(inflated.parse('conditional', own.model.architecture))
  tensors = names.to_published(layers, 'diffusers', flat)
  for name, content in (
    ('unet/config.json', DESCRIPTION),
    ('scheduler/scheduler_config.json', SCHEDULER),
  ):
    (folder / name).parent.mkdir()
    (folder / name).write_text(json.dumps(content))
  path = folder / 'unet/diffusion_pytorch_model.safetensors'
  path.write_bytes(safetensors.to_bytes(tensors, {}))
  return str(path)


@pytest.fixture(scope='module')
def config(data_root, tmp_path_factory):
  """Of a run whose captions have been encoded."""
  folder = tmp_path_factory.mktemp('pipeline')
  config = text_run_test.make_config(data_root)
  config.autoencoder.update(kind='identity', scale='none')
  config.diffusion.update(prediction='eps', weighting='eps')
  config.model.update(
    kind='conditional',
    temporal_levels=(0,),
    temporal_attention_levels=(),
    joint_attention=False,
  )
  config.model.text.update(
    encoder='pretrained',
    name=text_encoder_test.save_pipeline(folder),
    padded=True,
    length=77,
    features=WIDTH,
    dropout=0.3,
  )
  config.data.texts = str(folder / 'texts')
  config.sample.update(captions=(PROMPT,), guidance=7.5)
  config.train.save_every = 1
  config.stages.video.update(
    steps=3, cooldown=0.0, frozen=(inflated.IMAGE,), learning_rate=1e-2
  )
  config.model.weights = write_unet(folder, config)
  datasets.ensure(config.data)
  encode_captions.build(config)
  return config


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  assert train.train(config, workdir) == 0
  return workdir


def ask(source, out, **values):
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(workdir=str(source), out=str(out), **values):
    sample.main([])
  with np.load(out / 'samples.npz', allow_pickle=False) as found:
    return found['videos'].astype(int)


@pytest.mark.slow
def test_the_empty_prompt_is_the_runs(config, run):
  encoder = text_encoder_test.make_padded(config.model.text.name)
  (empty,) = encoder.encode([''])
  found = trained.load(run).params['null_text']
  np.testing.assert_array_equal(
    found, text_cache.Texts(config.data.texts).null()
  )
  np.testing.assert_allclose(found, empty, atol=2e-3)
  assert np.std(found) > 0.1


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
  config, run, tmp_path
):
  shorter = config.copy_and_resolve_references()
  shorter.stages.video.steps = 2
  assert train.train(shorter, tmp_path) == 0
  assert train.train(config, tmp_path, accept_changes=True) == 0
  found, whole = (
    trees.flatten(trained.load(x).params) for x in (tmp_path, run)
  )
  assert found.keys() == whole.keys()
  for path, array in whole.items():
    np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.slow
def test_prompts_are_encoded_and_followed(run, tmp_path):
  told = ask(run, tmp_path / 'told', caption=PROMPT, num=2)
  record = json.loads((tmp_path / 'told/samples.json').read_text())
  assert record['captions'] == [PROMPT] * 2 and record['guidance'] == 7.5
  # The same prompt as that of the final videos, encoded anew.
  with np.load(run / 'final/samples.npz', allow_pickle=False) as found:
    final = found['videos'][:2].astype(int)
  assert np.abs(told - final).max() <= 2
  other = ask(run, tmp_path / 'other', caption='a blue square', num=2)
  assert np.abs(told - other).max() > 2
  # An export has the empty prompt, too.
  export.write(run, tmp_path / 'export', export.Options(samples=1))
  model = trained.load(tmp_path / 'export')
  assert isinstance(model.reader, text_encoder.Encoder) and model.reader.padded
  # It has no path of this machine.
  with pytest.raises(SystemExit):
    ask(tmp_path / 'export', tmp_path / 'a', caption=PROMPT, num=2)
  folder = trained.load(run).config.model.text.name
  again = ask(
    tmp_path / 'export',
    tmp_path / 'again',
    **dict(caption=PROMPT, num=2, text_encoder=folder),
  )
  np.testing.assert_array_equal(again, told)


@pytest.mark.slow
def test_guidance_is_by_the_empty_prompt(config, run):
  """x0_null + 7.5 (x0_text - x0_null), the empty prompt told as a caption."""
  from vdm.models import autoencoders

  model = trained.load(run)
  model.config.sample.guidance = 7.5
  codec = autoencoders.make_autoencoder(model.config.autoencoder)
  denoise = denoised.make_denoiser(model.config, codec)
  encoder = text_encoder_test.make_padded(config.model.text.name)
  told = {'label': np.array([-1])}
  mask = np.ones((1, 77), bool)
  z = np.random.RandomState(0).standard_normal((1, 4, 16, 16, 3)).astype('f')
  levels = np.full((1, 4), 0.5, np.float32)

  @jax.jit
  def predict(text):
    return denoise(
      model.params, z, levels, told | dict(text=text, text_mask=mask)
    )

  tokens, empty = encoder.encode([PROMPT, ''])
  null, text = (np.asarray(predict(x[None])) for x in (empty, tokens))

  @jax.jit
  def guided(z):
    cond = told | dict(text=tokens[None], text_mask=mask)
    return denoised.guide(
      model.config, lambda *x: denoise(model.params, *x), cond
    )(z, levels)

  wanted = null + 7.5 * (text - null)
  error = np.linalg.norm(np.asarray(guided(z)) - wanted)
  assert error < 5e-3 * np.linalg.norm(wanted)  # The stored one is float16.
  assert np.linalg.norm(text - null) > 1e-2 * np.linalg.norm(text)


@pytest.mark.slow
def test_another_encoder_is_refused(config, run, tmp_path):
  other = config.copy_and_resolve_references()
  other.model.text.name = text_encoder_test.save_pipeline(
    tmp_path / 'b', seed=1
  )
  other.data.texts = str(tmp_path / 'texts')
  encode_captions.build(other)
  # Training, of the run's name with the texts of another encoder.
  plan = tmp_path / 'texts/texts.json'
  content = json.loads(plan.read_text()) | {'name': config.model.text.name}
  plan.write_text(json.dumps(content))
  mixed = config.copy_and_resolve_references()
  mixed.data.texts = other.data.texts
  with pytest.raises(errors.UsageError, match='with sha256 '):
    train.train(mixed, run, accept_changes=True)
  with pytest.raises(SystemExit):
    ask(run, tmp_path / 'a', caption=PROMPT, text_encoder=other.model.text.name)
