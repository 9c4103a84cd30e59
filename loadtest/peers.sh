#!/usr/bin/env bash
# Installs the peers that are missing, builds Herald and the swarm, and runs the same work on all:
#
#     loadtest/peers.sh [FLAG OF swarm bench]...
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
# Servers are often where only an administrator's shell looks for them.
has() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null; }
has mosquitto || missing+=(mosquitto)
has nginx || missing+=(nginx)
[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || missing+=(libnginx-mod-nchan)
has nats-server || missing+=(nats-server)
[ ${#missing[@]} -eq 0 ] || tests/apt_install.sh "${missing[@]}"

cargo build --release -p herald -p loadtest
target=${CARGO_TARGET_DIR:-target}/release
exec "$target/swarm" bench --herald "$target/herald" \
    --peer mosquitto --peer nchan --peer nats "$@"
