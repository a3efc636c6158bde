"""Guidance with a scale for each group of conditions, against densities.

A value x ~ N(0, 1) is told about by independent noisy readings N(x, T_i^2) of
three groups. Every density of a noised x and some of the readings is that of a
normal vector, whose score is known; the denoiser that is guided is Bayes'
formula.
"""

import itertools

import closed_forms
import config_variants_test
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.common import errors
from vdm.config import check
from vdm.config import guidance_rules
from vdm.config import recipes
from vdm.diffusion import conditions
from vdm.diffusion import guidance

READINGS = {'frame_rate': 0.5, 'motion': 1.5, 'label': 0.8}  # Deviations T_i.
COND = {
  'frame_rate': jnp.array([0.3, -1.0], jnp.float32),
  'motion': jnp.array([1.0, 2.0], jnp.float32),
  'label': jnp.array([2, 0], jnp.int32),
}
SHAPE = (2, 3, 1, 2, 1)
LEVELS = jnp.array([[-2.0, 0.0, 1.5], [2.0, -1.0, 0.5]])


def draw():
  return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def counting(rows):
  """The exact denoiser, which notes how many rows it is asked for."""

  def denoise(z, levels, cond):
    rows.append(len(z))
    level = np.asarray(levels)[..., None, None, None]
    alpha, sigma = closed_forms.coefficients(level)
    precision, total = 1 + np.exp(level), np.asarray(z) * alpha / sigma**2
    for name, deviation in READINGS.items():
      c = np.asarray(cond[name], np.float32).reshape(-1, 1, 1, 1, 1)
      told = c >= 0 if name == 'label' else ~np.isnan(c)
      precision = precision + told / deviation**2
      total = total + np.where(told, c, 0) / deviation**2
    return np.float32(total / precision)

  return denoise


def guided_by_densities(z, level, told, scales):
  """x0 of p(z) prod_i p(c_i | c_<i, z)^s_i, by Tweedie's formula.

  Args:
    z: a number.
    level: its log-SNR.
    told: {group: reading}, in order.
    scales: of these.
  """
  alpha, sigma = closed_forms.coefficients(np.float64(level))
  deviations = np.array([READINGS[name] for name in told])

  def score(n):
    """Of z, by the density of z and the first n readings: N(0, C)."""
    gains = np.array([alpha, *np.ones(n)])
    noise = np.array([sigma, *deviations[:n]])
    covariance = np.outer(gains, gains) + np.diag(noise**2)
    return -np.linalg.solve(covariance, [z, *list(told.values())[:n]])[0]

  scores = [score(n) for n in range(len(scales) + 1)]
  whole = scores[0] + np.dot(scales, np.diff(scores))
  return (z + sigma**2 * whole) / alpha


@pytest.mark.parametrize(
  'scales, evaluations',
  [
    ((2.0, 3.0, 5.0), 4),
    ((2.0, 2.0, 5.0), 3),
    ((2.0, 5.0, 5.0), 3),
    ((3.0, 3.0, 3.0), 2),
    ((0.0, 0.5, 2.0), 4),
  ],
)
def test_it_is_the_score_of_densities_to_their_powers(scales, evaluations):
  z, rows = draw(), []
  groups = dict(zip(READINGS, scales))
  denoise = guidance.guided(
    counting(rows), COND, guidance.by_groups(COND, groups)
  )
  found = denoise(z, LEVELS)
  assert rows == [2 * evaluations]
  for b, t in itertools.product(range(2), range(3)):
    told = {name: float(x[b]) for name, x in COND.items()}
    wanted = guided_by_densities(z[b, t, 0, 1, 0], LEVELS[b, t], told, scales)
    np.testing.assert_allclose(found[b, t, 0, 1, 0], wanted, atol=1e-4)


def test_groups_of_scale_one_are_told_in_every_prediction():
  z, rows = draw(), []
  scales = {'frame_rate': 2.0, 'motion': 1.0, 'label': 3.0}
  contrasts = guidance.by_groups(COND, scales)
  found = guidance.guided(counting(rows), COND, contrasts)(z, LEVELS)
  assert rows == [2 * 3]
  exact = counting([])
  without = [
    exact(z, LEVELS, conditions.without(COND, gone))
    for gone in (('frame_rate', 'label'), ('label',), ())
  ]
  wanted = without[0] + 2 * (without[1] - without[0])
  wanted += 3 * (without[2] - without[1])
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  none = guidance.by_groups(COND, dict.fromkeys(READINGS, 1.0))
  assert none == []


def test_equal_scales_are_one_scale_to_the_bit():
  """As before there were groups: of one batch of two, and one difference."""
  z, exact = draw(), counting([])
  null = conditions.null(COND)
  both = jax.tree.map(lambda *x: jnp.concatenate(x), COND, null)
  twice = np.concatenate([z, z]), jnp.concatenate([LEVELS, LEVELS])
  conditional, without = jnp.split(exact(*twice, both), 2)
  wanted = conditional + (2.7 - 1) * (conditional - without)
  scales = dict.fromkeys(READINGS, 2.7)
  found = guidance.guided(exact, COND, guidance.by_groups(COND, scales))
  np.testing.assert_array_equal(found(z, LEVELS), wanted)


def test_interval_and_rescale_are_of_the_whole():
  z, by_numpy = draw(), counting([])

  def exact(z, levels, cond):  # Either branch of an interval is compiled.
    shape = jax.ShapeDtypeStruct(z.shape, z.dtype)
    return jax.pure_callback(by_numpy, shape, z, levels, cond)

  contrasts = guidance.by_groups(COND, dict(zip(READINGS, (2.0, 3.0, 5.0))))
  always = guidance.guided(exact, COND, contrasts)(z, LEVELS)
  conditional = exact(z, LEVELS, COND)
  some = guidance.guided(exact, COND, contrasts, interval=(0.0, 1.0))
  inside = np.array((LEVELS >= 0) & (LEVELS <= 1))
  found = np.asarray(some(z, LEVELS))
  np.testing.assert_array_equal(found[inside], always[inside])
  np.testing.assert_allclose(found[~inside], conditional[~inside], rtol=1e-6)
  scaled = guidance.guided(exact, COND, contrasts, rescale=1.0)(z, LEVELS)
  axes = (1, 2, 3, 4)
  np.testing.assert_allclose(scaled.std(axes), conditional.std(axes), rtol=1e-5)


def test_logits_have_the_same_formula():
  """Probabilities are p_0 prod_i (p_i / p_i-1)^s_i, up to their sum."""
  gains = {
    'label': np.array([0.0, 1.0, 0.3]),
    'motion': np.array([1.0, 0.5, 0.0]),
  }

  def predict(tokens, masked, cond):
    cond = {name: np.asarray(x)[:, None] for name, x in cond.items()}
    label = (cond['label'] >= 0) * gains['label']
    motion = ~np.isnan(cond['motion']) * gains['motion']
    return np.asarray(tokens)[:, None] + label + motion + label * motion

  cond = {name: COND[name] for name in ('motion', 'label')}
  contrasts = guidance.by_groups(cond, {'motion': 2.0, 'label': 4.0})
  tokens = np.array([0.5, 1.0])
  found = guidance.guided_logits(predict, cond, contrasts)(tokens, tokens)
  product = gains['label'] * (1 + gains['motion'])
  wanted = tokens[:, None] + 2 * gains['motion'] + 4 * product
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


# What a person writes.


def test_scales_are_read_in_any_order_and_shown_in_one():
  found = guidance_rules.read('text=5, given=1.5,label=2')
  assert list(found.items()) == [('given', 1.5), ('label', 2), ('text', 5)]
  assert guidance_rules.show(found) == 'given=1.5,label=2,text=5'
  exact = {'label': 1.23456789, 'text': 2.7}
  assert guidance_rules.parse(guidance_rules.show(exact)) == exact
  assert guidance_rules.read('3') == guidance_rules.read(3.0) == 3.0
  sample = recipes.scenes().sample
  sample.update(guidance=2.0, guidance_by='label=3')
  guidance_rules.change(sample, 'text=5')
  assert (sample.guidance, sample.guidance_by) == (2.0, 'label=3,text=5')
  guidance_rules.change(sample, 4)
  assert (sample.guidance, sample.guidance_by) == (4.0, '')


@pytest.mark.parametrize(
  'text, words',
  [
    ('lable=2', "'lable', which is no group .* did you mean label"),
    ('label=2,label=3', 'names label twice'),
    ('label=-1', 'of label -1 is not a number of at least 0'),
    ('label=much', "of label 'much' is neither"),
    ('label=2,5', 'is neither a number nor scales by group'),
    ('strong', 'is neither a number nor scales by group'),
    ('-2', 'is not a number of at least 0'),
    ('nan', 'is not a number of at least 0'),
  ],
)
def test_mistakes_are_named(text, words):
  with pytest.raises(errors.UsageError, match=words):
    guidance_rules.read(text)


def make_config(by):
  config = recipes.scenes()
  config.model.num_classes = 8
  config.sample.guidance_by = by
  return config


@pytest.mark.parametrize(
  'by, changes, words',
  [
    ('label=2', {'model.label_dropout': 0.0}, 'guidance_by=label=2 needs'),
    # The one that is not named keeps `sample.guidance`.
    ('given=1', {'model.label_dropout': 0.0}, 'guidance_by=label=2 needs'),
    ('text=2', {}, 'names text, which the network is not told'),
    ('motion=2', {}, 'names motion, which the network is not told'),
    ('given=1.5', {}, 'frame_levels.independent above 0'),
    ('lable=2', {}, 'config.sample.guidance_by: guidance names'),
  ],
)
def test_what_was_never_left_out_guides_nothing(by, changes, words):
  config = make_config(by)
  config.update_from_flattened_dict(changes)
  with pytest.raises(errors.UsageError, match=words) as error:
    check.validate(config)
  assert '\n' not in str(error.value)


def test_one_group_may_be_guided_where_another_is_always_told():
  config = make_config('label=1')
  config.model.label_dropout = 0.0
  check.validate(config)
  assert guidance_rules.scales(config.model, config.sample) == {}
  config = make_config('given=1.5')
  config.stages.video.frame_levels.update(shared=0.7, independent=0.3)
  check.validate(config)
  assert guidance_rules.scales(config.model, config.sample) == {
    'given': 1.5,
    'label': 2.0,
  }
  assert guidance_rules.words(config.model, config.sample) == (
    'given=1.5,label=2'
  )


def test_the_variant_given_may_be_guided_as_its_page_says():
  config = config_variants_test.get_config('synthetic', 'given')
  guidance_rules.change(config.sample, 'given=1.5,label=3')
  check.validate(config)
  found = guidance_rules.scales(config.model, config.sample)
  assert found == {'given': 1.5, 'label': 3.0}
