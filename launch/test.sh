#!/usr/bin/env bash
# Lints and tests, installing first where needed. Arguments go to pytest:
#
#   bash launch/test.sh
#   bash launch/test.sh -m slow
#   bash launch/test.sh tests/config_test.py -k nearest

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup
cd "$root"
"$venv_python" -m ruff check --quiet
"$venv_python" -m ruff format --check --quiet ||
  fail 'Some files are not formatted: run .venv/bin/ruff format.'
if [ $# -eq 0 ] && [ "${VDM_TEST_PLATFORM:-cpu}" = cpu ]; then
  # All of them, in two processes: tests/conftest.py says what one is given.
  set -- -n 2 --dist loadfile
fi
exec "$venv_python" -m pytest "$@"
