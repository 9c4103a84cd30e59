#!/usr/bin/env bash
# Runs the same work on Herald as it is here, and as it was at a commit:
#
#     loadtest/compare.sh REVISION [FLAG OF swarm bench]...
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?which commit?}
shift
revision=$(git rev-parse --verify --quiet "$name^{commit}") || {
    echo "$name is no commit" >&2
    exit 1
}

cargo build --release -p herald -p loadtest
target=$(realpath "${CARGO_TARGET_DIR:-target}")

# What is built for one commit is of use for the next.
tree=$(mktemp -d)
trap 'git worktree remove --force "$tree"' EXIT
git worktree add --quiet --detach "$tree" "$revision"
(cd "$tree" && cargo build --release -p herald --target-dir "$target/compare")
old="$target/compare/herald-${name//[^A-Za-z0-9._-]/-}"
cp "$target/compare/release/herald" "$old"

"$target/release/swarm" bench --herald "$target/release/herald" --herald "$old" "$@"
