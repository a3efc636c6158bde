"""How a run reads captions, which is written into its folder once.

`<workdir>/text/vocabulary.json` lists the words that the rows of the network's
table stand for. A run that starts from another one (`train.init_from`) keeps
the other's words and adds its own. With a pretrained encoder, captions are read
from a text cache, and `text_encoder.json` says which encoder that is.
"""

from collections.abc import Mapping

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from vdm import trained
from vdm.common import errors
from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import captions
from vdm.data import text_cache
from vdm.multihost import coordination
from vdm.trained import words


def check(
  config: ConfigDict, sources: Mapping[str, builders.ClipSource]
) -> None:
  """Checks that the clips of a run have captions that it may learn.

  Raises:
    UsageError: they have none, or mirroring makes them wrong.
  """
  if config.model.text.encoder == 'none':
    return
  with errors.as_usage():
    for source in sources.values():
      captions.check(source)
    if config.data.flip:
      captions.check_flip(sources['train'])


def make_reader(
  config: ConfigDict,
  workdir: epath.Path,
  sources: Mapping[str, builders.ClipSource],
  begun: ConfigDict | None,
) -> vocabulary.Reader | None:
  """Returns what reads the captions of a run; None if it reads none.

  All processes call it; the first one writes.

  Args:
    config: the run's.
    workdir: its folder.
    sources: by split; words are those of the training split.
    begun: what the run has begun with; None if it has not, and what an earlier
      start has written is written anew.

  Raises:
    UsageError: what is there is damaged, a prompt has unknown words, or the
      text cache is not the run's.
  """
  text = config.model.text
  if text.encoder == 'none':
    return None
  if text.encoder == 'learned':
    found = _ensure_vocabulary(config, workdir, sources['train'], begun)
    reader = vocabulary.Words(found, text.length)
  else:
    reader = _open_cache(config, workdir, sources, begun)
  with errors.as_usage('config.sample.captions: '):
    for caption in config.sample.captions:
      reader.check(caption)
  return reader


def _open_cache(config, workdir, sources, begun) -> text_cache.Texts:
  text, path = config.model.text, workdir / words.FOLDER / words.ENCODER
  there = path.exists() and begun is not None
  there = coordination.first_says('the text encoder', there)
  sha256 = words.sha256(words.in_run(workdir)) if there else ''
  texts = text_cache.open_cache(config.data.texts, text, sha256)
  for source in sources.values():
    if missing := texts.lacking(source.index['caption'].tolist()):
      texts.check(missing[0])
  if not there:
    if coordination.is_first():
      words.write(path, {'sha256': texts.plan['sha256']})
    coordination.gather('writing the text encoder')
  return texts


def _ensure_vocabulary(config, workdir, source, begun) -> tuple[str, ...]:
  text, path = config.model.text, workdir / words.FOLDER / words.VOCABULARY
  there = path.exists() and begun is not None
  if coordination.first_says('the vocabulary', there):
    return words.words(text, words.in_run(workdir))
  first = ()
  if config.train.init_from:
    with errors.as_usage('config.train.init_from: '):
      first = trained.load_vocabulary(config.train.init_from)
  told = source.index['caption'].tolist()
  found = vocabulary.build(told, text.vocabulary, first)
  known = set(found)
  lacking = sum(
    any(word not in known for word in vocabulary.split(x)) for x in told
  )
  logging.info(
    'Vocabulary: %d words, of %d at most; %d of %d captions have others.',
    len(found),
    text.vocabulary,
    lacking,
    len(told),
  )
  if coordination.is_first():
    words.write(path, found)
  coordination.gather('writing the vocabulary')
  return found
