#!/usr/bin/env bash
# Make a checkout usable again after its last Snakemake was killed. Run by `make demo`, from the checkout's root.
#
# A killed Snakemake leaves a lock, which is removed here, and perhaps running jobs, which are waited for: two
# processes must not write the same results. A Snakemake that is alive is left alone.
set -euo pipefail

# Process ids of this folder's Snakemake (first argument `snakemake`) or of its jobs (`job`).
running() {
    local folder words
    for folder in /proc/[0-9]*; do
        [ "$(readlink "$folder/cwd" 2> /dev/null)" = "$PWD" ] || continue
        words=$(head -c 4096 "$folder/cmdline" 2> /dev/null | tr '\0' '\n' | sed -n 2,3p | tr '\n' ' ') || continue
        case "$1:$words" in
            snakemake:*/snakemake\ * | snakemake:-m\ snakemake\ * | job:-m\ promptecho\ *) basename "$folder" ;;
        esac
    done
}

[ -n "$(ls .snakemake/locks 2> /dev/null)" ] || exit 0

alive=$(running snakemake | paste -sd ' ')
if [ -n "$alive" ]; then
    echo "Snakemake is already running here (process $alive); let it finish, or stop it with Ctrl-C, then try again" >&2
    exit 1
fi
while jobs=$(running job | paste -sd ' ') && [ -n "$jobs" ]; do
    echo "waiting for jobs of an interrupted run to end (process $jobs)"
    sleep 5
done
echo "removing the lock of an interrupted run"
"$@" --unlock --quiet all
