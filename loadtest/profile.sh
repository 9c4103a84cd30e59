#!/usr/bin/env bash
# Where a server's processor time goes, by what it was doing: profile.sh PID [SECONDS]. Run it while the
# load is on. Needs perf (Debian: linux-perf), and a release build, which has the symbols.
set -euo pipefail
pid=${1:?the process id of a server}
seconds=${2:-10}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Stacks are taken whole: a release build keeps no frame pointers.
perf record --quiet -F 299 --call-graph dwarf,8192 -p "$pid" -o "$work/data" -- sleep "$seconds" >/dev/null
perf script -i "$work/data" --no-inline -F comm,ip,sym 2>/dev/null |
    awk -v RS='' -f "$(dirname "$0")/profile.awk" | sort -rn
