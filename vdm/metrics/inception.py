"""The Inception Score, from a classifier's logits (Salimans et al. 2016).

  exp E KL(p(y | x) || p(y))

For videos the classifier is C3D trained on UCF101 (Saito et al. 2017). The
score lies between 1 and the number of classes and is high where each clip looks
like one class and all classes occur. It grows with the number of clips: only
scores of equally many clips in equally many parts can be compared. It sees
neither whether the clips of a class are alike nor whether they are copies.
"""

from etils.array_types import FloatArray
import numpy as np


def score(
  logits: FloatArray['n k'], *, parts: int = 10, seed: int = 42
) -> tuple[float, float]:
  """Returns the mean and the standard deviation of the score over parts.

  Args:
    logits: of n clips for k classes.
    parts: number of parts into which the shuffled clips are divided, as
      StyleGAN-V divides them.
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
  # 0 log 0 is 0; the mean is positive wherever a clip's probability is.
  mean = np.log(np.maximum(p.mean(0), np.finfo(float).tiny))
  return np.exp((p * (log_p - mean)).sum(1).mean())
