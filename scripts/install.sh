#!/usr/bin/env bash
# install.sh run|dev: a virtual environment in .venv with what the lock names, and this source tree.
# Does nothing when that is already there.
set -euo pipefail
cd "$(dirname "$0")/.."

set_name=$1
lock=requirements/$set_name.lock
wanted=$(cat requirements/*.lock pyproject.toml | cksum)
# the environment for development holds everything the other one does
for stamp in .venv/."$set_name" .venv/.dev; do
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit; fi
done

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  python=$(bash scripts/python.sh)
  rm -rf .venv
  "$python" -m venv .venv
fi
echo "Installing into .venv (once; a minute or less) …" >&2
quiet=(--quiet --quiet --disable-pip-version-check --no-input)
.venv/bin/python -m pip install "${quiet[@]}" --require-hashes -r "$lock"
# the lock holds the build tool too, so nothing unlocked is fetched
.venv/bin/python -m pip install "${quiet[@]}" --no-deps --no-build-isolation -e .
rm -f .venv/.run .venv/.dev
echo "$wanted" > .venv/."$set_name"
