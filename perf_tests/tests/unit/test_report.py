"""`diffusers-perf report`: what the page and the comment say of runs, good, bad and broken."""

from __future__ import annotations

import json
import os
import re
from copy import deepcopy
from html import unescape
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import pytest
from PIL import Image

from diffusers_perf.cli import __main__ as command
from diffusers_perf.messages.numbers import percent
from diffusers_perf.plugin import screen
from diffusers_perf.records import image_files, measurement
from diffusers_perf.records.baselines import CaseBaseline, MachineBaseline, Published
from diffusers_perf.records.measurement import KernelFamily
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.report import builder, charts, figures, markdown
from diffusers_perf.report.content import mood_of
from diffusers_perf.report.tradeoff import tradeoff
from perf_tests.tests.unit.drawn import image, many, shown
from perf_tests.tests.unit.recorded import (
    RECORDED,
    Content,
    black,
    case,
    case_id,
    cases,
    drop,
    keep,
    key_of,
    lost,
    machine,
    measured,
    process,
    session,
    settle,
    side,
    slow,
    write,
)


@pytest.fixture(autouse=True)
def folder(no_baselines: Path) -> Path:
    """A folder of baselines in which nothing is accepted."""
    return no_baselines


@pytest.fixture
def run() -> Content:
    """A run in which all is well, with something to see in every part."""
    content = process("run")
    for one in cases(content):
        one["status"] = "same"
        seen = one["measurement"]
        if seen["gpu_busy_s"]:
            seen["stages_s"] = {"denoising": 0.9 * seen["gpu_busy_s"], "decoder": 0.05}
            seen["families"] = {"matmul": {"gpu_s": 0.5, "kernels": 7}}
    return content


def page(path: Path, *options: str) -> str:
    """The page made of a run, with what it embeds left out."""
    out = path.with_suffix(".html")
    assert command.main(["report", str(path), "--html", str(out), *options]) == 0
    text = out.read_text()
    assert len(text) < 5_000_000
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\((?!#)|@import""", text)
    return re.sub(r"data:image/webp;base64,[\w+/=]+", "data:", text)


def comment(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert command.main(["report", str(path), "--markdown", *options]) == 0
    return capsys.readouterr().out


def words(text: str) -> str:
    """What a person reads."""
    text = re.sub(r"<(style|script|svg).*?</\1>", " ", text, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def headline(text: str) -> str:
    found = re.search(r"<h1.*?</h1>", text, re.S)
    assert found
    return words(found[0])[2:]


def mood(text: str) -> str:
    """How the page's first sentence is meant: good, plain, warning or bad."""
    found = re.search(r'<header class="banner (\w+)">', text)
    assert found
    return found[1]


def accept(folder: Path, content: Content) -> None:
    """An accepted baseline that knows this run's cases."""
    lines = {
        key_of(one): CaseBaseline(
            accepted="2026-11-23",
            versions={},
            workload=one["workload"],
            measured={"latency_s": (1.0,), "latency_speedup": (1.0,)},
            counters={},
            limits={"latency_speedup_min": 0.5},
        )
        for one in cases(content)
    }
    BaselineStore(folder).save_machine(MachineBaseline(machine="NVIDIA H200", cases=lines))


def test_passing_run_shows_every_part(run: Content, folder: Path, tmp_path: Path) -> None:
    accept(folder, run)
    text = page(shown(run, tmp_path / "run.json"))
    assert mood(text) == "good"
    assert headline(text).startswith("All 5 cases ")
    printed = words(text)
    for part in (
        "torch 2.11.0+cu130",
        "1 image, 512×512, 50 steps of DDIM",
        "a photo of an astronaut riding a horse on mars",
        "5.270 s",
        "By kernel family",
        "difference ×",
        "limit 40 dB",
        "Trade-offs",
        "Pareto front",
        "Counters",
        "compute capability 9.0",
    ):
        assert part in printed, part
    assert text.count('role="img"') == 2 + 2 + 2 + 1, "latency, families, stages, trade-offs"
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_own_scheduler_of_a_model_is_not_named(run: Content, tmp_path: Path) -> None:
    for one in cases(run):
        one["workload"]["scheduler"] = None
    printed = words(page(shown(run, tmp_path / "run.json")))
    assert "1 image, 512×512, 50 steps" in printed
    assert "steps of" not in printed


def test_farthest_step_of_a_step_wise_case_is_shown(run: Content, tmp_path: Path) -> None:
    """Its image is what comes of the reference's predictions, and says nothing of its own."""
    fp16 = measured(run, "ddim50-fp16")
    fp16["step_distances"] = {"inputs_db": [120.0, 15.25], "predictions_db": [48.0, 21.0]}
    path = shown(run, tmp_path / "run.json")
    text = page(path)
    printed = words(text)
    psnr_db = fp16["image_distance"]["psnr_db"]
    for part in (f"{psnr_db:.1f} dB", "farthest step 15.2 dB", ", steps 15.2 dB"):
        assert part in printed, part
    # Of the trade-offs, which show the farther of both.
    assert 'data-v="15.25"' in text
    assert command.main(["report", str(path), "--markdown", str(tmp_path / "out.md")]) == 0
    assert ", steps 15.2 dB" in (tmp_path / "out.md").read_text()
    (case,) = (c for c in load_run(path).cases.values() if c.id == "ddim50-fp16")
    assert screen.image(case.measurement).endswith(", steps 15.2 dB")


@pytest.mark.parametrize(
    ("psnr_db", "step_db", "says"),
    [
        (120.0, 15.25, "identical, steps 15.2 dB"),
        (51.36, 120.0, "51.4 dB, 1.000"),
        (120.0, 120.0, "identical"),
        (51.36, None, "51.4 dB, 1.000"),
    ],
)
def test_farthest_step_stands_behind_an_image_that_it_is_farther_than(
    psnr_db: float, step_db: float | None, says: str
) -> None:
    assert screen.how_close(psnr_db, 1.0, step_db) == says


def test_step_of_an_identical_image_is_in_the_table_of_speed(run: Content, tmp_path: Path) -> None:
    fp16 = measured(run, "ddim50-fp16")
    fp16["image_distance"] = {"psnr_db": 120.0, "ssim": 1.0}
    fp16["step_distances"] = {"inputs_db": [120.0], "predictions_db": [15.25]}
    printed = words(page(shown(run, tmp_path / "run.json")))
    assert "identical steps 15.2 dB" in printed


@pytest.mark.parametrize("step_db", [15.25, 48.0])
def test_trade_offs_count_the_farthest_step(run: Content, tmp_path: Path, step_db: float) -> None:
    """Of two cases of one image and one size, the slower one is on the front by its steps alone."""
    quick, slow = (measured(run, f"ddim50-{name}") for name in ("fp16", "tf32"))
    slow["gpu_busy_s"] = 2 * quick["gpu_busy_s"]
    for one, steps_db in ((quick, 20.0), (slow, step_db)):
        one["peak_memory_bytes"] = quick["peak_memory_bytes"]
        one["image_distance"] = {"psnr_db": 51.0, "ssim": 0.999}
        one["step_distances"] = {"inputs_db": [120.0], "predictions_db": [steps_db]}
    head = load_run(shown(run, tmp_path / "run.json"))
    nothing = Published(cases={}, claims={})
    part, *_ = builder.build(head, published=nothing, accepted=None).workloads
    assert {case.name: case.front for case in part.cases}["tf32"] == (step_db > 20)
    chart = tradeoff(part)
    assert chart
    image, _ = chart.panels
    words_of = [point.words for point in image.points]
    assert any(f"{step_db:.1f} dB" in said or f"{step_db:g}" in said for said in words_of), words_of


def test_counters_below_zero_are_shown_as_missing(run: Content, tmp_path: Path) -> None:
    counted = measured(run, "ddim50-fp16")["counters"]
    counted["host_syncs"] = [-2, 6]
    printed = words(page(shown(run, tmp_path / "run.json")))
    assert "fp16 host syncs 0 6 2 298" in printed
    assert "Missing is what the first or last steps do less than the others" in printed


def test_charts_show_the_numbers_of_the_tables(run: Content, tmp_path: Path) -> None:
    text = page(shown(run, tmp_path / "run.json"))
    latency = figures.seconds(median(measured(run, "ddim50-fp16")["rounds_s"]))
    busy = figures.seconds(measured(run, "ddim50-fp16")["gpu_busy_s"])
    table = text.index("<table")
    for number in (latency, busy):
        assert f"{number} · " in words(text[:table])
        assert number in words(text[table:])


def test_missing_baseline_is_shown(run: Content, tmp_path: Path) -> None:
    text = page(shown(run, tmp_path / "run.json"))
    assert mood(text) == "plain"
    assert "NVIDIA H200 has no baseline" in headline(text)
    assert "diffusers-perf accept" in text


def test_case_that_was_accepted_after_the_run_is_not_accepted_again(
    run: Content, folder: Path, tmp_path: Path
) -> None:
    for one in cases(run):
        one["status"] = "new"
    path = shown(run, tmp_path / "run.json")
    accept(folder, run)
    text = page(path)
    assert mood(text) == "plain"
    assert headline(text).startswith("No case fails. 5 of 5 cases are accepted now, but the run")
    assert "diffusers-perf accept" not in text
    # Its counter has no accepted count, and its image is not accepted.
    case(run, "ddim50-fp16")["sentence"] = "new: ddim50-fp16: 1 counter without an accepted count"
    measured(run, "ddim50-reference")["image_distance"] = None
    text = page(shown(run, tmp_path / "run.json"))
    assert headline(text).startswith("No case fails. 2 of 5 cases are not in the baseline")
    assert "diffusers-perf accept" in text


def test_accepted_case_that_did_not_run_is_missing(
    run: Content, folder: Path, tmp_path: Path
) -> None:
    accept(folder, run)
    drop(run, "vase25-reference")
    text = page(shown(run, tmp_path / "run.json"))
    assert "vase25-reference has a baseline and was not run" in headline(text)
    # A rerun would select nothing of a case that is no longer declared.
    assert "restore it, or accept runs without it" in words(text)
    session(run)["narrowed"] = True
    assert "vase25" not in words(page(shown(run, tmp_path / "run.json")))


def test_report_lists_the_missing_cases_of_the_gate(
    run: Content, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both by the same rule: skipped against anybody's choice, or never reached."""
    accept(folder, run)
    ours = session(run)
    gone = lost("ddim50-fp16", "", "ddim50-fp16: no such package")
    drop(run, "ddim50-fp16")

    def printed(**how: object) -> tuple[bool, bool, str]:
        """Does the gate call it lost, and the report, with its headline?"""
        ours["not_timed"] = [gone | how] if how else []
        path = shown(run, tmp_path / "run.json")
        capsys.readouterr()
        command.main(["gate", str(path)])
        gate = capsys.readouterr().out
        text = page(path)
        printed = [f"{status}: ddim50-fp16 " in gate for status in ("missing", "invalid")]
        return printed[0], printed[1], headline(text)

    skipped = printed(status="skipped", by_choice=False)
    assert skipped[:2] == (True, False)
    assert skipped[2] == (
        "1 of 5 cases fails: ddim50-fp16 has a baseline and was skipped: no such package."
    )
    chosen = printed(status="skipped", by_choice=True)
    assert chosen[:2] == (False, False)
    assert chosen[2].startswith("All 4 cases ")

    ours["expected"].append("ddim50-fp16")
    early = printed()
    assert early[:2] == (True, False)
    assert early[2].endswith("has no measurement: the run ended early.")
    ours["expected"].append("ddim50-slow")
    interrupted = printed(status="invalid")
    assert "2 of 6 cases could not be judged: " in interrupted[2]


def test_black_image_is_shown(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    black(run, "ddim50-fp16")
    sentence = "ddim50-fp16: an image is black"
    case(run, "ddim50-fp16").update(status="black", sentence=f"black: {sentence}")
    path = shown(run, tmp_path / "run.json")
    text = page(path)
    assert headline(text) == f"1 of 5 cases fails: {sentence}."
    assert '--benchmark-only -k "[ddim50-fp16]"' in words(text)
    said = comment(path, capsys)
    assert said.startswith(f"## ❌ 1 of 5 cases fails: {sentence}.")
    assert "**Next:** `pytest" in said


def test_next_command_measures_the_same_model(run: Content, tmp_path: Path) -> None:
    session(run)["options"] = ["--device", "cpu", "--model", "models/a model"]
    case(run, "ddim50-fp16").update(status="slower", sentence="slower: ddim50-fp16: more work")
    session(run)["not_timed"].append(lost("ddim50-vae", "error", "no memory"))
    printed = words(page(shown(run, tmp_path / "run.json")))
    for name in ("ddim50-fp16", "ddim50-vae"):
        command = f'--benchmark-only -k "[{name}]" --device cpu'
        assert f"{command} --model 'models/a model'" in printed


def test_bottleneck_is_that_of_the_run(
    run: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "HOST_IDLE", 1.1)
    printed = words(page(shown(run, tmp_path / "run.json")))
    assert "GPU, 62 % idle" in printed
    assert "host, " not in printed


def test_failures_are_named_with_their_status(run: Content, tmp_path: Path) -> None:
    for name, status in (("ddim50-fp16", "slower"), ("ddim50-tf32", "black")):
        case(run, name).update(status=status, sentence=f"{status}: {name} is {status}")
    text = page(shown(run, tmp_path / "run.json"))
    assert headline(text) == "2 of 5 cases fail: ddim50-tf32 (black), ddim50-fp16 (slower)."


def test_missing_image_and_a_missing_folder(run: Content, tmp_path: Path) -> None:
    path = shown(run, tmp_path / "run.json")
    image(path, "ddim50-fp16").unlink()
    image(path, "pndm25x4-reference").write_text("no image")
    printed = words(page(path))
    assert "ddim50-fp16.png is missing in run-images/" in printed
    assert "run-images/pndm25x4-reference.png: not a PNG file" in printed
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(run))
    assert "No images: alone-images/ is not beside" in words(page(alone))


def test_portrait_images_keep_their_shape(run: Content, tmp_path: Path) -> None:
    path = shown(run, tmp_path / "run.json")
    for name in ("pndm25x4-reference", "pndm25x4-distilled_unet"):
        image_files.save(np.full((2, 96, 64, 3), 0.5, np.float32), image(path, name))
    text = page(path)
    assert 'width="128" height="96" alt="reference on pndm25x4"' in text


def test_broken_image_is_a_sentence(run: Content, tmp_path: Path) -> None:
    path = shown(run, tmp_path / "run.json")
    Image.new("RGB", (64, 96)).save(image(path, "ddim50-fp16"))
    target = image(path, "ddim50-tf32")
    target.rename(tmp_path / "secret.png")
    target.symlink_to(tmp_path / "secret.png")
    printed = words(page(path))
    assert "run-images/ddim50-fp16.png: 64x96 pixels do not divide into squares" in printed
    assert "run-images/ddim50-tf32.png: not a regular file" in printed


def test_missing_reference_is_not_compared(run: Content, tmp_path: Path) -> None:
    path = shown(run, tmp_path / "run.json")
    image(path, "ddim50-reference").unlink()
    printed = words(page(path))
    assert "ddim50-reference.png is missing in run-images/, so there is no image to comp" in printed


def test_unselected_reference_is_shown(run: Content, tmp_path: Path) -> None:
    """As after `-k`: it was not run as a case, and its image is there."""
    path = shown(run, tmp_path / "run.json")
    whole = page(path).count('class="reference"')
    drop(run, "ddim50-reference")
    path.write_text(json.dumps(run))
    text = page(path)
    assert "no image to compare with" not in words(text)
    (of,) = set(re.findall(r'<img class="reference" data-of="(\w+)" alt="reference">', text))
    assert re.search(f'<img hidden id="{of}" src="data:', text)
    assert text.count('class="reference"') == whole
    image(path, "ddim50-reference").write_text("no image")
    printed = words(page(path))
    assert "not a PNG file, so there is no image to compare with" in printed


def test_only_equal_images_are_called_identical(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the terminal: 120 dB is a cap, and says no more than that they are close."""
    measured(run, "ddim50-fp16")["image_distance"].update(psnr_db=120.0, ssim=0.99999)
    path = shown(run, tmp_path / "run.json")
    for printed in (words(page(path)), comment(path, capsys)):
        assert "identical" not in printed.replace("identical in every run", "")
        assert "120.0 dB" in printed
    measured(run, "ddim50-fp16")["image_distance"].update(ssim=1.0)
    path.write_text(json.dumps(run))
    for printed in (words(page(path)), comment(path, capsys)):
        assert "identical" in printed
        assert "120.0 dB" not in printed


def test_image_with_nan_is_not_finite(run: Content, tmp_path: Path) -> None:
    info = case(run, "ddim50-fp16")
    info["measurement"]["look"]["finite"] = False
    info.update(status="not finite", sentence="not finite: ddim50-fp16: the output has NaN")
    assert "not finite" in words(page(shown(run, tmp_path / "run.json")))


def test_sixty_cases_take_seconds_and_five_megabytes(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shown(many(run, 60), tmp_path / "run.json", side=256)
    started = process_time()
    text = page(path)
    # Of this process alone: others may be at work here.
    assert process_time() - started < 15
    assert text.count('class="case"') == 60
    assert re.search(
        r"reduced to at most \d+ pixels per side; those in run-images/ have 256", words(text)
    )
    said = comment(path, capsys)
    assert len(said) < markdown.MOST_CHARACTERS


def test_long_comment_is_cut_and_links_the_page(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, path = many(run, 400), tmp_path / "run.json"
    for words_each in (200, 2000):
        for one in cases(content):
            one.update(status="slower", sentence="slower: " + "a_b " * words_each + case_id(one))
        path.write_text(json.dumps(content))
        said = comment(path, capsys)
        assert len(said) < markdown.MOST_CHARACTERS
        assert said.startswith("## ❌ 400 of 400 cases fail")
        assert "**Next:** `pytest" in said
        assert "HTML report" in said


def test_more_cases_than_a_page_can_show_are_refused(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(many(run, 2001)))
    assert command.main(["report", str(path), "--markdown"]) == 2
    assert "has 2,001 cases, but a report shows at most 2,000" in capsys.readouterr().err


def test_single_round_is_shown(run: Content, tmp_path: Path) -> None:
    run["benchmarks"] = run["benchmarks"][:1]
    session(run)["expected"] = ["ddim50-reference"]
    seen = measured(run, "ddim50-reference")
    seen["rounds_s"] = seen["rounds_s"][:1]
    printed = words(page(shown(run, tmp_path / "run.json")))
    assert "needs two rounds" in printed
    assert "No case fails." in printed


def test_run_without_measurements_is_shown(run: Content, tmp_path: Path) -> None:
    run["benchmarks"] = []
    session(run)["not_timed"] = [lost("ddim50-fp16", "error", "out of memory")]
    text = page(shown(run, tmp_path / "run.json"))
    assert mood(text) == "bad"
    assert headline(text) == "No case was measured."
    assert "ddim50-fp16: out of memory" in words(text)


def test_run_without_a_gpu_is_shown(run: Content, tmp_path: Path) -> None:
    machine(run).update(device="cpu", name="A CPU", driver=None)
    for one in cases(run):
        for seen in filter(None, (one["measurement"], one["reference"])):
            seen.update(gpu_busy_s=None, peak_memory_bytes=None)
        one["measurement"].update(roofline_s=None, stages_s={}, families={})
    printed = words(page(shown(run, tmp_path / "run.json")))
    assert "Stages and kernels are measured on a GPU only" in printed
    assert "GPU busy" not in printed


def test_names_and_sentences_are_escaped(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>alert('1')</script>"
    info = case(run, "ddim50-fp16")
    sentence = f"slower: {evil} | `x` @someone #1 https://example.org\n## title"
    info.update(status="slower", sentence=sentence, stack={evil: evil})
    info["measurement"]["case"] = "&lt;b&gt; _c_ [d](e) ``"
    machine(run)["name"] = evil
    session(run)["not_timed"] = [lost(f"ddim50-{evil}", "error", evil)]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    path.with_name("run-images").mkdir()
    out = path.with_suffix(".html")
    assert command.main(["report", str(path), "--html", str(out)]) == 0
    text = out.read_text()
    assert text.count("<script>") == 1, "the page's own"
    assert evil in words(text)
    said = re.sub(r"(`+).+?\1", "", comment(path, capsys))
    for markup in ("<script", "@someone", " #1", "://", "`", "\n## title", " | &#96;"):
        assert markup not in said, markup
    assert "&lt;script&gt;" in said


def test_policy_allows_the_pages_script_only(run: Content, tmp_path: Path) -> None:
    text = page(shown(run, tmp_path / "run.json"))
    assert "default-src &#39;none&#39;" in text
    assert re.search(
        r"script-src &#39;sha256-[\w+/=]{44}&#39;", unescape(text).replace("'", "&#39;")
    )


# Base against head


def test_single_runs_are_compared_and_not_judged(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shown(run, tmp_path / "base.json")
    head = deepcopy(run)
    slow(head, "ddim50-fp16", by=1.5)
    counters = measured(head, "ddim50-tf32")["counters"]
    counters["host_syncs"][1] = 7
    counters["kernels"][1] += 1
    counters["kernel_launches"][1] *= 2
    drop(head, "vase25-reference")
    path = shown(head, tmp_path / "run.json")
    printed = words(page(path, "--base", str(base)))
    assert "A verdict needs 5 A/B pairs" in printed
    assert "ddim50-fp16 latency" in printed
    assert "+50.0 %" in printed
    (changed,) = re.findall(r"Counters that changed (.*) unchanged rows", printed)
    assert "ddim50-tf32 host syncs 303 → 353 (+1 in each of 50 steps) ddim50" in changed
    assert "(+1 in each of 50 steps), same within 1 % ddim50" in changed
    assert changed.count("same within") == 1
    assert "only in base" in printed
    assert "unchanged rows" in printed
    assert "diffusers-perf ab" in printed
    said = comment(path, capsys, "--base", str(base))
    assert "not judged | <code>ddim50-fp16</code> | GPU busy |" in said


def test_pairs_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.06)
    bases = [str(path) for path in write(side("base"), tmp_path, "base")]
    heads = [str(path) for path in write(head, tmp_path, "head")]
    out = tmp_path / "out.html"
    arguments = ["report", *heads, "--base", *bases]
    assert command.main([*arguments, "--html", str(out), "--markdown"]) == 0
    text = out.read_text()
    assert mood(text) == "bad"
    assert "1 of 5 cases (5 A/B pairs): ddim50-fp16 (slower: " in headline(text)
    printed = words(text)
    assert "slower ddim50-fp16 GPU busy" in printed
    assert re.search(r"99.5 %: \+5\.\d % to \+6\.\d %", printed)
    said = capsys.readouterr().out
    assert "## ❌ Regression in 1 of 5 cases" in said
    assert said.index("ddim50-fp16") < said.index("ddim50-tf32"), "changed rows first"


def test_passing_pairs_are_shown(tmp_path: Path) -> None:
    sides = [write(side(name), tmp_path, name) for name in ("base", "head")]
    bases, heads = ([str(path) for path in paths] for paths in sides)
    out = tmp_path / "out.html"
    assert command.main(["report", *heads, "--base", *bases, "--html", str(out)]) == 0
    text = out.read_text()
    assert mood(text) == "good"
    assert "No regression in 5 cases (5 A/B pairs)" in headline(text)
    assert "No change detected." in words(text)


def test_single_passing_case_of_pairs(tmp_path: Path) -> None:
    arguments = []
    for name in ("base", "head"):
        contents = side(name)
        for content in contents:
            keep(content, "ddim50-fp16")
        arguments.append([str(path) for path in write(contents, tmp_path, name)])
    bases, heads = arguments
    out = tmp_path / "out.html"
    assert command.main(["report", *heads, "--base", *bases, "--html", str(out)]) == 0
    assert headline(out.read_text()) == "No regression in 1 case (5 A/B pairs)."


def test_incomparable_runs_say_why(run: Content, tmp_path: Path) -> None:
    base = shown(run, tmp_path / "base.json")
    machine(run)["name"] = "Another GPU"
    path = shown(settle(run), tmp_path / "run.json")
    printed = words(page(path, "--base", str(base)))
    assert "Base was measured on NVIDIA H200, head on Another GPU" in printed
    sides = [write(side(name, count=2), tmp_path, name) for name in ("one", "other")]
    heads, bases = ([str(path) for path in paths] for paths in sides)
    out = tmp_path / "out.html"
    assert command.main(["report", *heads, "--base", bases[0], "--html", str(out)]) == 0
    assert "1 run of base and 2 runs of head" in words(out.read_text())


# Bad input


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read (No such file"),
        ('{"diffusers_perf": ', "not valid JSON"),
        ("[]", "not a run of this suite"),
        ('{"perf_tests": {"schema": 1}}', "has schema 1; this version reads schema 2"),
        ('{"diffusers_perf": {"schema": 2}}', "diffusers_perf: object missing required field"),
        ('{"diffusers_perf": {"schema": 7}}', "has schema 7; this version reads schema 2"),
    ],
)
def test_file_that_is_not_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    assert command.main(["report", str(path), "--markdown"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: {sentence}" in line


def test_duplicate_case_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = deepcopy(RECORDED[0])
    content["benchmarks"].append(content["benchmarks"][1])
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    assert command.main(["report", str(path), "--markdown"]) == 2
    assert "tf32 twice" in capsys.readouterr().err


def test_missing_output_lists_the_formats(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shown(run, tmp_path / "run.json")
    assert command.main(["report", str(path)]) == 2
    assert "report needs --html OUT.html" in capsys.readouterr().err
    for out in (path / "out.html", path / "further" / "out.html"):
        assert command.main(["report", str(path), "--html", str(out)]) == 2
        said = f"error: {out}: cannot be written ({path} is a file, not a folder)\n"
        assert capsys.readouterr().err == said


def test_page_and_comment_in_one_file_are_refused(
    run: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = shown(run, tmp_path / "run.json")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    assert command.main(["report", str(path), "--html", str(out), "--markdown", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --html and --markdown need different files (both are {out})"
    assert not out.exists()


@pytest.mark.parametrize("options", [["--html"], ["--markdown"]])
def test_run_is_never_overwritten(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    one, other = (shown(run, tmp_path / f"{name}.json") for name in ("one", "other"))
    before = other.read_text()
    # As typed by who means the report of two runs.
    assert command.main(["report", str(one), *options, str(other)]) == 2
    said = f"error: {other} is a run: write the report to another file\n"
    assert capsys.readouterr().err == said
    assert other.read_text() == before


def test_run_without_a_suffix_and_a_device_are_kept(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shown(run, tmp_path / "run.json")
    bare, pipe = path.rename(tmp_path / "run"), tmp_path / "pipe"
    assert command.main(["report", str(bare), "--markdown", str(bare)]) == 2
    assert "is a run: write" in capsys.readouterr().err
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert command.main(["report", str(bare), "--markdown", str(pipe)]) == 0
    assert pipe.is_fifo()
    assert os.read(reader, 2) == b"##"
    os.close(reader)


def test_missing_libraries_of_the_page_are_named(
    run: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("diffusers_perf.report.NEEDED", ("no_such_library",))
    path = shown(run, tmp_path / "run.json")
    assert command.main(["report", str(path), "--html", str(tmp_path / "out.html")]) == 2
    assert "--html needs no_such_library: pip install" in capsys.readouterr().err


# Parts


def test_families_are_drawn_by_prefix() -> None:
    split = charts.split_of(
        {
            name: KernelFamily(gpu_s=seconds, kernels=1)
            for name, seconds in (
                ("attention: cudnn", 1.0),
                ("attention: flash", 2.0),
                ("unheard of", 3.0),
            )
        }
    )
    assert split == {"attention": 3.0, "other": 3.0}


@pytest.mark.parametrize(
    ("status", "mood"),
    [
        ("same", "good"),
        ("new", "plain"),
        ("inconclusive", "warning"),
        ("more work", "bad"),
        ("unheard of", "bad"),
    ],
)
def test_mood_of_each_status(status: str, mood: str) -> None:
    assert mood_of(status) == mood


def test_numbers_are_written() -> None:
    assert figures.seconds(2.1458) == "2.146 s"
    assert figures.seconds(0.0123) == "12.3 ms"
    assert percent(0.95) == "−5.0 %"
    assert percent(1.0001) == "±0 %"
    assert figures.mebibytes(2**30) == "1,024 MiB"
    assert figures.decibels(120.0) == "120.0 dB"


@pytest.mark.parametrize(
    ("step", "words_of_it", "its_command"),
    [
        ("pytest x --quick", "", "pytest x --quick"),
        (
            "accept it:\nfor n in 1 2; do pytest x; done",
            "accept it:",
            "for n in 1 2; do pytest x; done",
        ),
        ("accept it; else rerun: pytest x", "accept it; else rerun:", "pytest x"),
        ("look at the pytest options", "look at the pytest options", ""),
        ("", "", ""),
    ],
)
def test_next_step_has_words_and_a_command(step: str, words_of_it: str, its_command: str) -> None:
    assert figures.words_and_command(step) == (words_of_it, its_command)


def test_findings_of_a_case_are_all_shown(
    run: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = "ddim50-fp16: peak memory 1.03x higher than the baseline"
    slower = "ddim50-fp16: GPU busy 1.05x slower than the baseline"
    case(run, "ddim50-fp16").update(
        status="more memory",
        sentence=f"more memory: {memory}",
        others=[
            {"status": "slower", "sentence": f"slower: {slower}"},
            {"status": "faster", "sentence": "faster: ddim50-fp16: load time"},
        ],
    )
    path = shown(run, tmp_path / "run.json")
    found = words(page(path)).split("Findings")[-1].split("Speed")[0]
    for text in (found, comment(path, capsys)):
        assert "peak memory 1.03x higher" in text
        assert "GPU busy 1.05x slower" in text
        assert "load time" not in text
    for one in cases(run):
        one.pop("others", None)
    assert "GPU busy 1.05x slower" not in words(page(shown(run, tmp_path / "older.json")))


def test_next_command_finds_the_tests_from_a_subfolder(
    folder: Path,
    run: Content,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = folder.parent
    for name in (".git", "perf_tests", "tools"):
        (root / name).mkdir()
    black(run, "ddim50-fp16")
    monkeypatch.chdir(root / "tools")
    (path,) = write([run], root, "shown")
    assert "pytest ../perf_tests --benchmark-only" in comment(path, capsys)
    assert "pytest ../perf_tests --benchmark-only" in page(path)


def test_drift_that_could_not_be_measured_is_a_note(
    tmp_path: Path, run: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    session(run)["not_timed_again"] = {"ddim50": "out of memory"}
    (path,) = write([run], tmp_path, "shown")
    for text in (comment(path, capsys), page(path)):
        assert "ddim50-reference: not timed again: out of memory" in words(text)
