#!/usr/bin/env bash
# Writes requirements/*.lock anew: every package with its hashes, for all platforms, no addresses.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=.cache/lock
if [ ! -x $tool/bin/uv ]; then
  python=$(bash scripts/python.sh)
  "$python" -m venv $tool
  $tool/bin/pip -q install uv
fi
compile() {
  local out=$1; shift
  {
    echo "# Made by \`make lock\` from pyproject.toml."
    # setuptools builds this project itself
    echo 'setuptools>=77' | $tool/bin/uv pip compile --quiet --universal --python-version 3.11 \
      --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
      --upgrade --extra devnet --extra postgres "$@" pyproject.toml -
  } > "$out.new"
  ! grep -qE '^torch|://' "$out.new" || { echo "$out: torch or an address got in" >&2; exit 1; }
  mv "$out.new" "$out"
}
compile requirements/run.lock
compile requirements/dev.lock --group test --group lint
