"""A history of simulated nights: kept, judged, and what each change is put down to."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import FULL_MODELS, SMALL_MODELS
from diffusers_perf.cli import __main__ as command
from diffusers_perf.history import store
from diffusers_perf.history.causes import CauseKind
from diffusers_perf.history.changes import Shape
from diffusers_perf.history.store import CONTROL, Row
from diffusers_perf.history.trends import Event, Trend, alerts, ranges, red, trends
from diffusers_perf.history.words import BARS, history_lines, issue
from diffusers_perf.models import NAMED
from perf_tests.tests.unit.recorded import (
    FOLDER,
    Content,
    case,
    keep,
    machine,
    measured,
    parsed,
    process,
    session,
    write,
)

CASE = "ddim50-fp16"
START = dt.datetime(2026, 1, 1, 2, 17, tzinfo=dt.UTC)
Changed = Callable[[int, Content], None]


def commit(number: int) -> str:
    return f"{number:03d}" + "a" * 37


def night(number: int, *, code: int | None = None) -> Content:
    """One run of two cases; each night has a commit of its own unless `code` says which."""
    content = process(f"night-{number}")
    keep(content, "ddim50-reference", CASE)
    content["datetime"] = (START + dt.timedelta(days=number)).isoformat()
    content["commit_info"] = {"id": commit(number if code is None else code), "dirty": False}
    return content


def nights(numbers: Iterable[int], *changed: Changed) -> list[Row]:
    contents = []
    for number in numbers:
        content = night(number)
        for change in changed:
            change(number, content)
        contents.append(content)
    return [row for run in parsed(contents, "night") for row in store.rows_of(run)]


def slower(*, since: int, by: float = 1.05) -> Changed:
    def change(number: int, content: Content) -> None:
        if number >= since:
            measured(content, CASE)["gpu_busy_s"] *= by

    return change


def on_another(field: str, value: str, *, since: int) -> Changed:
    def change(number: int, content: Content) -> None:
        if number >= since:
            machine(content)[field] = value

    return change


def busy(found: Sequence[Trend]) -> Trend:
    (trend,) = [t for t in found if (t.case, t.metric) == (CASE, "GPU busy")]
    return trend


def only(rows: Sequence[Row]) -> Event:
    """The only event of the trends."""
    (event,) = [event for trend in trends(rows) for event in trend.events]
    return event


def test_step_names_its_commits_and_its_bisection() -> None:
    rows = nights(range(50), slower(since=40))
    event = only(rows)
    assert event.shape is Shape.STEP
    assert event.commits == (commit(39), commit(40))
    assert event.cause.kinds == (CauseKind.CODE,)
    assert event.ratio == pytest.approx(1.05, abs=0.005)
    (one,) = ranges(trends(rows))
    assert one.command == (
        f"diffusers-perf bisect --good {commit(39)[:12]} --bad {commit(40)[:12]} "
        f"--case {CASE} --metric 'GPU busy'"
    )


def dirty(*numbers: int) -> Changed:
    def change(number: int, content: Content) -> None:
        content["commit_info"]["dirty"] = number in numbers

    return change


@pytest.mark.parametrize("at", [39, 40])
@pytest.mark.parametrize("moved", [(), (on_another("torch", "2.99.0", since=40),)])
def test_uncommitted_changes_are_named_and_not_bisected(at: int, moved: tuple[Changed]) -> None:
    found = trends(nights(range(50), slower(since=40), dirty(at), *moved))
    (one,) = ranges(found)
    run = f"the run of {START + dt.timedelta(days=at):%Y-%m-%d} 02:17 UTC"
    assert one.cause.text.split("; ")[-2].endswith(
        f"{run} measured uncommitted changes on top of {commit(at)[:12]}"
    )
    assert one.cause.kinds[-1] is CauseKind.CODE
    assert one.command == ""
    assert "bisect" not in issue(alerts(found)[0])


def test_uncommitted_changes_within_a_level_are_bisected_around() -> None:
    (one,) = ranges(trends(nights(range(50), slower(since=40), dirty(20, 45))))
    assert "uncommitted" not in one.cause.text
    assert one.command.startswith("diffusers-perf bisect --good ")


def test_uncommitted_changes_explain_runs_of_one_commit() -> None:
    def same(number: int, content: Content) -> None:
        content["commit_info"]["id"] = commit(0)

    event = only(nights(range(50), slower(since=40), same, dirty(*range(40, 50))))
    assert event.cause.kinds == (CauseKind.CODE,)


@pytest.mark.parametrize("at", [19, 20, 21])
def test_outlier_names_its_own_uncommitted_changes(at: int) -> None:
    def spike(number: int, content: Content) -> None:
        if number == 20:
            measured(content, CASE)["gpu_busy_s"] *= 1.2

    cause = only(nights(range(40), spike, dirty(at))).cause
    assert (CauseKind.CODE in cause.kinds) == ("uncommitted" in cause.text) == (at == 20)
    assert cause.text.endswith("the level returned")


def test_range_is_bisected_for_an_event_without_uncommitted_changes() -> None:
    """Two cases changed between the same commits, one first seen in a run that was not clean."""
    clean = nights(range(50), slower(since=40))
    first = [
        replace(row, case="another", dirty=row.commit == commit(40))
        for row in clean
        if row.case == CASE
    ]
    (one,) = alerts(trends([*first, *clean]))
    assert f"--case {CASE} " in one.command


@pytest.mark.parametrize(
    ("device", "model", "end"),
    [
        ("cpu", "embedded", " --device cpu"),
        ("cpu", "embedded-flux", " --device cpu"),
        ("cpu", "small", " --device cpu -- --model=small"),
        ("cpu", "sd15", " --device cpu -- --model=sd15"),
        ("cuda", "embedded", " -- --model=embedded"),
        ("cuda", "flux1-dev", ""),
        ("cuda", "owner/name", " -- --model=owner/name"),
        ("cuda", "serving:build", " -- --model=serving:build"),
        # Where the folder lies is not known.
        ("cuda", "finetuned", ""),
    ],
)
def test_change_is_bisected_on_its_device_and_model(device: str, model: str, end: str) -> None:
    changed = nights(range(50), slower(since=40))
    (one,) = ranges(trends([replace(row, device=device, model=model) for row in changed]))
    assert one.command.endswith(f"--metric 'GPU busy'{end}")


def test_models_of_the_library_are_known_without_torch() -> None:
    assert {*SMALL_MODELS, *FULL_MODELS} == {*NAMED}


def test_time_to_first_image_is_not_bisected() -> None:
    def later(number: int, content: Content) -> None:
        first_s = (40.0 if number >= 40 else 20.0) + 0.01 * (number % 3)
        measured(content, CASE)["time_to_first_image_s"] = first_s

    (one,) = ranges(trends(nights(range(50), later)), shapes=[Shape.STEP])
    assert [event.after.metric for event in one.events] == ["time to first image"]
    assert one.command == ""


def test_missing_nights_widen_the_commit_range() -> None:
    there = [n for n in range(60) if n % 3 and n not in range(36, 41)]
    event = only(nights(there, slower(since=38)))
    assert event.commits == (commit(35), commit(41))


def test_drift_is_one_event() -> None:
    def creep(number: int, content: Content) -> None:
        measured(content, CASE)["gpu_busy_s"] *= 1.005 ** (max(0, number - 20) / 7)

    assert only(nights(range(75), creep)).shape is Shape.DRIFT


def test_outlier_is_noise() -> None:
    def spike(number: int, content: Content) -> None:
        if number == 20:
            measured(content, CASE)["gpu_busy_s"] *= 1.2

    event = only(nights(range(40), spike))
    assert (event.shape, event.cause.kinds) == (Shape.OUTLIER, (CauseKind.NOISE,))


def test_invalid_time_judges_nothing() -> None:
    def affected(number: int, content: Content) -> None:
        if number == 20:
            measured(content, CASE)["gpu_busy_s"] *= 1.2
            measured(content, CASE)["interference"]["gpu"] = ["another process"]

    rows = nights(range(40), affected)
    assert [event for trend in trends(rows) for event in trend.events] == []
    assert len(busy(trends(rows)).rows) == 40


@pytest.mark.parametrize("other", [{"quick": True}, {"pins": "another"}])
def test_history_beside_a_run_is_of_what_the_run_measured(other: dict[str, object]) -> None:
    (run,) = parsed([night(9)], "night")
    rows = nights(range(6))
    others = [replace(row, value=100 * row.value, **other) for row in rows]
    assert history_lines(run, rows)
    assert history_lines(run, [*rows, *others]) == history_lines(run, rows)


def test_counter_is_exact_at_once() -> None:
    def syncs(number: int, content: Content) -> None:
        if number >= 3:
            measured(content, CASE)["counters"]["host_syncs"] = [9, 1]

    event = only(nights(range(4), syncs))
    assert (event.shape, event.after.metric) == (Shape.STEP, "host_syncs")
    assert event.commits == (commit(2), commit(3))


@pytest.mark.parametrize(
    ("field", "kind"),
    [("torch", CauseKind.VERSIONS), ("driver", CauseKind.MACHINE), ("cuda", CauseKind.VERSIONS)],
)
def test_new_cohort_is_a_line_of_its_own(field: str, kind: CauseKind) -> None:
    rows = nights(range(50), slower(since=40), on_another(field, "999", since=40))
    trend = busy(trends(rows))
    assert [len(line) for line in trend.lines] == [40, 10]
    event = only(rows)
    assert event.cause.kinds == (kind, CauseKind.CODE)
    assert f"{field} " in event.cause.evidence


def test_new_cohort_without_a_difference_is_no_event() -> None:
    rows = nights(range(50), on_another("torch", "999", since=40))
    assert [event for trend in trends(rows) for event in trend.events] == []


def test_new_package_is_bisected_over_its_versions() -> None:
    rows = nights(range(50), slower(since=40), on_another("torch", "2.99.0", since=40))
    (one,) = ranges(trends(rows))
    assert "bisect --package torch --good 2.11.0" in one.command
    assert "--bad 2.99.0" in one.command


def test_only_packages_of_an_index_are_bisected_and_all_that_differ() -> None:
    moved = [on_another(name, "9.9", since=40) for name in ("python", "torch", "diffusers")]
    (one,) = ranges(trends(nights(range(50), slower(since=40), *moved)))
    assert one.command.count("--package") == 2
    assert "--package torch " in one.command
    assert "--package diffusers " in one.command


def test_another_harness_is_suspected_first() -> None:
    def changed(number: int, content: Content) -> None:
        if number >= 40:
            session(content)["harness_version"] = "another"

    event = only(nights(range(50), slower(since=40), changed))
    assert event.cause.kinds == (CauseKind.HARNESS, CauseKind.CODE)


def test_another_card_of_one_kind_is_the_machine() -> None:
    def card(number: int, content: Content) -> None:
        machine(content)["gpu_uuid"] = "GPU-b" if number >= 40 else "GPU-a"

    event = only(nights(range(50), slower(since=40), card))
    assert event.cause.kinds == (CauseKind.MACHINE, CauseKind.CODE)
    assert "GPU-a → GPU-b" in event.cause.evidence


def test_slower_clock_is_the_machine() -> None:
    def clocked(number: int, content: Content) -> None:
        clock = 1800 if number >= 40 else 1980
        measured(content, CASE)["interference"]["sm_clocks_mhz"] = [clock] * 5

    event = only(nights(range(50), slower(since=40), clocked))
    assert event.cause.kinds == (CauseKind.MACHINE, CauseKind.CODE)
    assert "SM clock 1980 → 1800 MHz" in event.cause.evidence


def test_one_commit_that_changed_is_noise() -> None:
    def same(number: int, content: Content) -> None:
        content["commit_info"]["id"] = commit(0)

    event = only(nights(range(50), slower(since=40), same))
    assert event.cause.kinds == (CauseKind.NOISE,)


@pytest.mark.parametrize(("by", "kinds"), [(1.0, (CauseKind.CODE,)), (1.05, (CauseKind.MACHINE,))])
def test_red_night_is_decided_by_a_control(by: float, kinds: tuple[CauseKind, ...]) -> None:
    rows = nights(range(41), slower(since=40))
    event = only(rows)
    assert event.shape is Shape.UNCONFIRMED
    assert event.cause.kinds == (CauseKind.CODE, CauseKind.NOISE)
    again = night(41, code=39)
    measured(again, CASE)["gpu_busy_s"] *= by
    (run,) = parsed([again], "control")
    assert only([*rows, *store.rows_of(run, label=CONTROL)]).cause.kinds == kinds


@pytest.mark.parametrize("again_dirty", [False, True])
def test_control_decides_nothing_about_uncommitted_changes(*, again_dirty: bool) -> None:
    rows = nights(range(41), slower(since=40), dirty(*() if again_dirty else (39,)))
    again = night(41, code=39)
    again["commit_info"]["dirty"] = again_dirty
    (run,) = parsed([again], "control")
    cause = only([*rows, *store.rows_of(run, label=CONTROL)]).cause
    assert cause.kinds == (CauseKind.CODE, CauseKind.NOISE)
    assert ("a control run will decide" in cause.text) == again_dirty


def test_control_under_interference_decides_nothing() -> None:
    def failed(number: int, content: Content) -> None:
        if number == 40:
            case(content, CASE)["status"] = Status.SLOWER

    rows = nights(range(41), slower(since=40), failed)
    again = night(41, code=39)
    measured(again, CASE)["gpu_busy_s"] *= 1.05
    for reasons, kinds in (
        (["another process"], (CauseKind.CODE, CauseKind.NOISE)),
        ([], (CauseKind.MACHINE,)),
    ):
        measured(again, CASE)["interference"]["gpu"] = reasons
        (run,) = parsed([again], "control")
        all_rows = [*rows, *store.rows_of(run, label=CONTROL)]
        (event,) = red(trends(all_rows))
        assert only(all_rows).cause.kinds == event.cause.kinds == kinds


def test_other_labels_are_shown_and_judge_nothing() -> None:
    rows = nights(range(40))
    pulls = parsed([night(n) for n in range(40, 50)], "pull")
    for run in pulls:
        rows += store.rows_of(run, label="pull request")
    trend = busy(trends(rows))
    assert trend.events == ()
    assert len(trend.others) == 10
    assert len(trend.rows) == 40


def test_red_verdict_is_put_down_to_what_differs_from_the_last_pass(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def judged(number: int, content: Content) -> None:
        if number == 5:
            case(content, CASE)["status"] = "slower"
            machine(content)["driver"] = "999"

    rows = nights(range(6), slower(since=5, by=1.1), judged)
    (event,) = red(trends(rows))
    assert (event.after.case, event.after.metric) == (CASE, "GPU busy")
    assert event.cause.kinds == (CauseKind.MACHINE, CauseKind.CODE, CauseKind.NOISE)
    content = night(5)
    judged(5, content)
    for run in parsed([*(night(n) for n in range(5)), content], "night"):
        store.add(run, tmp_path)
    assert command.main(["history", "report", "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"\nslower: {CASE} on 2026-01-06: " in f"\n{said}"
    assert "  cause     machine or code or noise: driver " in said
    assert red(trends(nights(range(6)))) == []
    # A case that is no longer measured does not stay red.
    later = [row for row in nights(range(6, 8)) if row.case != CASE]
    assert red(trends([*rows, *later])) == []


# The store


def test_adding_twice_changes_nothing(tmp_path: Path) -> None:
    (run,) = parsed([night(0)], "night")
    with ThreadPoolExecutor(8) as writers:
        added = list(writers.map(lambda _: store.add(run, tmp_path), range(16)))
    (path,) = {path for path, _ in added}
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert store.add(run, tmp_path, label="again") == (path, "main")
    assert {row.label for row in store.load(tmp_path)} == {"main"}


def test_file_is_plain_lines_of_json(tmp_path: Path) -> None:
    (run,) = parsed([night(0)], "night")
    path, _ = store.add(run, tmp_path)
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    (one,) = [row for row in rows if (row["case"], row["metric"]) == (CASE, "GPU busy")]
    assert one["value"] == run.by_id[CASE].measurement.gpu_busy_s
    assert one["torch"] == run.machine.torch
    assert store.load(tmp_path) == store.rows_of(run)


def test_command_adds_and_reports(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = [night(n) for n in range(50)]
    for number, content in enumerate(contents):
        slower(since=40)(number, content)
    paths = write(contents, tmp_path, "night")
    assert command.main(["history", "add", *map(str, paths)]) == 0
    assert len(list((no_baselines / "history" / "nvidia-h200").iterdir())) == 50
    capsys.readouterr()
    assert command.main(["history", "report"]) == 0
    said = capsys.readouterr().out
    assert f"2026-02-10 code: commits {commit(39)[:12]}..{commit(40)[:12]}\n" in said
    assert f"  {CASE} (sd15) GPU busy: step 0.6" in said
    assert "\n50 runs, " in said


@pytest.mark.parametrize("damaged", ["empty", "cut off", "half of its rows"])
def test_adding_again_repairs_a_damaged_file(damaged: str, tmp_path: Path) -> None:
    (run,) = parsed([night(1)], "night")
    path, _ = store.add(run, tmp_path, label="first")
    rows, whole = store.load(tmp_path), path.read_bytes()
    half = gzip.compress(b"".join(gzip.decompress(whole).splitlines(keepends=True)[:9]))
    path.write_bytes({"empty": b"", "cut off": whole[:-9], "half of its rows": half}[damaged])
    with pytest.raises(Refusal, match=r"add its run again|cannot be read"):
        store.load(tmp_path)
    assert store.add(run, tmp_path) == (path, None)
    assert [replace(row, label="first") for row in store.load(tmp_path)] == rows
    assert store.add(run, tmp_path, label="other") == (path, "main")


def test_run_keeps_its_first_label_and_the_command_says_so(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path) for path in write([night(0)], tmp_path, "night")]
    said = []
    for label in ("main", "main", "laptop"):
        assert command.main(["history", "add", *paths, "--label", label]) == 0
        said.append(capsys.readouterr().out.split(":")[0])
    assert said[1:] == ["already there", "already there with the label main, which it keeps"]
    with pytest.raises(SystemExit) as refused:
        command.main(["history", "add", *paths, "--label", " "])
    assert refused.value.code == 2


@pytest.fixture
def someone() -> Iterator[Path]:
    """A folder that all may read, while the test runs as someone whom permissions concern."""
    with tempfile.TemporaryDirectory() as name:
        folder, is_root = Path(name), os.geteuid() == 0
        folder.chmod(0o755)
        if is_root:
            os.seteuid(65534)
        yield folder
        if is_root:
            os.seteuid(0)
        for path in (folder / "store", *(folder / "store").rglob("*")):
            path.chmod(0o755)


@pytest.mark.parametrize("unreadable", ["", "machine", "machine/run.jsonl.gz"])
def test_what_may_not_be_read_is_one_sentence(someone: Path, unreadable: str) -> None:
    user = os.geteuid()
    if user == 65534:
        os.seteuid(0)
    (run,) = parsed([night(0)], "night")
    store.write(store.rows_of(run), someone / "store" / "machine" / "run.jsonl.gz")
    (someone / "store" / unreadable).chmod(0)
    os.seteuid(user)
    with pytest.raises(Refusal, match=r"cannot be read \(Permission denied\)"):
        store.load(someone / "store")


def test_folder_beside_the_store_names_the_store(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path) for path in write([night(0)], tmp_path, "night")]
    folder = tmp_path / "store"
    assert command.main(["history", "add", *paths, "--store", str(folder)]) == 0
    (machine_folder,) = folder.iterdir()
    for other in (tmp_path, machine_folder):
        assert command.main(["history", "report", "--store", str(other)]) == 2
        assert f"the store is {folder}\n" in capsys.readouterr().err
    assert command.main(["history", "add", *paths, "--store", str(machine_folder)]) == 2
    (folder / "empty").mkdir()
    assert command.main(["history", "report", "--store", str(folder / "empty")]) == 2
    assert "holds no runs; add runs with" in capsys.readouterr().err


def test_date_out_of_range_is_one_sentence(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = night(1)
    content["datetime"] = "0001-01-01T00:00:00+14:00"
    paths = write([content], tmp_path, "early")
    assert command.main(["history", "add", *map(str, paths)]) == 2
    assert "datetime is out of range" in capsys.readouterr().err


BROKEN = (b"", b"{}", gzip.compress(b"{}\n", mtime=0), gzip.compress(b"x", mtime=0)[:-9])


@pytest.mark.parametrize("content", BROKEN, ids=["empty", "not_gzip", "no_rows", "cut_off"])
def test_broken_file_is_one_sentence(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / f"broken{store.SUFFIX}").write_bytes(content)
    assert command.main(["history", "report", "--store", str(tmp_path)]) in (0, 2)
    error = capsys.readouterr().err
    assert not error or (error.startswith("error: ") and error.count("\n") == 1)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("time", "2026-01-01T00:00:00", "time: expected `datetime` with a timezone component"),
        ("unit", "parsec", "unit: invalid enum value 'parsec'"),
        ("value", None, "value: expected `float`, got `null`"),
    ],
)
def test_row_that_is_not_ours_is_one_sentence(
    tmp_path: Path, field: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = parsed([night(0)], "night")
    path, _ = store.add(run, tmp_path)
    row = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0]) | {field: value}
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    assert command.main(["history", "report", "--store", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: [0].{sentence}\n"


def test_recorded_nights_show_the_one_commit_that_copied_a_tensor(tmp_path: Path) -> None:
    """32 processes on a busy CPU, which says so of each latency. The 22nd commit added a copy."""
    (tmp_path / "cpu").mkdir()
    shutil.copy(FOLDER / "cpu-history.jsonl.gz", tmp_path / "cpu")
    rows = store.load(tmp_path)
    runs = list(dict.fromkeys(row.run for row in rows))
    assert len(runs) == 32
    assert not any(row.valid for row in rows if row.metric == "latency")
    (one,) = ranges(trends(rows))
    assert {event.after.metric for event in one.events} == {"operators", "python_calls"}
    assert [runs.index(event.after.run) for event in one.events] == [21, 21]
    assert one.cause.kinds == (CauseKind.CODE,)


def test_value_that_no_machine_can_have_judges_nothing() -> None:
    rows = nights(range(30))
    odd = [
        replace(row, value=0.0) if row.time.day == 20 and row.unit != "count" else row
        for row in rows
    ]
    assert [event for trend in trends(odd) for event in trend.events] == []


def test_store_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["history", "report", "--store", str(tmp_path / "none")]) == 2
    assert "no such folder; add runs with diffusers-perf history add" in capsys.readouterr().err


def test_report_shows_the_history_beside_the_baselines(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in parsed([night(n) for n in range(8)], "night"):
        store.add(run, no_baselines / "history")
    paths = write([night(9)], tmp_path, "run")
    page, comment = tmp_path / "report.html", tmp_path / "report.md"
    options = ["--html", str(page), "--markdown", str(comment)]
    assert command.main(["report", str(paths[0]), *options]) == 0
    lines = comment.read_text().splitlines()
    (line,) = [row for row in lines if "fp16" in row and BARS[0] in row]
    assert sum(line.count(bar) for bar in BARS) == 8
    # A link leads to what is there.
    assert "history.html</a>" not in page.read_text()
    assert '<a href="history.html">' not in page.read_text()
    assert command.main(["history", "report", "--html", str(tmp_path / "history.html")]) == 0
    assert command.main(["report", str(paths[0]), *options]) == 0
    assert '<a href="history.html">' in page.read_text()


def test_broken_history_is_a_note_of_the_report(
    tmp_path: Path, no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = no_baselines / "history" / "machine"
    broken.mkdir(parents=True)
    (broken / f"broken{store.SUFFIX}").write_bytes(b"x")
    paths = write([night(9)], tmp_path, "run")
    assert command.main(["report", str(paths[0]), "--markdown"]) == 0
    assert "cannot be read" in capsys.readouterr().out


def page_of(contents: list[Content], folder: Path) -> str:
    """The page of these runs."""
    for run in parsed(contents, "night"):
        store.add(run, folder / "history")
    page = folder / "history.html"
    options = ["--store", str(folder / "history"), "--html", str(page)]
    assert command.main(["history", "report", *options]) == 0
    return page.read_text()


def test_page_says_what_changed(tmp_path: Path, no_baselines: Path) -> None:
    contents = [night(n) for n in range(50)]
    for number, content in enumerate(contents):
        slower(since=40)(number, content)
    html = page_of(contents, tmp_path)
    assert "1 change in 50 runs" in html
    assert f"commits {commit(39)[:12]}..{commit(40)[:12]}" in html
    assert "://" not in html


def test_page_keeps_models_of_a_case_apart(tmp_path: Path, no_baselines: Path) -> None:
    contents = [night(n) for n in range(20)]
    for number, content in enumerate(contents):
        seen = measured(content, CASE)
        seen["model"] = "sd15" if number < 10 else "runwayml/own"
        seen["weights"] = f"weights{number % 2}"
    html = page_of(contents, tmp_path)
    for model in ("sd15", "runwayml/own"):
        (part,) = html.split(f"<b>{CASE}</b> ({model})")[1:]
        # Of two weights of one model, a column holds both.
        head = part[part.index("<thead>") : part.index("</thead>")]
        assert head.count(">GPU busy<") == 1


def test_alert_is_one_file_per_commit_range(tmp_path: Path, no_baselines: Path) -> None:
    def worse(number: int, content: Content) -> None:
        for name in ("ddim50-reference", CASE):
            if number >= 40:
                measured(content, name)["gpu_busy_s"] *= 1.05
                measured(content, name)["counters"]["host_syncs"] = [900, 90]

    contents = [night(n) for n in range(50)]
    for number, content in enumerate(contents):
        worse(number, content)
    for run in parsed(contents, "night"):
        store.add(run, tmp_path / "history")
    options = ["--store", str(tmp_path / "history"), "--issues", str(tmp_path / "issues")]
    assert command.main(["history", "report", *options]) == 0
    (file,) = (tmp_path / "issues").iterdir()
    assert file.name == f"{commit(39)[:12]}..{commit(40)[:12]}.md"
    text = file.read_text()
    assert text.count("\n- ") == 4
    assert f"    diffusers-perf bisect --good {commit(39)[:12]}" in text


def test_old_or_a_better_change_is_no_alert() -> None:
    assert len(alerts(trends(nights(range(70), slower(since=40))))) == 1
    assert alerts(trends(nights(range(90), slower(since=40)))) == []
    assert alerts(trends(nights(range(50), slower(since=40, by=0.9)))) == []
