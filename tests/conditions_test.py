import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import conditions

ROWS = 4000
COND = {'label': jnp.arange(ROWS, dtype=jnp.int32) % 7}


def test_a_batch_falls_into_conditions_and_the_rest():
  batch = {'video': np.zeros((2, 1)), **COND}
  assert conditions.of(batch).keys() == {'label'}
  assert conditions.rest(batch).keys() == {'video'}
  assert conditions.arrays({'label': [3, 4]})['label'].dtype == np.int32


def test_null_keeps_shape_and_type():
  found = jax.eval_shape(conditions.null, COND)
  assert found == jax.eval_shape(lambda: COND)
  assert (conditions.null(COND)['label'] == -1).all()


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_a_share_of_the_rows_loses_a_condition(share):
  dropped = conditions.drop(COND, jax.random.key(0), {'label': share})['label']
  gone = np.asarray(dropped == -1)
  # Four standard deviations of a binomial share.
  assert abs(gone.mean() - share) <= 4 * np.sqrt(share * (1 - share) / ROWS)
  np.testing.assert_array_equal(
    np.asarray(dropped)[~gone], np.asarray(COND['label'])[~gone]
  )


TEXT = {
  'words': jnp.tile(jnp.arange(1, 4, dtype=jnp.int32), (ROWS, 1)),
  'text': jnp.ones((ROWS, 3, 2)),
  'text_mask': jnp.ones((ROWS, 3), bool),
}


def test_what_says_one_thing_is_dropped_together_and_apart_from_others():
  shares = {'label': 0.3, 'text': 0.4}
  dropped = conditions.drop(COND | TEXT, jax.random.key(1), shares)
  gone = {
    'label': dropped['label'] == -1,
    'words': (dropped['words'] == 0).all(axis=1),
    'text': (dropped['text'] == 0).all(axis=(1, 2)),
    'text_mask': ~dropped['text_mask'].any(axis=1),
  }
  gone = {name: np.asarray(x) for name, x in gone.items()}
  for name in ('text', 'text_mask'):
    np.testing.assert_array_equal(gone[name], gone['words'])
  # Whole rows go, or none of it.
  np.testing.assert_array_equal(
    np.asarray(dropped['words'])[~gone['words']],
    np.asarray(TEXT['words'])[~gone['words']],
  )
  assert abs(gone['words'].mean() - 0.4) < 0.04
  assert abs((gone['label'] & gone['words']).mean() - 0.12) < 0.03
  # Captions beside labels change nothing about which labels are dropped.
  alone = conditions.drop(COND, jax.random.key(1), shares)
  np.testing.assert_array_equal(alone['label'], dropped['label'])


def test_the_null_of_text():
  null = conditions.null(TEXT)
  assert jax.eval_shape(lambda: null) == jax.eval_shape(lambda: TEXT)
  assert not any(np.asarray(x).any() for x in null.values())


def test_nothing_is_dropped_unasked():
  found = conditions.drop(COND, jax.random.key(0), {})
  np.testing.assert_array_equal(found['label'], COND['label'])
