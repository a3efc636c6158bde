"""What masked tokens need of a configuration, each problem in one sentence."""

from config_variants_test import get_config
import pytest

from vdm.common import errors
from vdm.config import check
from vdm.config import sampling
from vdm.config import schema


def make_config(**values):
  config = get_config('synthetic_tokens', 'smoke')
  config.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in values.items()}
  )
  return config


@pytest.mark.parametrize(
  'values, words',
  [
    (dict(model__kind='unet'), 'set config.model.kind=transformer'),
    (
      dict(stages__video__objective='diffusion'),
      'config.stages.video adds noise: set its objective to tokens',
    ),
    (dict(autoencoder__bottleneck='kl'), 'bottleneck=fsq'),
    (
      dict(
        autoencoder__kind='pca',
        autoencoder__bottleneck='kl',
        autoencoder__decoder_temporal=False,
        train__order=('video',),
      ),
      'set config.autoencoder.kind=kl',
    ),
    (
      dict(
        stages__video__context_noise=0.1,
        stages__video__frame_levels__context=0.5,
      ),
      'tokens are known or masked',
    ),
    (dict(tokens__eval_shares=()), 'give at least one share'),
    (dict(sample__guidance_rescale=0.5), 'leave it at 0.0'),
    (dict(sample__guidance_interval=(-4.0, 4.0)), 'guidance_interval is of'),
    (
      dict(stages__video__resolution=36),
      'not divisible by 8: the autoencoder divides it by 8.',
    ),
  ],
)
def test_what_does_not_fit_is_one_sentence(values, words):
  with pytest.raises(errors.UsageError) as error:
    check.validate(make_config(**values))
  said = str(error.value)
  assert words in said and '\n' not in said and said.endswith('.'), said


def test_noise_is_not_unmasked():
  config = get_config('synthetic', 'smoke')
  config.sample.method = 'unmask'
  with pytest.raises(errors.UsageError, match='config.stages.video adds noise'):
    check.validate(config)


def test_noise_has_no_temperature():
  config = get_config('synthetic', 'smoke')
  config.sample.temperature = 0.9
  with pytest.raises(errors.UsageError, match='temperature is of masked token'):
    check.validate(config)


def test_a_stage_brings_its_sampler():
  config = make_config()
  found = sampling.of_stage(config, config.stages.video).sample
  assert (found.method, found.steps) == ('unmask', config.sample.steps)
  assert config.sample.method == 'ddim'
  check.validate(config)


def test_an_old_run_has_no_tokens():
  assert schema.default().model.kind == 'unet'
  assert schema.stage().objective == 'diffusion'
