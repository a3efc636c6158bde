"""Sends an export to the Hugging Face hub.

The token comes from the environment (HF_TOKEN) and from nowhere else, and is
neither logged nor stored. A repository that is created is private unless asked
otherwise.
"""

import os
import re

from absl import logging
from etils import epath

from vdm.common import buckets
from vdm.common import errors
from vdm.common import hub
from vdm.trained import manifest


def check(repo: str, folder: epath.PathLike) -> None:
  """Checks that an upload can begin, before anything else is done.

  Args:
    repo: owner/name.
    folder: of the export.

  Raises:
    UsageError: the name is none, the folder is in a bucket, or huggingface_hub
      or HF_TOKEN is missing.
  """
  if not re.fullmatch(r'[\w.-]+/[\w.-]+', repo, re.ASCII):
    raise errors.UsageError(
      f'--push={repo} names no repository on the hub: give owner/name.'
    )
  if buckets.is_remote(epath.Path(folder)):
    raise errors.UsageError(
      f'--push sends a local folder: give another --out than {folder}.'
    )
  try:
    import huggingface_hub  # noqa: F401
  except ImportError:
    raise errors.UsageError(
      '--push needs huggingface_hub: install it with .venv/bin/python -m pip '
      'install huggingface_hub.'
    ) from None
  if not os.environ.get('HF_TOKEN'):
    raise errors.UsageError(
      '--push needs a token with write access: set HF_TOKEN in the environment.'
    )


def push(folder: epath.Path, repo: str, names: list[str], public: bool) -> str:
  """Uploads the files of an export in one commit.

  Args:
    folder: of the export, a local one.
    repo: owner/name, created if it does not exist.
    names: of the files; `config.json` is sent too, and nothing else.
    public: whether everybody may see a repository that is created.

  Returns:
    The source to read it from, with the commit.

  Raises:
    UsageError: the hub refused it or could not be reached.
  """
  import huggingface_hub

  api = huggingface_hub.HfApi(token=os.environ['HF_TOKEN'])
  with hub.explained(f'The export is in {folder} and was not sent to {repo}'):
    api.create_repo(repo, private=not public, exist_ok=True)
    commit = api.upload_folder(
      repo_id=repo,
      folder_path=os.fspath(folder),
      allow_patterns=[*names, manifest.CONFIG],
      commit_message='A model exported by vdm',
    )
  source = f'{hub.PREFIX}{repo}@{commit.oid}'
  logging.info('The export is on the hub: %s', source)
  return source
