"""`--shard` and `diffusers-perf merge`: the parts make the whole, and anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.records.reading import load_run
from perf_tests.tests.unit import main_job
from perf_tests.tests.unit.drawn import image
from perf_tests.tests.unit.recorded import (
    Content,
    cases,
    drop,
    machine,
    parsed,
    process,
    session,
    write,
)

CASES = [f"fake4-{name}" for name in ("reference", "fine", "unsupported", "unapplied", "moody")]
FAKES = "fine,unsupported,unapplied,moody"


def test_shards_make_the_whole(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [pytester.path / f"{index}.json" for index in (1, 2)]
    for part, path in zip(("1/2:1-2", "2/2:3-5"), paths, strict=True):
        main_job.run(pytester, f"--shard={part}", f"--benchmark-json={path}", fakes=FAKES)
    parts = [load_run(path) for path in paths]
    assert [case for part in parts for case in part.session.expected] == CASES
    # The second has no reference of its own and compared its cases all the same.
    assert [sorted(part.by_id) for part in parts] == [
        ["fake4-fine", "fake4-reference"],
        ["fake4-moody"],
    ]
    assert parts[1].by_id["fake4-moody"].reference
    # How long it took to measure stands beside those of the shard's own.
    took = [set(part.session.durations_s) for part in parts]
    assert took == [set(CASES[:2]), {CASES[0], *CASES[2:]}]
    assert all(seconds >= 0 for part in parts for seconds in part.session.durations_s.values())
    capsys.readouterr()

    whole = pytester.path / "whole.json"
    assert command.main(["merge", *map(str, paths[::-1]), "--json", str(whole)]) == 0
    assert (
        "merged 2 shards: of 5 cases expected, 3 executed, 1 skipped, 1 failed without a "
        "measurement, 0 never reached" in capsys.readouterr().out
    )
    run = load_run(whole)
    assert list(run.session.expected) == CASES
    assert list(run.by_id) == ["fake4-reference", "fake4-fine", "fake4-moody"]
    assert run.session.shard is None
    assert run.session.options == parts[0].session.options == ("--device", "cpu")
    images = {path.name for path in (pytester.path / "whole-images").iterdir()}
    assert images == {"fake4-reference.png", "fake4-fine.png", "fake4-moody.png"}
    # pytest-benchmark reads it.
    shown = pytester.run("pytest-benchmark", "compare", str(whole))
    assert shown.ret == 0
    shown.stdout.fnmatch_lines(["*fake4-moody*"])


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [
        ("4/3", "--shard: I must be from 1 to N (got 4/3)"),
        ("0/3", "--shard: I must be from 1 to N (got 0/3)"),
        ("1", "--shard: must be I/N, such as 1/3 (got 1)"),
        ("1/2:3", "--shard: must be I/N, such as 1/3 (got 1/2:3)"),
        ("1/2:0-1", "--shard: FIRST must be from 1 to LAST (got 1/2:0-1)"),
        ("1/2:2-1", "--shard: FIRST must be from 1 to LAST (got 1/2:2-1)"),
        ("1/2:1-9", "--shard 1/2:1-9: only 2 cases selected"),
        ("1/9", "--shard 1/9: more shards than cases (2)"),
    ],
)
def test_run_that_is_not_a_shard_is_refused(
    pytester: pytest.Pytester, shard: str, sentence: str
) -> None:
    result = main_job.run(pytester, f"--shard={shard}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.errlines + result.outlines)
    assert sentence in text
    assert "Traceback" not in text


def shards() -> list[Content]:
    """One recorded run in three parts."""
    contents = [process("shard") for _ in range(3)]
    dealt = session(contents[0])["expected"]
    bounds = [(0, 2), (2, 4), (4, 5)]
    for index, (content, (first, last)) in enumerate(zip(contents, bounds, strict=True), start=1):
        own = dealt[first:last]
        content["benchmarks"] = [
            benchmark
            for benchmark in content["benchmarks"]
            if benchmark["name"].split("[")[1][:-1] in own
        ]
        session(content)["expected"] = own
        session(content)["shard"] = {"index": index, "count": 3, "cases": list(dealt)}
    return contents


def test_recorded_shards_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(shards(), tmp_path, "shard")
    out = tmp_path / "new" / "run.json"
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 0
    assert "of 5 cases expected, 5 executed, 0 skipped" in capsys.readouterr().out
    (whole,) = parsed([process("shard")], "whole")
    assert load_run(out).by_id.keys() == whole.by_id.keys()
    assert not list(out.parent.glob("*.draft"))


def test_image_of_an_unselected_reference_is_kept(tmp_path: Path) -> None:
    """As after `-k`: a shard measured it for others. A reference that no case needs is left out."""
    contents = shards()
    for content in contents:
        session(content)["shard"]["cases"].remove("ddim50-reference")
    drop(contents[0], "ddim50-reference")
    paths = write(contents, tmp_path, "shard")
    for name in ("ddim50-reference", "ddim50-tf32", "ddim50-left_behind"):
        image(paths[0], name).parent.mkdir(exist_ok=True)
        image(paths[0], name).touch()
    out = tmp_path / "run.json"
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 0
    kept = {path.stem for path in (tmp_path / "run-images").iterdir()}
    assert kept == {"ddim50-reference", "ddim50-tf32"}


def _gap(contents: list[Content]) -> None:
    contents.pop(1)


def _twice(contents: list[Content]) -> None:
    contents[2] = json.loads(json.dumps(contents[1]))


def _overlap(contents: list[Content]) -> None:
    session(contents[1])["expected"] = session(contents[0])["expected"]


def _other_card(contents: list[Content]) -> None:
    for index, content in enumerate(contents):
        machine(content)["gpu_uuid"] = f"card-{index}"
        content["machine_info"]["node"] = f"host-{index}"


def _other_model(contents: list[Content]) -> None:
    for one in cases(contents[2]):
        one["measurement"].update(model="other", weights="other")


@pytest.mark.parametrize("change", [_other_card, _other_model])
def test_shards_of_several_cards_and_models_join(
    tmp_path: Path, change: Callable[[list[Content]], None]
) -> None:
    contents = shards()
    change(contents)
    out = tmp_path / "run.json"
    paths = write(contents, tmp_path, "shard")
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 0
    run = load_run(out)
    assert len(run.cases) == 5
    if change is _other_card:
        assert run.machine.gpu_uuid is None
        placed = [(one.shard, one.host, one.gpu_uuid) for one in run.session.placements]
        assert placed == [(n + 1, f"host-{n}", f"card-{n}") for n in range(3)]


def test_durations_of_all_shards_are_kept(tmp_path: Path) -> None:
    contents = shards()
    for number, content in enumerate(contents):
        session(content)["durations_s"] = {"ddim50-reference": 1.0 + number, str(number): 2.0}
    out = tmp_path / "run.json"
    paths = write(contents, tmp_path, "shard")
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 0
    durations = load_run(out).session.durations_s
    assert durations == {"ddim50-reference": 3.0, "0": 2.0, "1": 2.0, "2": 2.0}


def test_shards_whose_reference_was_not_timed_again_say_why(tmp_path: Path) -> None:
    contents = shards()
    session(contents[1])["not_timed_again"] = {"ddim50": "out of memory"}
    out = tmp_path / "run.json"
    paths = write(contents, tmp_path, "shard")
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 0
    assert load_run(out).session.not_timed_again == {"ddim50": "out of memory"}


def _no_shard(contents: list[Content]) -> None:
    session(contents[1])["shard"] = None


def _other_list(contents: list[Content]) -> None:
    session(contents[1])["shard"]["cases"].pop()


def _other_gpu(contents: list[Content]) -> None:
    machine(contents[1])["name"] = "NVIDIA A100-SXM4-80GB"


def _other_torch(contents: list[Content]) -> None:
    machine(contents[1])["torch"] = "2.12.0"


def _other_weights(contents: list[Content]) -> None:
    for one in cases(contents[2]):
        one["measurement"]["weights"] = "seeded-7"


def _other_commit(contents: list[Content]) -> None:
    contents[2]["commit_info"]["id"] = "0" * 40


def _other_stopwatch(contents: list[Content]) -> None:
    session(contents[2])["harness_version"] = "ba9876543210"


def _one_quick(contents: list[Content]) -> None:
    session(contents[2])["quick"] = True


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_gap, "shard 2/3 is not among the runs"),
        (_twice, "shard-2.json and {}/shard-1.json are both shard 2/3"),
        (_overlap, "the shards' cases overlap or are incomplete"),
        (_no_shard, "shard-1.json is not a shard: it was measured without --shard"),
        (_other_list, "shard-0.json are shards of different lists of cases"),
        (_other_gpu, "differ in the machine or its versions"),
        (_other_torch, "differ in the machine or its versions"),
        (_other_weights, "differ in the weights"),
        (_other_commit, "differ in the commit"),
        (_one_quick, "differ in the mode"),
        (_other_stopwatch, "differ in the version of the measuring code"),
    ],
)
def test_incomplete_shards_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Content]], object],
    sentence: str,
) -> None:
    contents = shards()
    spoil(contents)
    paths = write(contents, tmp_path, "shard")
    out = tmp_path / "run.json"
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence.format(tmp_path) in line
    assert not out.exists()


def test_quick_shards_make_a_quick_run(tmp_path: Path) -> None:
    contents = shards()
    for content in contents:
        session(content)["quick"] = True
    out = tmp_path / "run.json"
    paths = write(contents, tmp_path, "shard")
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 0
    assert load_run(out).session.quick


def test_existing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(shards(), tmp_path, "shard")
    out = paths[0] / "run.json"
    assert command.main(["merge", *map(str, paths), "--json", str(out)]) == 2
    said = f"error: {out}: cannot be written ({paths[0]} is a file, not a folder)\n"
    assert capsys.readouterr().err == said


def test_shard_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(shards(), tmp_path, "shard")
    assert command.main(["merge", *map(str, paths), "--json", str(paths[0])]) == 2
    assert "shard-0.json is one of the shards" in capsys.readouterr().err
