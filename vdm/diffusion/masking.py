"""Masked tokens: a diffusion whose noise hides tokens, and its sampler.

At time u in [0, 1) every token is masked, by itself, with probability

    s(u) = cos(pi u / 2)

and the network is trained to tell the masked ones by cross-entropy (MaskGIT,
Chang et al. 2022, arXiv:2202.04200; on video MAGVIT, Yu et al. 2022,
arXiv:2212.05199). It is the absorbing process of Austin et al. 2021
(arXiv:2107.03006), with a loss that weights all masked tokens alike. Times are
drawn as those of noise levels are (`losses.draw_times`): one for a clip, or one
for every frame; frames that are given are never masked.

Sampling goes the other way: of N masked tokens, floor(N s(i / steps)) stay
masked after step i. A step draws all of them, each from its own distribution,
and keeps those it is most certain of; the others are masked again. What one
step draws is drawn independently: the fewer steps, the more tokens that do not
fit together. Noise on the certainty, which fades to zero, makes the order less
greedy and the samples more diverse. A temperature draws from p^(1/temperature),
normalised, and leaves the certainty at p, as all draws of a low temperature
would be certain alike.

A position has a token for each group of channels, with logits one group after
another; `sizes` are their numbers of values. All of a position is masked or
none of it, and given the rest its groups are drawn independently.
"""

from collections.abc import Callable, Sequence

from etils.array_types import Array, BoolArray, FloatArray, IntArray
import jax
import jax.numpy as jnp
import numpy as np

from vdm.diffusion import process

Predictor = Callable[..., FloatArray['b t h w v']]


def share(times: FloatArray['*b']) -> FloatArray['*b']:
  """Returns the share of tokens that is masked at `times`, 1 at time 0."""
  return jnp.cos(0.5 * jnp.pi * times)


def draw(
  keys: jax.Array,
  shares: FloatArray['b t'],
  given: BoolArray['b t'],
  positions: tuple[int, int],
) -> BoolArray['b t h w']:
  """Draws which tokens are masked, at least one of every clip.

  Args:
    keys: of the rows, [b].
    shares: of each frame's tokens that are masked, on average.
    given: frames that are not masked, never all of a clip.
    positions: (h, w) of a frame.
  """

  def draw_one(key, shares, given):
    places = jax.random.uniform(key, (*shares.shape, *positions))
    places = jnp.where(given[:, None, None], 2.0, places)
    lowest = places == places.min(keepdims=True)
    return (places < shares[:, None, None]) | lowest

  return jax.vmap(draw_one)(keys, shares, given)


def split(
  logits: FloatArray['*b v'], sizes: Sequence[int]
) -> list[FloatArray['*b n']]:
  """Returns the logits of each group."""
  return jnp.split(logits, np.cumsum(sizes)[:-1], axis=-1)


def cross_entropy(
  logits: FloatArray['*b v'],
  tokens: IntArray['*b g'],
  sizes: Sequence[int],
  smoothing: float = 0.0,
) -> tuple[FloatArray['*b'], BoolArray['*b']]:
  """Returns -log p of the tokens, in nats a position, and where they are best.

  Args:
    logits: of all groups.
    tokens: of each group.
    sizes: of the groups.
    smoothing: share of the target that is spread over all values.

  Returns:
    (loss, hits): the loss is a sum over groups; a hit is a position at which
    every group's token has the largest logit.
  """
  total, hits = 0.0, True
  for i, part in enumerate(split(logits, sizes)):
    log_p = jax.nn.log_softmax(process.at_least_float32(part))
    own = _of(log_p, tokens[..., i])
    total = total - (1 - smoothing) * own - smoothing * log_p.mean(-1)
    hits = hits & (part.argmax(-1) == tokens[..., i])
  return total, hits


def counts(total: int | IntArray[''], steps: int) -> IntArray[' n']:
  """Returns how many tokens are masked before each step, and after the last.

  At least one is decided in every step that finds any.

  Args:
    total: masked at first.
    steps: number of steps.
  """
  index = np.arange(steps + 1)
  # In float32 the cosine of pi / 3 is one half to the bit, and of pi / 2 none.
  shares = np.float32(np.cos(0.5 * np.pi * index / steps))
  left = jnp.floor(total * shares).astype(jnp.int32)
  return jnp.clip(left, 0, jnp.maximum(total - index, 0))


def sample(
  predict: Predictor,
  tokens: IntArray['b t h w g'],
  masked: BoolArray['b t h w'],
  keys: jax.Array,
  *,
  sizes: Sequence[int],
  left: IntArray[' n'],
  temperature: float = 1.0,
  noise: float = 0.0,
) -> IntArray['b t h w g']:
  """Fills in the masked tokens; the others come back as they are.

  Args:
    predict: (tokens, masked) -> logits, with conditioning and guidance bound
      in. What the tokens are where they are masked must have no effect.
    tokens: known where they are not masked.
    masked: which are to be filled in, as many in every row.
    keys: typed, of the rows [b]: a row does not depend on the others.
    sizes: numbers of values of the groups.
    left: how many of a row are masked before each step and after the last, see
      `counts`.
    temperature: of the tokens that are drawn, above 0.
    noise: factor of the Gumbel noise on the log-probabilities by which tokens
      are kept, times 1 - i / n in step i of n: it falls linearly, and the last
      step has none.
  """
  left = jnp.asarray(left)
  steps = len(left) - 1

  def step(state, inputs):
    tokens, masked = state
    index, remaining = inputs
    logits = process.at_least_float32(predict(tokens, masked))
    key_token, key_order = (
      process.fold_in(process.fold_in(keys, index), i) for i in range(2)
    )
    found, log_p = _draw_tokens(key_token, logits, sizes, temperature)
    scale = noise * (1.0 - (index + 1.0) / steps)
    certainty = log_p + scale * _rows(jax.random.gumbel, key_order, log_p)
    certainty = jnp.where(masked, certainty, jnp.inf)
    tokens = jnp.where(masked[..., None], found, tokens)
    flat = certainty.reshape(len(certainty), -1)
    ranks = jnp.argsort(jnp.argsort(flat, axis=-1), axis=-1)
    return (tokens, (ranks < remaining).reshape(masked.shape)), None

  (tokens, _), _ = jax.lax.scan(
    step, (tokens, masked), (jnp.arange(steps), left[1:])
  )
  return tokens


def _draw_tokens(keys, logits, sizes, temperature):
  """Returns a token a group and position, and their joint log-probability.

  The latter is of the network, at temperature 1.
  """
  found, total = [], 0.0
  for i, part in enumerate(split(logits, sizes)):
    own = process.fold_in(keys, i)
    gumbel = _rows(jax.random.gumbel, own, part)
    token = jnp.argmax(part / temperature + gumbel, axis=-1)
    total = total + _of(jax.nn.log_softmax(part), token)
    found.append(token.astype(jnp.int32))
  return jnp.stack(found, axis=-1), total


def _rows(draw_values, keys, like: Array['b ...']) -> Array['b ...']:
  """Draws as many values as `like` has, each row from its own key."""
  return jax.vmap(lambda key: draw_values(key, like.shape[1:]))(keys)


def _of(values, index):
  """Returns the values at an index of the last axis."""
  return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
