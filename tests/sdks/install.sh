#!/usr/bin/env bash
# Installs one of the official SDKs, pinned, and says where:
#
#     tests/sdks/install.sh python|node|go|java
#
# It goes into `${HERALD_CACHE:-$HOME/.cache/herald}/sdks`, once for each set of pins. Exit code 3
# means that a toolchain is missing, and the last line on standard error says which.
set -euo pipefail
cd "$(dirname "$0")"
sdk=$1
cache="${HERALD_CACHE:-$HOME/.cache/herald}/sdks"

missing() {
    echo "$sdk: no $1" >&2
    exit 3
}

needs() {
    local tool
    for tool in "$@"; do command -v "$tool" >/dev/null || missing "$tool"; done
}

# All that decides what is installed.
pins() {
    case $sdk in
    python) python3 --version && cat python/requirements.txt ;;
    node) cat node/package.json node/package-lock.json ;;
    go) go version && cat go/go.mod go/go.sum go/sender.go ;;
    java) cat java/pom.xml java/Sender.java ;;
    esac
}

install_python() {
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --requirement python/requirements.txt
}

# What is optional are Firestore and Storage.
install_node() {
    cp node/package.json node/package-lock.json "$home/"
    (cd "$home" && npm ci --silent --omit=optional --ignore-scripts --no-audit --no-fund)
}

install_go() {
    (cd go && GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOMODCACHE="$cache/go-modules" \
        GOCACHE="$cache/go-build" go build -o "$home/sender" sender.go)
}

# Compiled by a jar, because a Java runtime has no compiler of its own.
install_java() {
    cp java/pom.xml "$home/"
    # Maven ends with a change of colour, whatever it is told.
    (cd "$home" && mvn -B -q package) | sed 's/\x1b\[[0-9;]*m//g'
    java -jar "$home"/lib/ecj-*.jar -source 17 -target 17 -nowarn \
        -cp "$(printf '%s:' "$home"/lib/*.jar)" -d "$home/classes" java/Sender.java
}

case $sdk in
python)
    needs python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || missing "python3 of 3.10 or newer"
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing "venv for python3"
    ;;
node) needs node npm ;;
go)
    needs go
    go version | grep -Eq 'go1\.(2[3-9]|[3-9][0-9])' || missing "go of 1.23 or newer"
    ;;
java)
    needs java mvn
    java -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])' || missing "java of 17 or newer"
    ;;
*) echo "usage: $0 python|node|go|java" >&2 && exit 64 ;;
esac

mkdir -p "$cache"
home="$cache/$sdk-$(pins | sha256sum | head -c 16)"
exec {lock}>"$cache/$sdk.lock"
flock "$lock"
if [ ! -e "$home/complete" ]; then
    rm -rf "$home"
    mkdir "$home"
    "install_$sdk" >&2
    touch "$home/complete"
fi
echo "$home"
