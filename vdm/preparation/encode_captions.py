"""Encodes the captions of a data set with a pretrained text encoder, once."""

from typing import Any

from ml_collections import ConfigDict

from vdm.common import errors
from vdm.data import builders
from vdm.data import captions
from vdm.data import text_cache
from vdm.data import text_cache_writer
from vdm.preparation import datasets
from vdm.preparation import text_encoder


def build(config: ConfigDict) -> dict[str, Any]:
  """Writes `data.texts`, or resumes writing it.

  Args:
    config: of the runs that will train on it; `sample.captions`, the prompts
      of their previews, are encoded too.

  Returns:
    What the cache holds, see `text_cache.Texts.plan`.

  Raises:
    CacheError: the folder holds something else.
    MissingDataset: there is no data set.
    UsageError: it has no captions, or the encoder cannot be read.
  """
  text = config.model.text
  if text.encoder != 'pretrained' or not text.name or not config.data.texts:
    raise errors.UsageError(
      'Say which encoder and where its texts go: --config.model.text.encoder='
      'pretrained --config.model.text.name=NAME --config.data.texts=FOLDER.'
    )
  directory = datasets.ensure(config.data)
  told = set(config.sample.captions)
  for split in ('train', 'validation'):
    source = builders.open_source(directory, split, config.data.split_list)
    with errors.as_usage():
      captions.check(source)
    told.update(source.index['caption'].tolist())
  encoder = text_encoder.Encoder(
    text.name, text.revision, text.length, text.features, text.padded
  )
  facts = {name: text[name] for name in text_cache.ENCODER}
  if not text.padded:  # As in caches of before there was this key.
    del facts['padded']
  return text_cache_writer.write(
    config.data.texts,
    {**facts, 'sha256': encoder.fingerprint},
    told,
    encoder.encode,
    encoder.count,
  )
