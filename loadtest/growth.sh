#!/bin/sh
# Watches one server's memory and descriptors while a load runs, and says whether they grow: for each,
# the slope of a straight line through the samples, how sure it is, and between which values they were.
# The first third of the time is the server's to warm up in, and is left out.
#
#   loadtest/growth.sh herald-data/dev.json 1800 >growth.tsv
#
# The samples, one every 10 s, go to standard output; what they say to standard error.
set -eu
dev_json=$1
seconds=$2
every=10
admin=$(sed -n 's/.*"admin_listen": *"\([^"]*\)".*/\1/p' "$dev_json")
begun=$(date +%s)
exec 3>&1

watch() {
    printf 'second\tresident_bytes\theap_bytes\tdescriptors\n'
    second=0
    while [ "$second" -le "$seconds" ]; do
        metrics=$(curl -fsS "http://$admin/metrics")
        second=$(($(date +%s) - begun))
        printf '%s\n' "$metrics" | awk -v second="$second" '
            { value[$1] = $2 }
            END {
                printf "%d\t%.0f\t%.0f\t%d\n", second, value["process_resident_memory_bytes"],
                    value["herald_alloc_allocated_bytes"], value["process_open_fds"]
            }'
        sleep "$every"
    done
}

watch | tee /dev/fd/3 | awk -v from="$((seconds / 3))" -v count=0 '
    # Least squares, with the standard error of the slope.
    function judge(what, unit, scale, column, i, n, x, y, sx, sy, sxx, sxy, syy, slope, rest, low, high) {
        n = sx = sy = sxx = sxy = syy = 0
        for (i = 0; i < count; i++) {
            x = at[i] / 60; y = sample[i, column] / scale
            n++; sx += x; sy += y; sxx += x * x; sxy += x * y; syy += y * y
            if (i == 0 || y < low) low = y
            if (i == 0 || y > high) high = y
        }
        slope = (n * sxy - sx * sy) / (n * sxx - sx * sx)
        rest = (syy - sy * sy / n - slope * (sxy - sx * sy / n)) / (n - 2)
        printf "%s: %+.3f %s a minute (give or take %.3f), between %.1f and %.1f, %d samples\n", what,
            slope, unit, 2 * sqrt((rest > 0 ? rest : 0) / (sxx - sx * sx / n)), low, high, n >"/dev/stderr"
    }
    NR > 1 && $1 >= from { at[count] = $1; for (i = 2; i <= 4; i++) sample[count, i] = $i; count++ }
    END {
        judge("resident memory", "MiB", 1048576, 2)
        judge("heap", "MiB", 1048576, 3)
        judge("descriptors", "descriptors", 1, 4)
    }'
