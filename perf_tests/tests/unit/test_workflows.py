"""Workflows and the scripts behind them: what they may do, and how a job ends."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusers_perf import faults
from diffusers_perf.catalog.discovery import load
from diffusers_perf.cli import __main__ as command
from perf_tests.tests import blocks
from perf_tests.tests.unit.recorded import accept, measured, process, settle, write

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"^\s*(- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
MAY_WRITE = {"comment.yml": {"pull-requests"}, "nightly.yml": {"contents", "issues"}}


def parsed(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content


def jobs() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in WORKFLOWS:
        for job in parsed(path)["jobs"].values():
            yield path, job


def test_each_job_has_a_workflow() -> None:
    assert [path.stem for path in WORKFLOWS] == ["comment", "cpu", "gpu", "nightly"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.match(line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_minimal(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        writes = {name for name, level in job["permissions"].items() if level != "read"}
        assert writes <= MAY_WRITE.get(path.name, set())
        assert "timeout-minutes" in job


def test_workflows_use_no_secrets_and_keep_no_token() -> None:
    for path, job in jobs():
        assert "secrets" not in path.read_text()
        for step in job["steps"]:
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_each_step_is_a_script_that_runs_by_hand() -> None:
    for _, job in jobs():
        for line in [step["run"] for step in job["steps"] if step.get("run", "exit 1") != "exit 1"]:
            assert re.fullmatch(r'bash (ci/\w+\.sh)( [\w^"$]+)*', line), line
            assert (ROOT / line.split()[1]).is_file()


def test_pull_request_reaches_a_gpu_by_its_label_only() -> None:
    # PyYAML reads the key `on` as true.
    events = {path.name: parsed(path)[True] for path in WORKFLOWS}
    assert events["gpu.yml"] == {"pull_request": {"types": ["labeled"]}}
    assert "pull_request" not in events["nightly.yml"]
    assert events["comment.yml"].keys() == {"workflow_run"}
    for path, job in jobs():
        assert "pull_request_target" not in path.read_text()
        if path.name == "gpu.yml":
            assert job["if"] == "github.event.label.name == 'gpu'"
    (comment,) = parsed(ROOT / ".github/workflows/comment.yml")["jobs"].values()
    checkouts = [step for step in comment["steps"] if "actions/checkout" in step.get("uses", "")]
    assert [c["with"]["ref"] for c in checkouts] == [
        "${{ github.event.repository.default_branch }}"
    ]


def test_comment_is_written_for_the_repositorys_own_workflow_only() -> None:
    (job,) = parsed(ROOT / ".github/workflows/comment.yml")["jobs"].values()
    run = "github.event.workflow_run"
    assert f"{run}.path == '.github/workflows/gpu.yml'" in job["if"]
    assert f"{run}.event == 'pull_request'" in job["if"]
    assert job["concurrency"]["cancel-in-progress"] is False
    gpu = parsed(ROOT / ".github/workflows/gpu.yml")
    assert gpu["run-name"].endswith("#${{ github.event.pull_request.number }}")


# Jobs, with stand-ins for the programs that they call


def program(path: Path, shell: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{shell}")
    path.chmod(0o755)
    return path


PYTHON = """
echo "$*" >>"$CALLS"
case "$*" in
    '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip freeze'*) echo "torch==$(basename "$(dirname "$(dirname "$0")")")" ;;
    '-m ci ab '*)
        mkdir -p runs/compared && touch runs/compared/base-1.json runs/compared/head-1.json
        echo "{$STATE}" >runs/compared/ab.json
        echo 'error: the reason' >&2
        exit "$CODE" ;;
    '-m ci gate '*)
        [ -z "$SAID" ] || echo "$SAID"
        [ -z "$ERR" ] || echo "$ERR" >&2
        exit "$CODE" ;;
    '-m pytest '*) exit "$CODE" ;;
    '-m pip_audit '*) echo "$SAID"; exit "$CODE" ;;
    '-m ci report '*) echo '# the report' >runs/report.md ;;
esac
"""


def job(
    tmp_path: Path,
    *arguments: str,
    code: int = 0,
    compared: bool = True,
    gate: tuple[str, str] = ("", ""),
) -> tuple[int, str]:
    """The exit code and output of one job; its calls are in `calls`.

    `gate` is what the gate prints, and what on stderr.
    """
    script = program(tmp_path / "ci" / "job.sh", (ROOT / "ci" / "job.sh").read_text())
    done = subprocess.run(
        ["bash", script, *arguments],
        env=os.environ
        | {
            "PYTHON": str(program(tmp_path / "python", PYTHON)),
            "CALLS": str(tmp_path / "calls"),
            "CODE": str(code),
            "STATE": '"compared": 5' if compared else "",
            "SAID": gate[0],
            "ERR": gate[1],
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "GITHUB_ACTIONS": "true",
        },
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def calls(tmp_path: Path, of: str) -> list[str]:
    return [line for line in (tmp_path / "calls").read_text().splitlines() if of in line]


@pytest.mark.parametrize(
    ("code", "compared", "ends", "runs"),
    [
        (0, True, 0, 1),
        (1, True, 1, 1),
        (2, True, 0, 1),  # inconclusive: neutral
        (2, False, 2, 2),  # broke off: once more, then red
    ],
)
def test_pair_ends_with_its_exit_code(
    tmp_path: Path, code: int, compared: bool, ends: int, runs: int
) -> None:
    returned, output = job(tmp_path, "pair", "BASE", "HEAD", code=code, compared=compared)
    assert returned == ends, output
    asked = calls(tmp_path, "-m ci ab")
    assert len(asked) == runs
    assert "--base BASE --head HEAD --device cuda --quick --minutes 12 -- -k" in asked[0]
    assert ("::warning::inconclusive" in output) == (ends != code)
    said = (tmp_path / "summary").read_text()
    assert said == ("# the report\n" if compared else "## Not judged\n\n    error: the reason\n")


def test_what_is_said_to_a_job_is_said_to_ab(tmp_path: Path) -> None:
    job(tmp_path, "pair", "BASE", "HEAD", "--device", "cpu")
    (asked,) = calls(tmp_path, "-m ci ab")
    assert asked.endswith("--base BASE --head HEAD --device cpu")


def test_newest_versions_are_compared_with_the_locked_ones(tmp_path: Path) -> None:
    returned, output = job(tmp_path, "newest")
    assert returned == 0, output
    (asked,) = calls(tmp_path, "-m ci ab")
    assert "--base-python runs/locked/bin/python --head-python runs/newest/bin/python" in asked
    assert "--device cuda" in asked


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 0), (2, 2), (4, 2)])
def test_shard_with_failed_cases_is_judged_with_the_others(
    tmp_path: Path, code: int, ends: int
) -> None:
    assert job(tmp_path, "shard", "1/2", code=code)[0] == ends
    (asked,) = calls(tmp_path, "-m pytest")
    assert "--device cuda --shard 1/2 --benchmark-json runs/shard-1.json" in asked


ROWS = "inconclusive: ddim50-fp16: latency\n5 cases: 4 held, 0 failed, 1 inconclusive or invalid"
INCONCLUSIVE = f"{ROWS}\ninconclusive: 1 of 5 cases: ddim50-fp16; run it again"
UNKNOWN = "error: no baseline is accepted for NVIDIA H200, so no speed was judged"
BROKEN = "error: baselines/nvidia-h200.json: not valid JSON"


@pytest.mark.parametrize(
    ("code", "gate", "ends"),
    [
        (0, ("5 cases: 5 held", ""), 0),
        (1, (ROWS, ""), 1),
        (2, (INCONCLUSIVE, ""), 0),
        (2, (INCONCLUSIVE, "a warning of a library"), 0),
        (2, (ROWS, UNKNOWN), 2),
        (2, ("", BROKEN), 2),
        (2, ("", ""), 2),
        (137, (INCONCLUSIVE, ""), 137),
    ],
)
def test_shards_are_judged_together(
    tmp_path: Path, code: int, gate: tuple[str, str], ends: int
) -> None:
    returned, output = job(tmp_path, "judge", code=code, gate=gate)
    assert returned == ends
    asked = calls(tmp_path, "-m ci")
    assert [line.split()[2] for line in asked] == ["merge", "gate", "report"]
    assert all(said in output for said in gate)
    assert ("::warning::inconclusive" in output) == (ends != code)
    not_judged = "## Not judged\n\n" + (f"    {gate[1]}\n" if gate[1] else "")
    said = (tmp_path / "summary").read_text()
    assert said == (not_judged if code == ends == 2 else "") + "# the report\n"


def test_job_reads_what_the_gate_says(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real gate's words: inconclusive is a warning, no baseline is an error."""
    runs = [process(f"gated-{number}") for number in range(3)]
    measured(runs[0], "ddim50-fp16")["rounds_s"] = [1.0, 5.0, 3.0, 2.0, 9.0]
    (path,) = write([settle(runs[0])], tmp_path, "run")

    def ends() -> int:
        capsys.readouterr()
        code = command.main(["gate", str(path)])
        printed = capsys.readouterr()
        assert code == 2
        return job(tmp_path, "judge", code=code, gate=(printed.out.rstrip(), printed.err))[0]

    assert ends() == 2
    assert accept([process(f"known-{number}") for number in range(3)], no_baselines) == 0
    assert ends() == 0
    (no_baselines / "nvidia-h200.json").write_text("{")
    assert ends() == 2


def test_a_night_is_added_to_the_history_and_a_control_by_its_label(tmp_path: Path) -> None:
    for name in ("night-gpu/run.json", "control-gpu/control.json"):
        path = tmp_path / "runs" / "artifacts" / name
        path.parent.mkdir(parents=True)
        path.touch()
    returned, output = job(tmp_path, "history")
    assert returned == 0, output
    night, control, report = calls(tmp_path, "-m ci history")
    assert night.endswith("add runs/artifacts/night-gpu/run.json --store runs/history")
    assert control.endswith("control-gpu/control.json --store runs/history --label control")
    assert "report --store runs/history --html runs/history.html --issues runs/issues" in report


def test_a_control_measures_the_newest_commit_of_the_history(tmp_path: Path) -> None:
    assert job(tmp_path, "control")[0] == 0
    for machine, night, row in (
        ("b", "20260101T021700-a", "0a"),
        ("a", "20260102T021700-a", "0b"),
    ):
        path = tmp_path / "runs" / "history" / machine / f"{night}.jsonl.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(f'{{"commit":"{row}","dirty":false}}\n'.encode()))
    git = program(tmp_path / "bin" / "git", 'echo "git $*" >>"$CALLS"; exit 3')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
        assert job(tmp_path, "control")[0] == 3
    assert calls(tmp_path, "git") == ["git worktree add --force --detach runs/control 0b"]


@pytest.mark.parametrize(
    ("code", "said", "ends"),
    [
        (0, "No known vulnerabilities found", 0),
        (1, "Found 1 known vulnerability in 1 package", 1),
        (1, "ERROR: Failed to reach the service", 0),
    ],
)
def test_audit_fails_for_a_vulnerability_alone(
    tmp_path: Path, code: int, said: str, ends: int
) -> None:
    returned, output = job(tmp_path, "audit", code=code, gate=(said, ""))
    assert returned == ends
    assert said in output
    (asked,) = calls(tmp_path, "-m pip_audit")
    assert asked.endswith("--requirement ci/requirements.txt")


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("pair", "BASE"), ("environment", "x")])
def test_unknown_job_names_the_known_ones(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    returned, output = job(tmp_path, *arguments)
    assert returned == 2
    assert "bash ci/job.sh pair BASE HEAD" in output
    assert not (tmp_path / "calls").exists()


# What a change has to pass

TOOL = """
name=$(basename "$0")
echo "$name $*" >>"$CALLS"
case "$name $*" in
    *'-m venv '*) mkdir -p "$3/bin" && touch "$3/bin/activate" ;;
    'python -m ci faults '*) exit "$CODE" ;;
esac
"""


def whole_run(folder: Path, *, code: int = 0, lint: str = TOOL) -> subprocess.CompletedProcess[str]:
    """`.ci/run` over tools that only note their calls; the faults end with this code."""
    script = program(folder / ".ci" / "run", (ROOT / ".ci" / "run").read_text())
    program(folder / "ci" / "lint.sh", lint)
    program(folder / "ci" / "quickstart.sh", TOOL)
    program(folder / "ci" / "faults.sh", (ROOT / "ci" / "faults.sh").read_text())
    for name in ("python3", "python", "pip", "pytest", "ruff", "mypy", "chromium"):
        program(folder / "bin" / name, TOOL)
    return subprocess.run(
        ["bash", script],
        env={
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "CODE": str(code),
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (2, 1), (3, 0)])
def test_busy_machine_is_neutral(tmp_path: Path, code: int, ends: int) -> None:
    done = whole_run(tmp_path, code=code)
    assert done.returncode == ends, done.stderr
    asked = calls(tmp_path, "")
    assert "python -m ci faults --device cpu" in asked
    assert ("all passed" in done.stdout) == (ends == 0)


def test_stage_that_fails_beside_others_fails_the_run(tmp_path: Path) -> None:
    done = whole_run(tmp_path, lint="echo line 1 is too long\nexit 1\n")
    assert done.returncode == 1
    asked = calls(tmp_path, "")
    assert any("tests/browser" in call for call in asked)
    assert not any(call.startswith("quickstart.sh") for call in asked)
    stages = [line for line in done.stdout.splitlines() if line.startswith(("---", "line 1"))]
    # Its output is not mixed with theirs.
    assert stages[-2] == "line 1 is too long"
    assert stages[-1].startswith("--- linters and types: ")


APT_GET = """
sleep 0.3
echo "apt-get $* has ended" >>"$CALLS"
"""
SYSTEM = ("bash", "basename", "cat", "dirname", "mkdir", "mktemp", "rm", "sleep", "touch")


@pytest.mark.parametrize(("ends", "returned"), [("exit 3", 3), ("kill $PPID", -signal.SIGTERM)])
def test_run_that_ends_early_waits_for_its_background(
    tmp_path: Path, ends: str, returned: int
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in SYSTEM:
        # Alone: a system's own chromium would not be installed.
        (tools / name).symlink_to(str(shutil.which(name)))
    program(tools / "apt-get", APT_GET)
    program(tools / "id", "echo 0")
    program(tools / "python3", TOOL)
    program(tools / "pip", ends)
    script = program(tmp_path / ".ci" / "run", (ROOT / ".ci" / "run").read_text())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [tools / "bash", script],
        env={"PATH": str(tools), "CALLS": str(tmp_path / "calls"), "TMPDIR": str(scratch)},
    )
    assert done.returncode == returned
    assert [call.split()[1] for call in calls(tmp_path, "apt-get")] == ["update", "install"]
    assert not list(scratch.iterdir())


NOTED = """
case "$*" in
    '-m ci faults '*) echo "$*" >>"$CALLS" ;;
    -) cat >"$CALLS.script" && cat "$CALLS.names" ;;
    *) exit 9 ;;
esac
"""


def test_each_fault_is_injected_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = ROOT / "ci" / "faults.sh"
    (naming,) = re.findall(r"(?ms)<<'PYTHON'\n(.*?)^PYTHON$", script.read_text())
    # In this process, which has imported what takes a new one seconds.
    exec(compile(naming, script, "exec"), {})
    (tmp_path / "calls.names").write_text(capsys.readouterr().out)
    program(tmp_path / "python", NOTED)
    subprocess.run(
        ["bash", script],
        env=os.environ
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")},
        check=True,
    )
    assert (tmp_path / "calls.script").read_text() == naming
    asked = calls(tmp_path, "-m ci faults --device cpu")
    (transformer,) = [call.split()[5:] for call in asked if "--model=embedded-flux" in call]
    names = [call.split()[5:] for call in asked if "--model" not in call]
    load("diffusers_perf.faults")
    here = [name for name, fault in faults.declared().items() if fault.runs_on("cpu")]
    assert sorted(itertools.chain(*names)) == sorted(here)
    assert len(names) == 3
    assert {*transformer[1:]} < {*here}


# The comment

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the comment is made with jq")

GH = """
echo "$*" >>"$CALLS"
case "$*" in
    *'/pulls -f '*) cat pulls.json ;;
    'run download '*) cp -r artifacts "${!#}" ;;
    *'--paginate '*) echo "$COMMENT" ;;
    *' --input '*) cp "${@: -2:1}" "$CALLS.body" ;;
    *'--method DELETE'*) exit 1 ;;
esac
"""
ITS_PYTHON = """
case "$*" in
    '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip '*) ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""
SHA = "5c1f9b0e5c1f9b0e5c1f9b0e5c1f9b0e5c1f9b0e"
AT_HEAD = {"number": 7, "head": {"sha": SHA}}


def comment(
    tmp_path: Path,
    *pulls: object,
    there: str = "",
    title: str = "GPU, pull request #7",
    comparisons: int = 0,
) -> str:
    """What was said to GitHub's command line tool, in a folder with this many machines' runs."""
    work = tmp_path / "work"
    program(work / "bin" / "gh", GH)
    program(work / "python", ITS_PYTHON)
    for folder in ("ci", "perf_tests", "baselines"):
        (work / folder).symlink_to(ROOT / folder)
    program(work / "script" / "comment.sh", (ROOT / "ci" / "comment.sh").read_text())
    (work / "pulls.json").write_text(json.dumps(pulls))
    (work / "artifacts").mkdir()
    for number in range(comparisons):
        compared = work / "artifacts" / f"report-gpu{number}" / "compared"
        compared.mkdir(parents=True)
        for side in ("base", "head"):
            contents = [process(f"{side}-{number}-{pair}") for pair in range(5)]
            for pair, path in enumerate(write(contents, work, side)):
                path.rename(compared / f"{side}-{pair + 1}.json")
    done = subprocess.run(
        ["bash", work / "script" / "comment.sh"],
        env={
            "PATH": f"{work / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(work / "calls"),
            "PYTHON": str(work / "python"),
            "REAL_PYTHON": sys.executable,
            "COMMENT": there,
            "GITHUB_REPOSITORY": "owner/name",
            "RUN_ID": "11",
            "RUN_TITLE": title,
            "HEAD_OWNER": "contributor",
            "HEAD_BRANCH": 'a"; touch hacked; "$(touch hacked)',
            "HEAD_SHA": SHA,
            "LABEL": "gpu",
        },
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (work / "hacked").exists()
    return (work / "calls").read_text()


def body(tmp_path: Path) -> str:
    text: str = json.loads((tmp_path / "work" / "calls.body").read_text())["body"]
    return text


@needs_jq
def test_first_result_is_a_new_comment(tmp_path: Path) -> None:
    said = comment(tmp_path, AT_HEAD, comparisons=2)
    assert "--method POST repos/owner/name/issues/7/comments" in said
    assert "--method DELETE repos/owner/name/issues/7/labels/gpu" in said
    written = body(tmp_path)
    assert written.startswith("<!-- diffusers-perf -->\n\n## ")
    assert written.count("**NVIDIA H200**") == 2
    assert "(https://github.com/owner/name/actions/runs/11)" in written


@needs_jq
def test_next_result_replaces_the_comment(tmp_path: Path) -> None:
    said = comment(tmp_path, AT_HEAD, there="99\n98", comparisons=1)
    assert "--method PATCH repos/owner/name/issues/comments/99" in said


@needs_jq
def test_comment_goes_to_the_pull_request_of_the_commit(tmp_path: Path) -> None:
    other = {"number": 6, "head": {"sha": SHA.replace("5", "6")}}
    said = comment(tmp_path, other, AT_HEAD, title="GPU, pull request #6")
    assert "--method POST repos/owner/name/issues/7/comments" in said
    assert "issues/6" not in said


@needs_jq
@pytest.mark.parametrize(
    ("title", "number"), [("GPU, pull request #7", 7), ("GPU, pull request #77", None), ("#", None)]
)
def test_title_selects_among_two_of_one_commit(
    tmp_path: Path, title: str, number: int | None
) -> None:
    said = comment(tmp_path, AT_HEAD | {"number": 17}, AT_HEAD, title=title)
    posted = re.findall(r"--method POST repos/owner/name/issues/(\d+)/comments", said)
    assert posted == ([] if number is None else [str(number)])


@needs_jq
def test_outdated_pull_request_only_loses_its_label(tmp_path: Path) -> None:
    said = comment(tmp_path, {"number": 7, "head": {"sha": "0" * 40}})
    assert "--method POST" not in said
    assert "--method DELETE repos/owner/name/issues/7/labels/gpu" in said


@needs_jq
def test_closed_pull_request_gets_no_comment(tmp_path: Path) -> None:
    said = comment(tmp_path)
    assert "--method POST" not in said
    assert "DELETE" not in said


# The history

RANGE = "0aaaaaaaaaaa..0bbbbbbbbbbb"
HISTORY_GH = """
echo "gh $*" >>"$CALLS"
case "$*" in
    *'--method '*) cat >>"$CALLS" ;;
    *'issues?state=all'*) echo "$ISSUES" ;;
esac
"""
HISTORY_GIT = """
echo "git $*" >>"$CALLS"
case "$*" in
    *'diff --cached'*) exit "$CHANGED" ;;
    *'ls-remote'*) echo 'a branch' ;;
esac
"""
HISTORY_JOB = f"""
echo "job $*" >>"$CALLS"
mkdir -p runs/issues && echo 'slower' >runs/issues/{RANGE}.md
"""


def published(folder: Path, *, issues: str, changed: int = 1) -> str:
    """What `ci/history.sh publish` called, where GitHub has these issues."""
    program(folder / "ci" / "history.sh", (ROOT / "ci" / "history.sh").read_text())
    program(folder / "ci" / "job.sh", HISTORY_JOB)
    program(folder / "bin" / "gh", HISTORY_GH)
    program(folder / "bin" / "git", HISTORY_GIT)
    done = subprocess.run(
        ["bash", folder / "ci" / "history.sh", "publish"],
        env={
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "ISSUES": issues,
            "CHANGED": str(changed),
            "GITHUB_REPOSITORY": "owner/name",
            "GH_TOKEN": "token",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return (folder / "calls").read_text()


@needs_jq
def test_commit_range_that_is_new_gets_an_issue(tmp_path: Path) -> None:
    said = published(tmp_path, issues='[{"number": 3, "state": "open", "title": "another"}]')
    assert "git -C runs/history push --quiet origin perf-history" in said
    assert "--method POST repos/owner/name/issues --input -" in said
    assert f'"title": "Performance: {RANGE}"' in said
    assert "token" not in said


@needs_jq
@pytest.mark.parametrize(("state", "updates"), [("open", True), ("closed", False)])
def test_known_issue_is_updated_unless_a_person_closed_it(
    tmp_path: Path, state: str, updates: bool
) -> None:
    known = [{"number": 7, "state": state, "title": f"Performance: {RANGE}"}]
    said = published(tmp_path, issues=json.dumps(known))
    assert ("--method PATCH repos/owner/name/issues/7" in said) == updates
    assert "--method POST" not in said


@needs_jq
def test_night_without_a_new_run_pushes_nothing(tmp_path: Path) -> None:
    assert " push " not in published(tmp_path, issues="[]", changed=0)


def test_workflows_of_the_documents_are_as_careful_as_ours() -> None:
    own = "".join(path.read_text() for path in WORKFLOWS)
    github, gitlab = (text for name, text in blocks.of("yaml") if name == "ci/README.md")
    workflow = yaml.safe_load(github)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["compare"]["if"] == "github.event.label.name == 'gpu'"
    assert "persist-credentials: false" in github
    for action in re.findall(r"uses: (.*)", github):
        assert f"uses: {action}\n" in own
    assert yaml.safe_load(gitlab)["gpu"]["script"].startswith("bash ci/job.sh pair ")
