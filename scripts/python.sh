#!/usr/bin/env bash
# Prints the path of a Python 3.11 or newer that can make virtual environments.
set -euo pipefail

usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_one() {
  local name
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python3.14 python; do
    if [ -n "$name" ] && usable "$name"; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

find_one && exit
# Debian ships Python without the part that makes virtual environments
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing python3-venv …" >&2
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
  } >/dev/null
  find_one && exit
fi
echo "Python 3.11 or newer with its venv module is needed (Debian: apt-get install python3-venv);" \
  "install it, or set PYTHON to it." >&2
exit 1
