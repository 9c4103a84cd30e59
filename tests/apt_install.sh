#!/usr/bin/env bash
# Installs Debian packages, as root or with sudo, and starts nothing: tests start servers themselves.
#
#     tests/apt_install.sh PACKAGE...
set -euo pipefail

if ! command -v apt-get >/dev/null; then
    echo "please install: $* (no apt-get here to do it)" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "please install: $* (neither root nor sudo here to do it)" >&2
        exit 1
    fi
    as_root=(sudo)
fi
printf '\n== installing %s\n' "$*"
"${as_root[@]}" apt-get update -q

# A package must not start a service, neither now (exit code 101 is how Debian is told) nor with the
# machine.
policy=/usr/sbin/policy-rc.d is_ours=no result=0
if [ ! -e "$policy" ]; then
    is_ours=yes
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qy --no-install-recommends "$@" || result=$?
[ "$is_ours" = no ] || "${as_root[@]}" rm -f "$policy"
for service in "$@"; do
    # Most packages have none.
    "${as_root[@]}" systemctl disable "$service" >/dev/null 2>&1 || true
done
exit "$result"
