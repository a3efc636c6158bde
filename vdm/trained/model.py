"""What a trained model is, wherever it was read from."""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from etils import epath
from ml_collections import ConfigDict

from vdm.common import vocabulary


class Model(NamedTuple):
  """A trained model.

  Attributes:
    config: the run's; `sample.ema` is the width of the average in `params`.
    stage: config of the diffusion stage it is in.
    step: global step of the checkpoint.
    params: nested dict of arrays: an average of the network's parameters.
    frozen: the autoencoder: {'params', 'stats'}.
    label_names: of the classes, [] where there are none.
    frame_rate: of its videos, frames a second.
    fingerprint: of the autoencoder, hexadecimal; see `autoencoders.files`.
    source: what it was read from, a name on the hub with its commit.
    workdir: of the run; None for an export.
    reader: of captions; None for a model that reads none.
    worse: what it is guided against, if anything: an earlier average of the
      same stage (`sample.autoguide`), or another model.
  """

  config: ConfigDict
  stage: ConfigDict
  step: int
  params: dict[str, Any]
  frozen: dict[str, Any]
  label_names: list[str]
  frame_rate: float
  fingerprint: str = ''
  source: str = ''
  workdir: epath.Path | None = None
  reader: vocabulary.Reader | None = None
  worse: Optional['Model'] = None


def mapped(
  model: Model, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Model:
  """Returns a model with changed parameters, of what it is guided against, too.

  Args:
    model: the model.
    change: of its parameters.
  """
  worse = model.worse
  if worse is not None:
    worse = worse._replace(params=change(worse.params))
  return model._replace(params=change(model.params), worse=worse)
