"""The eight classes of motion: class k moves at 45 k degrees, x right, y down.

They are the labels of the synthetic scenes.
"""

from etils.array_types import FloatArray, IntArray
import numpy as np


def nearest(velocity: FloatArray['*b 2']) -> IntArray['*b']:
  """Returns the class nearest to each velocity (x, y)."""
  eighths = np.arctan2(velocity[..., 1], velocity[..., 0]) / (np.pi / 4)
  return np.rint(eighths).astype(int) % 8


def agreement(
  found: IntArray[' n'], labels: IntArray[' n'] | None
) -> float | None:
  """Returns the share of labelled clips that move in their label's direction.

  Args:
    found: class of each clip's motion, -1 for none.
    labels: class that it should be, -1 for a clip without a label.

  Returns:
    The share; None if no clip has a label.
  """
  if labels is None:
    return None
  labels = np.asarray(labels)
  if labels.shape != found.shape:
    raise ValueError(
      f'{len(found)} clips have no labels of shape {labels.shape}.'
    )
  labelled = labels >= 0
  return float((found == labels)[labelled].mean()) if labelled.any() else None
