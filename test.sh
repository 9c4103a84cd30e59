#!/usr/bin/env bash
# Installs what the tests need and runs them all: format, clippy with warnings denied, docs, unit,
# property, conformance and scenario tests, and FCM's official SDKs. Needs a Rust toolchain and a
# package manager.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

# A C compiler builds the allocator and the TLS primitives; curl runs the lines that --dev prints; patch
# tries the planted bugs; strace counts system calls.
# Redis, and Cassandra on Java 17, which Maven fetches, are the stores of a region. FCM's SDKs run on
# Python, Node and Java; the one for Go where there is Go.
install_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v make >/dev/null || missing+=(make)
    command -v curl >/dev/null || missing+=(curl)
    command -v patch >/dev/null || missing+=(patch)
    command -v strace >/dev/null || missing+=(strace)
    command -v setpriv >/dev/null || missing+=(util-linux)
    command -v redis-server >/dev/null || missing+=(redis-server)
    has_java_17 || missing+=(openjdk-17-jre-headless)
    command -v mvn >/dev/null || missing+=(maven)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    [ ${#missing[@]} -eq 0 ] && return
    tests/apt_install.sh "${missing[@]}"
}

# Cassandra 5.0 runs on no newer one, so another `java` may come first.
has_java_17() {
    local java
    for java in java /usr/lib/jvm/java-17-openjdk-*/bin/java; do
        [[ $("$java" -version 2>&1) != *'version "17'* ]] || return 0
    done
    return 1
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
# Property tests and tortures take the same random way each time, so that a run can be repeated; another
# number looks elsewhere: TORTURE_SEED=$RANDOM PROPTEST_RNG_SEED=$RANDOM PROPTEST_CASES=10000 ./test.sh
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}" TORTURE_SEED="${TORTURE_SEED:-1}"
# Scenarios open many sockets.
ulimit -n "$(ulimit -Hn)"

# The official SDKs, fetched while the compiler works. A test installs what it misses by itself.
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
for sdk in python node go java; do
    tests/sdks/install.sh "$sdk" >"$log/$sdk" 2>&1 &
done

say "format"
cargo fmt --all -- --check
say "clippy"
cargo clippy --workspace --all-targets -- -D warnings
say "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
say "official SDKs"
wait
tail -qn 1 "$log"/*
say "tests"
cargo test --workspace 2>&1 | tee "$log/tests"
passed=$(awk '/^test result: ok/ { sum += $4 } END { print sum + 0 }' "$log/tests")
grep '^\*\*\* SKIPPED' "$log/tests" || true
say "all well: format, clippy, docs, $passed tests, in $SECONDS s"
