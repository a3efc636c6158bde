"""What a trained model is, wherever it was read from."""

from typing import Any, NamedTuple

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
