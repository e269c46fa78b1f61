#!/usr/bin/env bash
# Puts the results of a finished workflow run into one comment on its pull request, or into the one
# that is there, and takes off the label that asked for the run.
#
#   GITHUB_REPOSITORY=OWNER/NAME RUN_ID=1 RUN_TITLE=TITLE HEAD_OWNER=OWNER HEAD_BRANCH=BRANCH \
#       HEAD_SHA=COMMIT LABEL=gpu bash ci/comment.sh
#
# Needs gh, jq and Python. It may write, so the pull request's code is never run here, and what that
# code wrote is data: this checkout renders the comment from the runs' JSON. Which pull request it
# is, GitHub says. The title, which its author can choose, decides only between pull requests of the
# same commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${GITHUB_REPOSITORY:?}" "${RUN_ID:?}" "${RUN_TITLE:?}" "${HEAD_OWNER:?}" "${HEAD_BRANCH:?}"
: "${HEAD_SHA:?}" "${LABEL:?}"

repository="repos/$GITHUB_REPOSITORY"
link="${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/$RUN_ID"

pulls=$(gh api --method GET "$repository/pulls" -f state=open -f per_page=100 \
    -f "head=$HEAD_OWNER:$HEAD_BRANCH")
# shellcheck disable=SC2016 # the variables are jq's
number=$(jq --raw-output --arg sha "$HEAD_SHA" --arg title "$RUN_TITLE" '
    [.[] | select(.head.sha == $sha) | .number]
    | if length > 1 then map(select(. as $number | $title | endswith("#\($number)"))) else . end
    | if length == 1 then .[0] else empty end' <<<"$pulls")
take_off_label() { # pull request: it asked for the code as it stood then; later code asks anew
    gh api --method DELETE "$repository/issues/$1/labels/$LABEL" --silent ||
        echo 'the label was taken off already'
}

if [[ -z $number ]]; then
    echo "no comment: not exactly one open pull request is at $HEAD_SHA"
    moved=$(jq --raw-output 'if length == 1 then .[0].number else empty end' <<<"$pulls")
    [[ -z $moved ]] || take_off_label "$moved"
    exit
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gh run download "$RUN_ID" --repo "$GITHUB_REPOSITORY" --pattern 'report-*' \
    --dir "$folder/artifacts" || mkdir -p "$folder/artifacts"

"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --require-hashes --no-deps --requirement ci/requirements.txt
"$python" -m pip install --quiet --no-deps --editable .
# For the sparklines.
gh repo clone "$GITHUB_REPOSITORY" baselines/history -- --quiet --depth 1 --branch perf-history ||
    echo 'there is no history yet'
"$python" -m ci comment "$folder/artifacts" --link "$link" >"$folder/text"
jq --raw-input --slurp '{body: .}' "$folder/text" >"$folder/body"

marker=$(head -n 1 "$folder/text")
comments=$(gh api --paginate "$repository/issues/$number/comments" --jq \
    ".[] | select(.user.type == \"Bot\" and (.body | startswith(\"$marker\"))) | .id")
comment=${comments%%$'\n'*}
if [[ -n $comment ]]; then
    gh api --method PATCH "$repository/issues/comments/$comment" --input "$folder/body" --silent
else
    gh api --method POST "$repository/issues/$number/comments" --input "$folder/body" --silent
fi
take_off_label "$number"
