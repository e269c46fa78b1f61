#!/usr/bin/env bash
# Every check that reads the code without running it. .ci/run and the public workflow call it.
#
#   bash ci/lint.sh
#
# Needs the `dev` extra. shellcheck and actionlint are programs of the system: the check is left out
# with a line that says so if one is missing, unless CI_STRICT=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

of_the_system() { # program, argument ...
    if command -v "$1" >/dev/null; then
        "$@"
    else
        echo "$1 is not installed: not checked"
        [[ -z ${CI_STRICT:-} ]]
    fi
}

ruff check .
ruff format --check .
mypy
of_the_system shellcheck ci/*.sh .ci/run
of_the_system actionlint
zizmor --offline --no-progress --quiet .github
bash ci/requirements.sh --check
