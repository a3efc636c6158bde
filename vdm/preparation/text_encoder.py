"""Pretrained text encoders, T5 and CLIP, through `transformers`.

This module alone imports torch and transformers, when the first caption is
encoded: in `vdm.prepare captions` and where a model that was trained on such
captions is given prompts. Weights are read from safetensors files, and no code
that comes with them is run.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from typing import Any

from etils.array_types import FloatArray
import numpy as np

from vdm.common import errors

# Class of the encoder by the `model_type` of its config.json.
CLASSES = {
  't5': 'T5EncoderModel',
  'mt5': 'MT5EncoderModel',
  'umt5': 'UMT5EncoderModel',
  'clip': 'CLIPTextModel',
  'clip_text_model': 'CLIPTextModel',
}
TOKENIZER = 'tokenizer_config.json'  # In every tokenizer's folder.
UNLIMITED = 10**9  # Tokens.


@dataclasses.dataclass(frozen=True)
class Encoder:
  """Reads captions as tokens of a pretrained encoder, which is loaded at need.

  Attributes:
    name: on the hub, or its folder.
    revision: commit or tag of the hub; '' for a folder.
    length: tokens of a caption, at most; further ones are cut off.
    features: channels of a token.
    padded: whether captions come with the padding to `length`, as published
      image models see them; they are then encoded without a mask.
    sha256: that it must have, see `fingerprint`; '': any.
  """

  name: str
  revision: str
  length: int
  features: int
  padded: bool = False
  sha256: str = ''

  def read(self, caption: str) -> dict[str, np.ndarray]:
    """Returns {'text': float32 [length, d], 'text_mask': bool [length]}.

    Raises:
      UsageError: the encoder cannot be read, or is another one.
    """
    text = np.zeros((self.length, self.features), np.float32)
    mask = np.zeros(self.length, bool)
    if caption:
      (tokens,) = self.encode([caption])
      text[: len(tokens)], mask[: len(tokens)] = tokens, True
    return {'text': text, 'text_mask': mask}

  def check(self, caption: str) -> None:
    """Checks that a prompt is read as a whole.

    Raises:
      UsageError: it is too long, or there is no encoder.
    """
    tokenizer, *_ = self._loaded
    with _quiet():
      count = len(tokenizer(caption)['input_ids'])
    if count > self.length:
      raise errors.UsageError(
        f'The caption {caption!r} has {count} tokens, and the run reads '
        f'{self.length}: shorten it.'
      )

  def count(self, captions: Sequence[str]) -> list[int]:
    """Returns how many tokens captions have."""
    tokenizer, *_ = self._loaded
    if self.padded:
      return [self.length] * len(captions)
    found = tokenizer(list(captions), truncation=True, max_length=self.length)
    return [len(row) for row in found['input_ids']]

  def encode(self, captions: Sequence[str]) -> list[FloatArray['n d']]:
    """Returns the tokens of each caption, float32.

    Raises:
      UsageError: the encoder cannot be read, or is another one.
    """
    tokenizer, network, torch = self._loaded
    inputs = tokenizer(
      list(captions),
      truncation=True,
      max_length=self.length,
      padding='max_length' if self.padded else True,
      return_tensors='pt',
    ).to(network.device)
    mask = inputs['attention_mask']
    if self.padded:
      mask = torch.ones_like(mask)
    with torch.inference_mode():
      output = network(
        input_ids=inputs['input_ids'], attention_mask=mask
      ).last_hidden_state
    output = output.float().cpu().numpy()
    counts = mask.sum(dim=1).tolist()
    return [row[:n].copy() for row, n in zip(output, counts)]

  @functools.cached_property
  def fingerprint(self) -> str:
    """The sha256 of the parameters and of the tokenizer, hexadecimal."""
    tokenizer, network, _ = self._loaded
    return _fingerprint(tokenizer, network, self.padded)

  @functools.cached_property
  def _loaded(self) -> tuple[Any, Any, Any]:
    """Returns the tokenizer, the network and torch."""
    tokenizer, network, torch = _load(self.name, self.revision)
    width = network.config.hidden_size
    if width != self.features:
      raise errors.UsageError(
        f'The tokens of {self.name} have {width} channels: set '
        f'config.model.text.features={width}, not {self.features}.'
      )
    longest = _longest(tokenizer, network)
    if self.padded and longest not in (None, self.length):
      raise errors.UsageError(
        f'{self.name} pads captions to {longest} tokens: set '
        f'config.model.text.length={longest}, not {self.length}.'
      )
    found = self.sha256 and _fingerprint(tokenizer, network, self.padded)
    if found != self.sha256:
      raise errors.UsageError(
        f'{self.name} {self.revision} is another encoder than the one that the '
        f'run was trained with ({self.sha256[:12]}): restore that one.'
      )
    return tokenizer, network, torch


def _load(name: str, revision: str) -> tuple[Any, Any, Any]:
  try:
    import torch
    import transformers
  except ImportError as error:
    raise errors.UsageError(
      'Pretrained text encoders need transformers and torch: pip install '
      f"'vdm[text]' ({error})."
    ) from error
  local = os.path.isdir(name)
  if not local and not revision:
    raise errors.UsageError(
      f'config.model.text.name={name} is no folder here: name the folder, of a '
      'trained model by --text_encoder; on the hub give its commit, too, as '
      'config.model.text.revision.'
    )
  options = {'trust_remote_code': False, 'local_files_only': local}
  if revision:
    options['revision'] = revision
  try:
    config = transformers.AutoConfig.from_pretrained(name, **options)
    if config.model_type not in CLASSES:
      raise errors.UsageError(
        f'{name} is a {config.model_type}, and text encoders are one of '
        f'{", ".join(CLASSES)}.'
      )
    if config.model_type == 'clip':
      config = config.text_config
    tokenizer = transformers.AutoTokenizer.from_pretrained(
      _tokenizer_folder(name) if local else name, **options
    )
    del options['trust_remote_code']
    network = getattr(transformers, CLASSES[config.model_type]).from_pretrained(
      name, config=config, use_safetensors=True, **options
    )
  except errors.UsageError:
    raise
  # Of the network, the files, or what is in them.
  except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise errors.UsageError(
      f'The text encoder {name} {revision} cannot be read: {reason}'
    ) from error
  # Rows are cut by their number of tokens.
  tokenizer.padding_side = 'right'
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  return tokenizer, network.float().eval().to(device), torch


def _tokenizer_folder(folder: str) -> str:
  """Returns where the tokenizer is: in pipelines of diffusers, beside it."""
  beside = os.path.join(os.path.dirname(os.path.abspath(folder)), 'tokenizer')
  own = os.path.join(folder, TOKENIZER)
  return beside if os.path.isdir(beside) and not os.path.exists(own) else folder


def _longest(tokenizer: Any, network: Any) -> int | None:
  """Returns the tokens of the longest caption; None if there is no limit."""
  limits = [tokenizer.model_max_length]
  limits.append(getattr(network.config, 'max_position_embeddings', None))
  # The tokenizers of files that name no limit have a huge one.
  limits = [x for x in limits if x is not None and x < UNLIMITED]
  return min(limits, default=None)


def _fingerprint(tokenizer: Any, network: Any, padded: bool) -> str:
  digest = hashlib.sha256()
  words = [sorted(tokenizer.get_vocab().items()), str(tokenizer.eos_token)]
  if padded:
    words.append(str(tokenizer.pad_token))
    # Two published encoders of one shape differ in it.
    words.append(str(getattr(network.config, 'hidden_act', '')))
  digest.update(json.dumps(words).encode())
  for path, x in sorted(network.state_dict().items()):
    digest.update(path.encode())
    digest.update(np.ascontiguousarray(x.cpu().numpy()).tobytes())
  return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without the warning of captions that are too long, which is an error."""
  logger = logging.getLogger('transformers.tokenization_utils_base')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)
