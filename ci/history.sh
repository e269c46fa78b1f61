#!/usr/bin/env bash
# The history of a repository on GitHub: a branch that holds one file per run, and an issue for each
# commit range that made something worse.
#
#   GITHUB_REPOSITORY=OWNER/NAME GH_TOKEN=TOKEN bash ci/history.sh fetch
#   GITHUB_REPOSITORY=OWNER/NAME GH_TOKEN=TOKEN bash ci/history.sh publish
#
# `fetch` puts the branch into runs/history. `publish` adds the runs in runs/artifacts, writes
# the page, pushes the branch, and creates or updates the issues. Needs gh, git, jq and Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${GITHUB_REPOSITORY:?}" "${GH_TOKEN:?}"

branch=perf-history
label=performance
repository="repos/$GITHUB_REPOSITORY"

fetch() {
    # The token is handed over by gh and stays in no file of the checkout.
    gh auth setup-git
    rm -rf runs/history
    local url="${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY"
    if [[ -n $(git ls-remote --heads "$url" "$branch") ]]; then
        git clone --quiet --depth 1 --branch "$branch" "$url" runs/history
    else
        git init --quiet --initial-branch "$branch" runs/history
        git -C runs/history remote add origin "$url"
    fi
}

publish() {
    fetch
    bash ci/job.sh history
    git -C runs/history add --all
    if ! git -C runs/history diff --cached --quiet; then
        git -C runs/history -c user.name=diffusers-perf -c user.email=diffusers-perf@localhost \
            commit --quiet --message "Add the runs of a night"
        git -C runs/history push --quiet origin "$branch"
    fi
    local file
    for file in runs/issues/*.md; do
        [[ ! -e $file ]] || one_issue "$file"
    done
}

one_issue() { # file: its name is the commit range
    local title number state
    title="Performance: $(basename "$1" .md)"
    # One that a person closed stays closed.
    # shellcheck disable=SC2016 # the variables are jq's
    read -r number state < <(gh api --paginate "$repository/issues?state=all&labels=$label" |
        jq --raw-output --arg title "$title" \
            '.[] | select(.title == $title) | "\(.number) \(.state)"' | head -n 1) || true
    if [[ -z ${number:-} ]]; then
        jq --null-input --arg title "$title" --arg name "$label" --rawfile body "$1" \
            '{title: $title, body: $body, labels: [$name]}' |
            gh api --method POST "$repository/issues" --input - --silent
    elif [[ $state == open ]]; then
        jq --null-input --rawfile body "$1" '{body: $body}' |
            gh api --method PATCH "$repository/issues/$number" --input - --silent
    fi
}

case "${1:-} $#" in
    'fetch 1' | 'publish 1') mkdir -p runs && "$@" ;;
    *)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
