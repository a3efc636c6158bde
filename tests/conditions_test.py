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


def test_nothing_is_dropped_unasked():
  found = conditions.drop(COND, jax.random.key(0), {})
  np.testing.assert_array_equal(found['label'], COND['label'])
