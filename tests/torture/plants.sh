#!/bin/sh
# Plants one bug after another in a copy of the source, and looks whether it is found: by the torture,
# or by what the patch names in a line such as `# Found by: simulation`. `cluster` is the torture of a
# region.
# Exits with 1 if one is not found. Each costs a build, so this is not part of test.sh.
#
#   tests/torture/plants.sh                    all of them
#   tests/torture/plants.sh ack_of_another …   these
#
# PLANTS_TARGET is where cargo builds, once for all. PLANTS_FOR is how many seconds each may go on.
set -eu
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${PLANTS_TARGET:-${CARGO_TARGET_DIR:-$PWD/target}/plants}"
export TORTURE_FOR="${PLANTS_FOR:-60}"
plants="$PWD/tests/torture/plants"
copy="$CARGO_TARGET_DIR/source"
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$copy"
cd "$copy"

finder=torture
build() { cargo test --quiet -p herald --test "$finder" --no-run; }
find_it() {
    case $finder in
    torture | cluster) cargo test --quiet -p herald --test "$finder" nothing_is_lost -- --nocapture ;;
    *) cargo test --quiet -p herald --test "$finder" -- --nocapture ;;
    esac
}

# A harness that always fails finds every plant.
if ! build || ! TORTURE_FOR=25 find_it >found.log 2>&1; then
    echo "the source does not pass without a plant: see $copy/found.log" >&2
    exit 1
fi
[ $# -gt 0 ] || set -- $(cd "$plants" && ls | sed -n 's/\.patch$//p')
missed=0
for plant; do
    patch --quiet -p1 <"$plants/$plant.patch"
    finder=$(sed -n 's/^# Found by: \([a-z]*\).*/\1/p' "$plants/$plant.patch")
    finder=${finder:-torture}
    if ! build 2>build.log; then
        cat build.log >&2
        echo "$plant: does not build"
        missed=1
    elif begun=$(date +%s) && find_it >found.log 2>&1; then
        echo "$plant: NOT CAUGHT by the $finder in $(($(date +%s) - begun)) s"
        missed=1
    else
        why=$(grep -m1 -A1 'panicked at' found.log | sed -n '2{s/AQ[A-Za-z0-9_-]\{60,\}/a token/g;p}' | cut -c1-160)
        echo "$plant: caught by the $finder after $(($(date +%s) - begun)) s: $why"
    fi
    patch --quiet -p1 -R <"$plants/$plant.patch"
done
exit $missed
