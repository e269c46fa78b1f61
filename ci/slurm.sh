#!/usr/bin/env bash
# One shard of all suites on one GPU, in each task of a Slurm array; `bash ci/job.sh judge` follows.
#
#   sbatch --array=1-4 ci/slurm.sh
#
# On a disk that all nodes share, with an environment in runs/env that was installed once.
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch, in the root of the checkout}"
# shellcheck source=/dev/null
source runs/env/bin/activate
code=0
python -m pytest perf_tests --benchmark-only --device cuda -m 'guide or lossless or lossy' \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --benchmark-json "runs/shard-$SLURM_ARRAY_TASK_ID.json" || code=$?
# Failed cases are judged with those of the other shards.
((code < 2))
