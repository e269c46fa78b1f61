#!/usr/bin/env bash
# The README's two commands, on a CPU. The public workflow and .ci/run call it.
#
#   bash ci/quickstart.sh RUN.json
#
# Needs an environment with the `dev` extra; RUN.json is what the second command measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pytest -n logical perf_tests/tests/unit
pytest perf_tests --benchmark-only --device cpu --benchmark-json "$1"
