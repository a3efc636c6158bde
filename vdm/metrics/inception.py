"""The Inception Score: do clips look like some class, and all classes occur?

  exp E KL(p(y | x) || p(y))

(Salimans et al. 2016), from a classifier's logits; for videos on C3D trained
on UCF101 (Saito et al. 2017). Between 1 and the number of classes, and higher
for more clips: only scores of equally many in equally many parts can be
compared. It sees neither whether the clips of a class are alike nor whether
they are copies.
"""

import numpy as np


def score(
  logits: np.ndarray, *, parts: int = 10, seed: int = 42
) -> tuple[float, float]:
  """Returns the mean over parts of the clips and its standard deviation.

  Args:
    logits: [n classes].
    parts: that shuffled clips are divided into, as StyleGAN-V divides them.
    seed: of the shuffle.

  Raises:
    ValueError: there are fewer clips than parts.
  """
  if len(logits) < parts:
    raise ValueError(f'{len(logits)} clips cannot be divided into {parts}.')
  order = np.random.RandomState(seed).permutation(len(logits))
  scores = [_score(part) for part in np.array_split(logits[order], parts)]
  return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray) -> float:
  logits = logits.astype(np.float64)
  logits = logits - logits.max(1, keepdims=True)
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  p = np.exp(log_p)
  # 0 log 0 is 0; the mean is positive wherever one of them is.
  mean = np.log(np.maximum(p.mean(0), np.finfo(float).tiny))
  return np.exp((p * (log_p - mean)).sum(1).mean())
