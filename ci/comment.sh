#!/usr/bin/env bash
# Puts the reports of a finished workflow run into one comment of its pull request, or into the one
# that is there, and takes off the label that had asked for the run.
#
#   GITHUB_REPOSITORY=OWNER/NAME RUN_ID=1 HEAD_OWNER=OWNER HEAD_BRANCH=BRANCH LABEL=gpu \
#       bash ci/comment.sh
#
# Needs gh and jq. Whatever the pull request's code wrote is data here: which pull request it is,
# GitHub says, and not the report.
set -euo pipefail
: "${GITHUB_REPOSITORY:?}" "${RUN_ID:?}" "${HEAD_OWNER:?}" "${HEAD_BRANCH:?}" "${LABEL:?}"

repository="repos/$GITHUB_REPOSITORY"
marker='<!-- perf_tests -->'
longest=65000 # characters; GitHub takes 65,536

number=$(gh api --method GET "$repository/pulls" -f state=open -f "head=$HEAD_OWNER:$HEAD_BRANCH" \
    --jq '.[0].number // empty')
if [[ -z $number ]]; then
    echo 'the pull request is no longer open: nothing to say'
    exit
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gh run download "$RUN_ID" --repo "$GITHUB_REPOSITORY" --pattern 'report-*' --dir "$folder/reports" ||
    mkdir -p "$folder/reports"
{
    echo "$marker"
    for report in "$folder"/reports/report-*/report.md; do
        if [[ -f $report ]]; then
            printf '\n'
            cat "$report"
        else
            printf '\nThe run ended without a report.\n'
        fi
    done
    # shellcheck disable=SC2016 # the backquotes are Markdown
    printf '\n[The run](%s/%s/actions/runs/%s). Put the label `%s` on again to repeat it.\n' \
        "${GITHUB_SERVER_URL:-https://github.com}" "$GITHUB_REPOSITORY" "$RUN_ID" "$LABEL"
} >"$folder/text"
jq --raw-input --slurp "{body: .[:$longest]}" "$folder/text" >"$folder/body"

comments=$(gh api --paginate "$repository/issues/$number/comments" --jq \
    ".[] | select(.user.type == \"Bot\" and (.body | startswith(\"$marker\"))) | .id")
comment=${comments%%$'\n'*}
if [[ -n $comment ]]; then
    gh api --method PATCH "$repository/issues/comments/$comment" --input "$folder/body" --silent
else
    gh api --method POST "$repository/issues/$number/comments" --input "$folder/body" --silent
fi
# It asked for the code as it stood then; what is pushed later asks anew.
gh api --method DELETE "$repository/issues/$number/labels/$LABEL" --silent ||
    echo 'the label was taken off already'
