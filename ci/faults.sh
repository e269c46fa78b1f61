#!/usr/bin/env bash
# Every fault and control that shows without a GPU, on a CPU; general ones in a transformer too.
#
#   bash ci/faults.sh
#
# What the clock has to detect runs alone, everything else in two processes at once.
# Exit code: 0, all as it must be; 1, a fault is missed or a control flagged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# General faults; all of them are in tests/full.
transformer='upcast_norms sdpa_math_only item_in_step hooks_left_on images_kept decoded_one_by_one
    stale_output nan block_skipped no_guidance prompt_lost scheduler_defaults rerun_half'

names() { # timed, or half I of the others
    python - "$1" <<'PYTHON'
import sys

from diffusers_perf import faults
from diffusers_perf.catalog.discovery import load
from diffusers_perf.catalog.metrics import BY_THE_CLOCK

load("diffusers_perf.faults")
here = [fault for fault in faults.declared().values() if fault.runs_on("cpu")]
# More than two rounds tell latencies apart.
timed = {f.name for f in here if f.detected_by in BY_THE_CLOCK or f.setting.rounds > 2}
others = [fault.name for fault in here if fault.name not in timed]
print(*(timed if sys.argv[1] == "timed" else others[int(sys.argv[1]) :: 2]))
PYTHON
}

tried() { # argument of `ci faults` ...
    # 3: too busy a machine to tell of latency, which is no fault of this change.
    python -m ci faults --device cpu "$@" || [ $? -eq 3 ]
}

first=$(names 0) second=$(names 1) timed=$(names timed)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
# One thread each: on two cores they would wait for one another.
export OMP_NUM_THREADS=1
# shellcheck disable=SC2086 # names are words
{ tried $first && tried --model=embedded-flux $transformer; } >"$log" 2>&1 &
# shellcheck disable=SC2086
tried $second || code=1
wait $! || code=1
cat "$log"
unset OMP_NUM_THREADS
# shellcheck disable=SC2086
tried $timed || code=1
exit "$code"
