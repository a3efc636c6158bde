"""The process and the sampler of masked tokens, against what is known.

Joint distributions whose conditional ones are in closed form take the network's
place.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import masking

RANDOM_ORDER = 1e6  # Noise beside which no certainty matters.


def row_keys(rows, seed=0):
  return jax.random.split(jax.random.key(seed), rows)


def sample(predict, rows, shape, sizes, left, held=None, keys=None, **options):
  """Tokens [rows t h w g], filled in from nothing or around held ones."""
  tokens = np.zeros((rows, *shape, len(sizes)), np.int32)
  masked = np.ones((rows, *shape), bool)
  if held is not None:
    where, values = held
    masked[:, where], tokens[:, where] = False, values

  @jax.jit
  def run(tokens, masked, keys):
    return masking.sample(
      predict, tokens, masked, keys, sizes=sizes, left=left, **options
    )

  keys = row_keys(rows) if keys is None else keys
  return np.asarray(run(tokens, masked, keys))


def test_the_schedule_is_a_cosine():
  times = jnp.array([0.0, 1 / 3, 0.5, 1.0])
  wanted = [1.0, 3**0.5 / 2, 2**-0.5, 0.0]
  np.testing.assert_allclose(masking.share(times), wanted, atol=1e-6)


@pytest.mark.parametrize('total, steps', [(1024, 8), (1024, 12), (512, 32)])
def test_the_number_of_masked_tokens_follows_it(total, steps):
  wanted = [
    int(np.floor(total * np.cos(np.pi / 2 * i / steps) + 1e-9))
    for i in range(steps)
  ]
  found = masking.counts(total, steps)
  assert found.tolist() == [*wanted, 0]


def test_every_step_decides_a_token_while_there_are_any():
  assert masking.counts(6, 6).tolist() == [6, 5, 4, 3, 2, 1, 0]
  assert masking.counts(3, 5).tolist() == [3, 2, 1, 0, 0, 0]
  assert masking.counts(0, 4).tolist() == [0] * 5
  for total, steps in itertools.product((1, 15, 50), (2, 20)):
    found = masking.counts(total, steps)
    assert found[0] == total and found[-1] == 0
    assert (np.diff(found) <= -np.minimum(found[:-1], 1)).all()


def test_draws_have_their_share_and_spare_what_is_given():
  shares = np.array([[0.9, 0.5, 0.1], [0.3, 0.3, 0.3]], np.float32)
  given = np.array([[False, False, False], [True, False, True]])
  rows = 400
  masked = np.asarray(
    masking.draw(
      row_keys(2 * rows),
      np.repeat(shares, rows, axis=0),
      np.repeat(given, rows, axis=0),
      (4, 5),
    )
  )
  found = masked.reshape(2, rows, 3, 20).mean(axis=(1, 3))
  wanted = np.where(given, 0.0, shares)
  error = np.sqrt(wanted * (1 - wanted) / (20 * rows))
  assert (np.abs(found - wanted) <= 4 * error).all()
  # A row is drawn from its key alone.
  alone = masking.draw(row_keys(2 * rows)[3:4], shares[:1], given[:1], (4, 5))
  np.testing.assert_array_equal(alone[0], masked[3])


def test_a_draw_masks_all_at_first_and_one_token_at_least():
  shares = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
  given = np.array([[False, False], [False, False], [True, False]])
  masked = np.asarray(masking.draw(row_keys(3), shares, given, (3, 3)))
  assert masked[0].all()
  assert masked[1:].sum(axis=(1, 2, 3)).tolist() == [1, 1]
  assert not masked[2, 0].any()


def test_cross_entropy_is_a_sum_over_groups():
  generator = np.random.default_rng(0)
  sizes, shape = (4, 3), (4, 25)
  logits = generator.normal(size=(*shape, 7)).astype(np.float32)
  tokens = generator.integers(0, sizes, (*shape, 2))
  smoothing = 0.2
  total, hits = masking.cross_entropy(logits, tokens, sizes, smoothing)
  wanted, right = np.zeros(shape), np.ones(shape, bool)
  for i, part in enumerate((logits[..., :4], logits[..., 4:])):
    p = np.exp(part) / np.exp(part).sum(-1, keepdims=True)
    target = (1 - smoothing) * np.eye(sizes[i])[tokens[..., i]]
    target = target + smoothing / sizes[i]
    wanted -= (target * np.log(p)).sum(-1)
    right &= part.argmax(-1) == tokens[..., i]
  np.testing.assert_allclose(total, wanted, rtol=1e-5)
  np.testing.assert_array_equal(hits, right)
  assert 0 < right.sum() < right.size


P = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1]])  # Of two positions.
Q = np.array([[0.5, 0.5], [0.2, 0.8]])  # Of their second group.


def independent(tokens, masked):
  """Logits of P and Q, wherever tokens are known."""
  del masked
  logits = jnp.log(jnp.asarray(np.concatenate([P, Q], axis=1)) + 1e-30)
  return jnp.broadcast_to(logits, (len(tokens), 1, 1, 2, 5))


@pytest.mark.parametrize('left', [(2, 0), (2, 1, 0)])
@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_in_any_order_independent_tokens_have_their_frequencies(
  left, temperature
):
  rows = 20_000
  found = sample(
    independent,
    rows,
    (1, 1, 2),
    (3, 2),
    left,
    noise=RANDOM_ORDER,
    temperature=temperature,
  )
  for group, wanted in enumerate((P, Q)):
    wanted = wanted ** (1 / temperature)
    wanted = wanted / wanted.sum(axis=1, keepdims=True)
    for position in range(2):
      counts = np.bincount(
        found[:, 0, 0, position, group], minlength=wanted.shape[1]
      )
      p = wanted[position]
      error = np.sqrt(p * (1 - p) / rows)
      assert (np.abs(counts / rows - p) <= 4 * error + 1e-6).all()


def test_without_temperature_the_likeliest_are_drawn_in_any_order():
  rows = 500
  found = sample(
    independent,
    rows,
    (1, 1, 2),
    (3, 2),
    (2, 1, 0),
    noise=RANDOM_ORDER,
    temperature=1e-4,
  )
  # The groups of the first position are (0.5, 0.5): a draw, whatever it is.
  np.testing.assert_array_equal(found[:, 0, 0, :, 0], [[0, 0]] * rows)
  np.testing.assert_array_equal(found[:, 0, 0, 1, 1], Q[1].argmax())
  assert 0.4 < found[:, 0, 0, 0, 1].mean() < 0.6


def test_the_certainty_is_of_the_network_at_any_temperature():
  """Though every draw of a low one is certain: the order shows in the last."""

  def predict(tokens, masked):
    # The first token is 0 (0.9), or 1 once the second is known; the second is 0
    # (0.6), or 1 once the first is known.
    alone = masked.all(axis=(1, 2, 3), keepdims=True)[..., None]
    p = jnp.array([[0.9, 0.1], [0.6, 0.4]])
    after = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    return jnp.log(jnp.where(alone, p, after) + 1e-30)

  found = sample(
    predict, 9, (1, 1, 2), (2,), (2, 1, 0), noise=0.0, temperature=1e-3
  )
  np.testing.assert_array_equal(found[:, 0, 0, :, 0], [[0, 1]] * 9)


def test_the_certain_are_kept_first():
  """Exactly: of two drawn tokens the likelier stays, the other is redrawn."""
  rows = 20_000
  found = sample(independent, rows, (1, 1, 2), (3, 2), (2, 1, 0), noise=0.0)
  joint = np.einsum('ia,ib->iab', P, Q).reshape(2, 6)  # Of both groups.
  wanted = np.zeros((6, 6))
  for a, b in itertools.product(range(6), range(6)):
    p = joint[0, a] * joint[1, b]
    if joint[0, a] > joint[1, b]:
      wanted[a] += p * joint[1]
    else:
      wanted[:, b] += p * joint[0]
  values = found[:, 0, 0, :, 0] * 2 + found[:, 0, 0, :, 1]
  counts = np.zeros((6, 6))
  np.add.at(counts, tuple(values.T), 1)
  error = np.sqrt(wanted * (1 - wanted) / rows)
  assert (np.abs(counts / rows - wanted) <= 4.5 * error + 1e-6).all()


VALUES, LENGTH = 4, 6


def all_equal(tokens, masked):
  """The conditional law of LENGTH tokens that are all the same."""
  known = jax.nn.one_hot(tokens[..., 0], VALUES) * ~masked[..., None]
  votes = known.sum(axis=(1, 2, 3), keepdims=True)
  return jnp.broadcast_to(50.0 * votes, (*masked.shape, VALUES))


def test_one_token_a_step_keeps_what_belongs_together():
  rows = 4_000
  one_by_one = range(LENGTH, -1, -1)
  found = sample(
    all_equal, rows, (LENGTH, 1, 1), (VALUES,), list(one_by_one), noise=1.0
  ).reshape(rows, LENGTH)
  assert (found == found[:, :1]).all()
  counts = np.bincount(found[:, 0], minlength=VALUES)
  error = np.sqrt(rows * (VALUES - 1)) / VALUES
  assert (np.abs(counts - rows / VALUES) <= 4 * error).all()
  # In one step they are drawn independently.
  found = sample(
    all_equal, rows, (LENGTH, 1, 1), (VALUES,), (LENGTH, 0)
  ).reshape(rows, LENGTH)
  same = (found == found[:, :1]).all(axis=1).mean()
  chance = VALUES ** (1.0 - LENGTH)
  assert abs(same - chance) <= 4 * np.sqrt(chance / rows)


def test_held_tokens_stay_and_others_follow_them():
  held = np.zeros((LENGTH, 1, 1), bool)
  held[[0, 3]] = True
  found = sample(
    all_equal,
    5,
    (LENGTH, 1, 1),
    (VALUES,),
    (4, 2, 0),
    held=(held, np.full((2, 1), 2)),
  )
  np.testing.assert_array_equal(found, 2)
  other = sample(
    independent,
    3,
    (1, 1, 2),
    (3, 2),
    (0, 0, 0),
    held=(np.ones((1, 1, 2), bool), np.array([[2, 0], [1, 1]])),
  )
  np.testing.assert_array_equal(other[:, 0, 0], [[[2, 0], [1, 1]]] * 3)


def test_as_many_are_masked_in_every_step_as_was_said():
  seen = []

  def predict(tokens, masked):
    jax.debug.callback(
      lambda x: seen.append(np.asarray(x)), masked, ordered=True
    )
    return all_equal(tokens, masked)

  left = masking.counts(LENGTH, 3)
  sample(predict, 3, (LENGTH, 1, 1), (VALUES,), left, noise=2.0)
  jax.effects_barrier()
  counts = [x.sum(axis=(1, 2, 3)).tolist() for x in seen]
  assert counts == [[n] * 3 for n in left.tolist()[:-1]]
  # What was decided stays.
  for before, after in itertools.pairwise(seen):
    assert not (after & ~before).any()


def test_a_row_does_not_depend_on_the_others():
  left = masking.counts(LENGTH, 2)
  shape = (LENGTH, 1, 1)
  many = sample(all_equal, 7, shape, (VALUES,), left, noise=1.0)
  few = sample(
    all_equal, 2, shape, (VALUES,), left, noise=1.0, keys=row_keys(7)[:2]
  )
  np.testing.assert_array_equal(few, many[:2])
