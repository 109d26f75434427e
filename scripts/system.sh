#!/usr/bin/env bash
# The programs that the tests use: Debian's packages where root may install them, then npm's.
set -euo pipefail
cd "$(dirname "$0")/.."
# where Debian keeps mkfs.ext4 and ldconfig, and looks for root only
PATH=$PATH:/usr/sbin:/sbin

missing=()
need() { command -v "$1" >/dev/null || [ -e "$1" ] || missing+=("$2"); }
need bwrap bubblewrap
need setpriv util-linux
need mkfs.ext4 e2fsprogs
need tmux tmux
need slirp4netns slirp4netns
need iptables-restore iptables
need ip iproute2
need dockerd docker.io
need haproxy haproxy
need node nodejs
need npm npm
command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ||
  missing+=(postgresql)
ldconfig -p | grep -q libcairo.so.2 || missing+=(libcairo2)

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]} …" >&2
    {
      export DEBIAN_FRONTEND=noninteractive
      apt-get update -qq
      case " ${missing[*]} " in *' postgresql '*)
        # the tests start servers of their own: none is to be made and started with the machine
        apt-get install -y -qq --no-install-recommends postgresql-common
        sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' \
          /etc/postgresql-common/createcluster.conf
      esac
      apt-get install -y -qq --no-install-recommends "${missing[@]}"
    } >/dev/null
  else
    echo "Not found: ${missing[*]}. The tests that need them are skipped." >&2
  fi
fi

command -v npm >/dev/null || exit 0
for folder in contracts tests/e2e/x402_npm; do
  stamp=$folder/node_modules/.stamp
  wanted=$(cksum < "$folder/package-lock.json")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then continue; fi
  echo "Installing npm packages for $folder …" >&2
  # no package's own scripts run: all we need comes inside the packages
  npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
  echo "$wanted" > "$stamp"
done
