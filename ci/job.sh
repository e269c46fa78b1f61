#!/usr/bin/env bash
# The jobs of any CI, one command each. What a job writes lies in runs/.
#
#   bash ci/job.sh lint                      what reads the code without running it
#   bash ci/job.sh audit                     known vulnerabilities of what ci/requirements.txt names
#   bash ci/job.sh cpu                       what needs no GPU: structure, unit tests, the main job
#   bash ci/job.sh full                      the tests that take too long for every push; no GPU
#   bash ci/job.sh pair BASE HEAD [ARG ...]  two commits in turn on this GPU (ARG: of `ci ab`)
#   bash ci/job.sh shard I/N                 the I-th part of the main job, all suites, on this GPU
#   bash ci/job.sh judge                     join the shards in runs/, judge them by the baseline
#   bash ci/job.sh control                   what the newest run of runs/history measured, again
#   bash ci/job.sh history                   add runs/artifacts to runs/history, and report
#   bash ci/job.sh mutation                  does a test fail where the judge is wrong? no GPU
#   bash ci/job.sh newest [ARG ...]          the newest torch and diffusers against the locked ones
#
# Exit code: 0 holds, 1 a regression, 2 nothing could be judged. What stays inconclusive though everything
# was judged is 0 with a warning: an answer that no change caused.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The guide's rows only: a pull request should not wait for the others.
guide='[ddim50-reference] or [ddim50-tf32] or [ddim50-fp16] or [ddim50-tf32+fp16] or pndm25x4'
# All that is declared: a night has the time.
suites='guide or lossless or lossy'

environment() { # folder: what ci/torch.txt and ci/requirements.txt name, and this checkout
    "${PYTHON:-python3}" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --requirement ci/torch.txt
    judging "$1"
}

judging() { # folder: the same without torch, which no verdict needs
    [[ -d $1 ]] || "${PYTHON:-python3}" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --require-hashes --no-deps --requirement ci/requirements.txt
    "$1/bin/python" -m pip install --quiet --no-deps --editable .
}

report() { # python, run ...: for the job's summary, a comment and a browser
    # The job has its own verdict: a page that cannot be made changes no result.
    "$1" -m ci report "${@:2}" --markdown runs/report.md --html runs/report.html ||
        echo '## No report was made; the log says why' >runs/report.md
    summarize
}

summarize() {
    [[ -z ${GITHUB_STEP_SUMMARY:-} ]] || cat runs/report.md >>"$GITHUB_STEP_SUMMARY"
}

inconclusive() {
    echo "${GITHUB_ACTIONS:+::warning::}inconclusive: neither green nor red; the report says what"
}

not_judged() { # why, as runs/errors.txt says it
    { printf '## Not judged\n\n' && sed 's/^/    /' runs/errors.txt; } >runs/report.md
    summarize
}

compared() { # python, argument of `ci ab` ...
    local python=$1 code=0 base head heads=() bases=()
    shift
    # Of a job before; `runs/ab`, where `ci ab` goes on, is a person's.
    rm -rf runs/compared
    once "$python" "$@" || code=$?
    if ((code == 2)) && ! was_compared; then
        echo 'it broke off: once more, from where it was'
        code=0
        once "$python" "$@" || code=$?
    fi
    if ! was_compared; then
        not_judged
        return "$code"
    fi
    for base in runs/compared/base-*.json; do
        head=${base/base-/head-}
        if [[ -f $head ]]; then
            bases+=("$base") heads+=("$head")
        fi
    done
    report "$python" "${heads[@]}" --base "${bases[@]}"
    if ((code == 2)); then
        # `ab` made twice as many pairs already if those could tell, as far as the time allowed.
        inconclusive
        return
    fi
    return "$code"
}

once() { # python, argument of `ci ab` ...
    local code=0
    "$1" -m ci ab --out runs/compared "${@:2}" 2>runs/errors.txt || code=$?
    cat runs/errors.txt >&2
    return "$code"
}

was_compared() {
    grep -qs '"compared":' runs/compared/ab.json
}

active() { # the environment, for scripts that call programs by name
    environment runs/env
    # shellcheck source=/dev/null
    source runs/env/bin/activate
}

lint() {
    active
    bash ci/lint.sh
}

audit() {
    local code=0
    "${PYTHON:-python3}" -m venv runs/audit
    runs/audit/bin/python -m pip install --quiet pip-audit==2.10.1 || return 0
    runs/audit/bin/python -m pip_audit --disable-pip --require-hashes --progress-spinner off \
        --requirement ci/requirements.txt >runs/audit.txt 2>&1 || code=$?
    cat runs/audit.txt
    # Without an answer of the index it ends as with a vulnerability.
    ((code == 0)) || ! grep -q 'known vulnerabilit' runs/audit.txt
}

cpu() {
    active
    python -m ci structure
    bash ci/quickstart.sh runs/cpu.json
}

full() {
    active
    python -m pip install --quiet --editable '.[ray]'
    pytest perf_tests/tests/full perf_tests/training # the models' recipes, a few steps of each
}

pair() { # base, head, argument of `ci ab` ...
    local sides=(--base "$1" --head "$2")
    shift 2
    # With it, CI has something of this machine to report, however this ends.
    : >runs/errors.txt
    (($#)) || set -- --device cuda --quick --minutes 12 -- -k "$guide"
    judging runs/env
    compared runs/env/bin/python "${sides[@]}" "$@"
}

shard() { # i/n
    environment runs/env
    local code=0
    runs/env/bin/python -m pytest perf_tests --benchmark-only --device cuda --shard "$1" \
        --benchmark-json "runs/shard-${1%/*}.json" -m "$suites" || code=$?
    # Failed cases are judged with those of the other shards.
    ((code < 2)) || return 2
}

judge() {
    judging runs/env
    local code=0
    runs/env/bin/python -m ci merge runs/shard-*.json --json runs/run.json
    runs/env/bin/python -m ci gate runs/run.json >runs/gate.txt 2>runs/errors.txt || code=$?
    cat runs/gate.txt
    cat runs/errors.txt >&2
    if ((code == 2)) && ! was_judged; then
        not_judged
    fi
    report runs/env/bin/python runs/run.json
    if ((code == 2)) && was_judged; then
        inconclusive
        return
    fi
    return "$code"
}

was_judged() {
    # `gate` answers 2 for both, and says so in its last line where it judged.
    [[ $(tail -n 1 runs/gate.txt) == 'inconclusive: '* ]]
}

control() { # the same commit on this machine tells a change of code from one of the machine
    local newest commit
    mkdir -p runs/history
    newest=$(find runs/history -name '*.jsonl.gz' -printf '%f %p\n' | sort | tail -n 1)
    if [[ -z $newest ]]; then
        echo 'the history is empty: there is no commit to measure again'
        return
    fi
    commit=$(gzip -dc "${newest#* }" | sed -n '1s/.*"commit":"\([0-9a-f]*\)".*/\1/p')
    git worktree add --force --detach runs/control "$commit"
    (cd runs/control && bash ci/job.sh shard 1/1)
    cp runs/control/runs/shard-1.json runs/control.json
}

history() {
    local run
    judging runs/env
    rm -rf runs/issues
    for run in runs/artifacts/night-*/run.json runs/artifacts/control-*/control.json; do
        [[ -e $run ]] || continue
        case $run in
            */control.json) runs/env/bin/python -m ci history add "$run" --store runs/history --label control ;;
            *) runs/env/bin/python -m ci history add "$run" --store runs/history ;;
        esac
    done
    runs/env/bin/python -m ci history report --store runs/history --html runs/history.html \
        --issues runs/issues >runs/history.txt
    { printf '## History\n\n' && sed 's/^/    /' runs/history.txt; } >runs/report.md
    summarize
}

mutation() {
    environment runs/env
    runs/env/bin/python -m pip install --quiet --editable '.[mutation]'
    runs/env/bin/python -m perf_tests.tests.mutation
}

newest() { # argument of `ci ab` ...
    (($#)) || set -- --device cuda --quick
    environment runs/locked
    environment runs/newest
    # In a step of its own: newer than pyproject.toml allows is what this job wants to know about.
    runs/newest/bin/python -m pip install --quiet --upgrade torch diffusers
    local env
    for env in locked newest; do
        "runs/$env/bin/python" -m pip freeze | grep -E '^(torch|diffusers)==' >"runs/$env.txt"
    done
    if diff runs/locked.txt runs/newest.txt; then
        echo 'ci/requirements.txt names the newest torch and diffusers: nothing to compare'
        return
    fi
    compared runs/locked/bin/python --base-python runs/locked/bin/python \
        --head-python runs/newest/bin/python "$@"
}

case "${1:-} $#" in
    'lint 1' | 'audit 1' | 'cpu 1' | 'full 1' | 'shard 2' | 'judge 1' | 'control 1' | 'history 1' | 'mutation 1' | pair\ [3-9]* | pair\ [1-9][0-9]* | newest\ *)
        mkdir -p runs
        "$@"
        ;;
    *)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
