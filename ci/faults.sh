#!/usr/bin/env bash
# Every fault and control that shows on a CPU; some general faults in a transformer too.
#
#   bash ci/faults.sh
#
# What the times of more than two rounds tell runs alone, everything else in two processes at once.
# On a GPU each would wait for the other to leave it: `diffusers-perf faults --device cuda` injects
# all in one.
# Exit code: 0, all as it must be; 1, a fault is missed or a control flagged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# General faults of the kinds that a denoiser's own code can hide; all of them are in tests/full.
transformer='upcast_norms item_in_step images_kept stale_output block_skipped no_guidance prompt_lost'

names() { # a line each: what is timed, and what each of two processes injects
    python - <<'PYTHON'
from bisect import bisect
from itertools import accumulate

from diffusers_perf import faults
from diffusers_perf.catalog.discovery import load

load("diffusers_perf.faults")
TRANSFORMER_S = 35  # what the first process injects in it, about


def seconds(fault):
    """What a trial takes, about."""
    if fault.setting.imports:
        return 20
    if fault.apply.__module__.endswith(".compiling"):
        return 12
    return 1.5 if fault.setting.image_only else 3.5


here = [fault for fault in faults.declared().values() if fault.runs_on("cpu")]
# Fewer rounds say nothing of a latency. The clock of load and host time, which they do judge, stands
# still while another process has the core. Images are what they are.
timed = [f for f in here if f.setting.rounds > 2 and f.detected_by != "image"]
# Trials of one setting share their clean runs, if they are in one process.
others = sorted((f for f in here if f not in timed), key=lambda f: repr(f.setting))
so_far = [*accumulate(map(seconds, others))]
first = bisect(so_far, (so_far[-1] - TRANSFORMER_S) / 2)
for part in (timed, others[:first], others[first:]):
    print(*(fault.name for fault in part))
PYTHON
}

tried() { # argument of `ci faults` ...
    # 3: too busy a machine to tell of latency, which is no fault of this change.
    python -m ci faults --device cpu "$@" || [ $? -eq 3 ]
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
names >"$scratch/names"
mapfile -t names <"$scratch/names"
code=0 started=()
# One thread each: on two cores they would wait for one another.
export OMP_NUM_THREADS=1
for ((part = 1; part <= 2; part++)); do
    # shellcheck disable=SC2086 # names are words
    {
        tried ${names[part]:-} && if ((part == 1)); then tried --model=embedded-flux $transformer; fi
    } >"$scratch/$part" 2>&1 &
    started[part]=$!
done
for part in "${!started[@]}"; do
    wait "${started[part]}" || code=1
    cat "$scratch/$part"
done
unset OMP_NUM_THREADS
# shellcheck disable=SC2086
tried ${names[0]:-} || code=1
exit "$code"
