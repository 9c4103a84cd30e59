#!/usr/bin/env bash
# Installs what the tests need and runs them all: format, clippy with warnings denied, docs, unit,
# property, conformance and scenario tests. Needs a Rust toolchain and a package manager.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

# A C compiler builds the allocator and the TLS primitives; curl runs the lines that --dev prints.
install_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v make >/dev/null || missing+=(make)
    command -v curl >/dev/null || missing+=(curl)
    [ ${#missing[@]} -eq 0 ] && return
    if ! command -v apt-get >/dev/null; then
        echo "please install: ${missing[*]} (no apt-get here to do it)" >&2
        exit 1
    fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "please install: ${missing[*]} (neither root nor sudo here to do it)" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qy --no-install-recommends "${missing[@]}"
}

install_components() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    if ! command -v rustup >/dev/null; then
        echo "please install rustfmt and clippy for $(rustc --version) (no rustup here to do it)" >&2
        exit 1
    fi
    say "installing rustfmt and clippy"
    rustup component add rustfmt clippy
}

if ! command -v cargo >/dev/null; then
    echo "please install Rust: https://rustup.rs" >&2
    exit 1
fi
install_packages
install_components
# Property tests take the same random way each time, so that a run can be repeated; another number
# looks elsewhere: PROPTEST_RNG_SEED=$RANDOM PROPTEST_CASES=10000 ./test.sh
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
# Scenarios open many sockets.
ulimit -n "$(ulimit -Hn)"

say "format"
cargo fmt --all -- --check
say "clippy"
cargo clippy --workspace --all-targets -- -D warnings
say "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
say "tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace 2>&1 | tee "$log"
passed=$(awk '/^test result: ok/ { sum += $4 } END { print sum + 0 }' "$log")
say "all well: format, clippy, docs, $passed tests, in $SECONDS s"
