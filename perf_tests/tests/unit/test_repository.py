"""A user's repository: which test file runs which cases, and what is wrong in one sentence."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf import models
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as command
from diffusers_perf.plugin.finding import find_project
from perf_tests.tests.unit.fake import FakeSource
from perf_tests.tests.unit.main_job import run_pytest

TEST = "from diffusers_perf import test_generation as test_generation\n"
WORKLOAD = """
from diffusers_perf import Workload, measure, optimization
WORKLOAD = Workload(
    name="serving",
    model="embedded",
    call={"prompt": "a fake", "height": 64, "width": 64, "guidance_scale": 7.5},
    steps=4,
)
"""
OWN = '''
@optimization(applied=lambda pipeline: None)
def own(build):
    """Nothing."""
'''
OPEN_SOURCE = models.open_source


class Repository:
    """Test files in a folder of their own, and what pytest collects of them."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.folder = pytester.path / "perf_tests"
        self.folder.mkdir()
        pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\ntestpaths = perf_tests\n")

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)

    def collect(self, *arguments: str, **ini: str) -> pytest.RunResult:
        options = [part for name, value in ini.items() for part in ("-o", f"{name}={value}")]
        return run_pytest(self.pytester, "--collect-only", "-q", *options, *arguments)

    def ids(self, *arguments: str, **ini: str) -> list[str]:
        """``file[case]`` of each test."""
        result = self.collect(*arguments, **ini)
        assert result.ret == 0, result.errlines
        found = [re.search(r"(\w+)\.py::test_generation(\[.+\])", line) for line in result.outlines]
        return ["".join(match.groups()) for match in found if match]

    def refusal(self, *arguments: str, **ini: str) -> str:
        """The sentence of a usage error."""
        result = self.collect(*arguments, **ini)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        (sentence,) = [line for line in result.errlines if line.strip()]
        return sentence.removeprefix("ERROR: ")


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(models, "open_source", lambda model: FakeSource())
    monkeypatch.syspath_prepend(pytester.path / "perf_tests")
    return Repository(pytester)


def test_each_file_runs_its_own_cases_in_either_order(repository: Repository) -> None:
    repository.write(
        test_one=TEST + WORKLOAD + OWN + 'measure(WORKLOAD, "fp16", suite="one")',
        test_two=TEST + WORKLOAD + OWN + 'measure(WORKLOAD, "own+bf16", suite="two")',
    )
    one, two = "perf_tests/test_one.py", "perf_tests/test_two.py"
    assert repository.ids(one) == ["test_one[serving-reference]", "test_one[serving-fp16]"]
    assert repository.ids(two) == ["test_two[serving-reference]", "test_two[serving-own+bf16]"]
    # The reference that both have is measured once.
    assert repository.ids(one, two) == [*repository.ids(one), "test_two[serving-own+bf16]"]
    assert repository.ids(two, one) == [*repository.ids(two), "test_one[serving-fp16]"]
    assert repository.ids("-m", "two") == [
        "test_one[serving-reference]",
        "test_two[serving-own+bf16]",
    ]
    assert len(repository.ids(perf_suites="one")) == 2


def test_baselines_must_be_a_folder_that_may_be_missing(repository: Repository) -> None:
    repository.write(test_it=TEST + WORKLOAD + 'measure(WORKLOAD, "fp16")')
    assert repository.refusal("--baselines=tox.ini").endswith("tox.ini is a file, not a folder)")
    assert repository.ids("--baselines=nowhere")


def test_hint_where_no_case_matches_names_models_of_the_repository(
    repository: Repository,
) -> None:
    hint = "no case is selected; without -k and -m, --collect-only lists those that run here"
    repository.write(test_it=TEST + WORKLOAD + 'measure(WORKLOAD, "fp16")')
    repository.collect("-k", "nocase").stdout.fnmatch_lines([hint])
    repository.write(test_gpu=TEST + WORKLOAD.replace("embedded", "sdxl") + "measure(WORKLOAD)")
    both = f"{hint}, and with --model=sdxl those of another model"
    repository.collect("-k", "nocase").stdout.fnmatch_lines([both])


def test_run_is_not_green_where_no_declared_case_runs(repository: Repository) -> None:
    repository.write(test_gpu=TEST + WORKLOAD.replace("embedded", "sdxl") + "measure(WORKLOAD)")
    result = run_pytest(repository.pytester, "--benchmark-only")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["no declared case runs on this machine: those of sdxl *"])
    # What else there is to run decides by itself, and so does who only looks.
    assert repository.collect("--benchmark-only").ret == 0
    assert run_pytest(repository.pytester).ret == 0
    repository.write(test_own="def test_other(benchmark): benchmark(int)\n")
    assert run_pytest(repository.pytester, "--benchmark-only").ret == 0


@pytest.mark.parametrize("command_line", [["structure"], ["explore"], ["faults"]])
def test_command_in_a_repository_without_a_case_says_how_to_declare_one(
    repository: Repository, capsys: pytest.CaptureFixture[str], command_line: list[str]
) -> None:
    repository.write(test_it=TEST)
    assert command.main(command_line) == 2
    assert capsys.readouterr().err.startswith("error: no case is declared here: call measure(")


def test_model_that_runs_no_declared_case_is_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "open_source", OPEN_SOURCE)
    repository.write(test_it=TEST + WORKLOAD + "measure(WORKLOAD)")
    said = "no declared case runs with --model=sdxl; --model=embedded runs those of that model"
    for command_line in (["structure"], ["explore", "--device=cpu"]):
        assert command.main([*command_line, "--model=sdxl"]) == 2
        assert capsys.readouterr().err == f"error: {said}\n"
    assert command.main(["structure"]) == 2
    assert capsys.readouterr().err.startswith("error: no declared case runs here without --model; ")
    result = run_pytest(repository.pytester, "--benchmark-only", "--model=sdxl")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines([said])


def test_library_that_is_imported_while_declarations_are_found_logs_to_stderr(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its handler holds what stood for stderr then, which pytest closes."""
    log = "import logging\nlogging.getLogger('of_a_library').addHandler(logging.StreamHandler())\n"
    repository.write(test_it=log + TEST + WORKLOAD + "measure(WORKLOAD)")
    assert find_project(None).cases
    logger = logging.getLogger("of_a_library")
    logger.warning("offline")
    logger.handlers.clear()
    assert capsys.readouterr().err == "offline\n"


def test_shared_declarations_run_where_a_file_has_none(
    repository: Repository,
) -> None:
    repository.write(
        ours=WORKLOAD + OWN + 'measure(WORKLOAD, "own")',
        test_all=TEST,
        test_own=TEST + WORKLOAD + 'measure(WORKLOAD, "fp16+own")',
    )
    assert repository.ids(perf_declarations="ours") == [
        "test_all[serving-reference]",
        "test_all[serving-own]",
        "test_own[serving-fp16+own]",
    ]


def test_optimization_can_be_imported_by_name(repository: Repository) -> None:
    repository.write(
        helpers="from diffusers_perf import optimization\n" + OWN,
        test_it="from helpers import own\n" + TEST + WORKLOAD + 'measure(WORKLOAD, "own")',
    )
    assert repository.ids() == ["test_it[serving-reference]", "test_it[serving-own]"]


DECLARES = WORKLOAD + 'measure(WORKLOAD, "fp16")'


@pytest.mark.parametrize(
    ("files", "ini", "sentence"),
    [
        (
            {"test_it": DECLARES},
            {},
            "perf_tests/test_it.py declares cases, but no test runs them; add this line to it: ",
        ),
        (
            {"helpers": DECLARES.replace("serving", "other"), "test_it": TEST + DECLARES},
            {"perf_declarations": "helpers"},
            "perf_declarations: no test runs the cases of helpers; add a test file that declares",
        ),
        (
            {"ours": "", "test_it": TEST},
            {"perf_declarations": "ours"},
            "test_it imports test_generation, but declares no case: call measure(WORKLOAD)",
        ),
        (
            {"test_a": TEST + DECLARES, "test_b": TEST + DECLARES},
            {},
            "test_b: the case serving-fp16 is declared twice: in test_a, too",
        ),
        (
            {"test_a": TEST + DECLARES, "test_b": TEST + DECLARES.replace("steps=4", "steps=5")},
            {},
            "test_b: another workload is called 'serving', in test_a",
        ),
        (
            {"test_it": TEST + WORKLOAD + 'measure(WORKLOAD, "fp61")'},
            {},
            "perf_tests/test_it.py, line 10: serving: no optimization is called 'fp61' (did you",
        ),
        (
            {"test_it": TEST + WORKLOAD + 'measure(WORKLOAD, suite="skip")'},
            {},
            "the suite 'skip' has the name of a mark that pytest knows; rename the suite, or",
        ),
        (
            {"test_it": TEST + WORKLOAD + 'measure(WORKLOAD, suite="guide")'},
            {"perf_suites": "gide"},
            "perf_suites: no case is in the suite 'gide' (did you mean guide?); known are guide",
        ),
        (
            {
                "test_it": TEST + DECLARES,
                "conftest": "import pytest\n@pytest.fixture\ndef perf_bench(): ...",
            },
            {},
            "diffusers-perf needs the fixture perf_bench of diffusers_perf (found: conftest); ",
        ),
        (
            {
                "test_it": "",
                "conftest": "def pytest_addoption(parser): parser.addoption('--model')",
            },
            {},
            "both diffusers-perf and another plugin or a conftest.py define the option --model: ",
        ),
    ],
)
def test_mistake_is_one_sentence(
    repository: Repository, files: dict[str, str], ini: dict[str, str], sentence: str
) -> None:
    repository.write(**files)
    assert repository.refusal(**ini).startswith(sentence)


WRONG = [
    (WORKLOAD.replace("4,", "0,"), 4, "serving: steps must be a positive integer (got 0)"),
    (WORKLOAD.replace("steps", "stepz"), 4, "Workload.__init__() got an unexpected keyword "),
    (WORKLOAD + "measure(WORKLOAD, siute='a')", 10, "measure() got an unexpected keyword argument"),
    (
        "from diffusers_perf import optimization" + OWN.replace('"""Nothing."""', "pass"),
        3,
        "own has no docstring, whose first line a report",
    ),
    ("from diffusers_perf import stack\nstack('one')", 3, "stack() missing 1 required positional "),
    ("from helpers import made\nmade(0)", 3, "serving: steps must be a positive integer (got 0)"),
]
"""What follows the line of `TEST`, the line that is at fault, and what it is refused with."""
MADE = """
def made(steps):
    return Workload(name="serving", model="embedded", call={}, steps=steps)
"""


@pytest.mark.parametrize(("text", "line", "says"), WRONG)
def test_declaration_that_cannot_be_evaluated_is_put_down_to_its_line(
    repository: Repository, text: str, line: int, says: str
) -> None:
    helpers = "from diffusers_perf import Workload" + MADE
    repository.write(helpers=helpers, test_it=TEST + text)
    sentence = f"perf_tests/test_it.py, line {line}: {says}"
    result = repository.collect()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    heading, file, said, *_ = [line for line in result.outlines if line.strip()]
    assert ("ERRORS" in heading, "perf_tests/test_it.py" in file) == (True, True)
    assert said.startswith(sentence)
    with pytest.raises(Refusal, match=f"^{re.escape(sentence)}"):
        find_project()
    repository.collect("--full-trace").stdout.fnmatch_lines(["E *Error: *"])


@pytest.mark.parametrize("folder", ["", "below"])
def test_conftest_that_cannot_be_imported_is_put_down_to_its_line(
    repository: Repository, folder: str
) -> None:
    """pytest reads one of them before it collects, and the other as it does."""
    (repository.folder / folder).mkdir(exist_ok=True)
    conftest = repository.folder / folder / "conftest.py"
    conftest.write_text(WORKLOAD.replace("4,", "0,"))
    place = re.escape(str(conftest.relative_to(repository.pytester.path)))
    with pytest.raises(Refusal, match=f"^{place}, line 3: serving: steps must be a positive "):
        find_project()


def test_first_of_two_broken_files_is_named(repository: Repository) -> None:
    repository.write(test_a=TEST + "measure(1", test_b=TEST + "measure(1")
    with pytest.raises(Refusal, match=r"^perf_tests/test_a\.py, line 2: '\(' was never closed$"):
        find_project()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("import ast\nast.literal_eval('1 +')", 3, "invalid syntax (<unknown>, line 1)"),
        ("raise SyntaxError('of mine')", 2, "of mine"),
    ],
)
def test_syntax_error_of_a_text_is_put_down_to_the_line_that_parses_it(
    repository: Repository, text: str, line: int, says: str
) -> None:
    repository.write(test_it=TEST + text)
    said = re.escape(f"perf_tests/test_it.py, line {line}: SyntaxError: {says}")
    with pytest.raises(Refusal, match=f"^{said}$"):
        find_project()


def test_suites_are_named_where_m_selects_none_of_them(repository: Repository) -> None:
    """`pytest --markers`, which pytest advises, collects no test and knows no suite."""
    repository.write(test_it=TEST + WORKLOAD + 'measure(WORKLOAD, "fp16", suite="guide")')
    said = repository.refusal("--strict-markers", "-m", "gide")
    assert "gide" in said
    assert said.endswith(" The suites are guide.")
    repository.collect("-m", "gide").stdout.fnmatch_lines(["The suites are guide."])
    assert "suites" not in repository.refusal("-m", "guide", "-k", "a and (")


def test_what_ships_is_listed_beside_a_broken_declaration(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sentence sends its reader here."""
    own = "from diffusers_perf import optimization, stack\n" + OWN + 'stack("both", "fp16+own")'
    repository.write(ours=own)
    repository.pytester.makeini("[pytest]\ntestpaths = perf_tests\nperf_declarations = ours\n")
    assert command.main(["explore", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in listed[-2:]] == [
        ["own", "Nothing."],
        ["both", "fp16+own"],
    ]
    repository.write(test_broken=TEST + WORKLOAD + 'measure(WORKLOAD, "fp61")')
    assert command.main(["explore", "--list"]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == listed[:-2]
    assert "(did you mean fp16?); diffusers-perf explore --list lists all" in said.err


def test_declarations_of_a_helper_are_not_lost(repository: Repository) -> None:
    repository.write(
        helpers=DECLARES.replace("serving", "other"), test_it="import helpers\n" + TEST + DECLARES
    )
    assert repository.refusal().startswith("helpers declares cases, but no test runs them: name it")


def test_other_tests_are_unaffected(repository: Repository) -> None:
    repository.write(
        test_theirs="""
import pytest

@pytest.fixture(params=["a", "b"])
def case(request): return request.param

@pytest.fixture
def reference(case): return case

@pytest.fixture
def bench(reference): return reference

@pytest.fixture
def suite(bench): return bench

def test_generation(suite, case): assert suite == case

@pytest.mark.parametrize("case", ["c"])
def test_it(case): assert case == "c"
""",
    )
    result = run_pytest(repository.pytester, "--strict-markers")
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*perf_tests: *")


def test_commands_find_what_pytest_collects(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(
        ours=WORKLOAD + OWN,
        test_own=TEST + WORKLOAD + 'measure(WORKLOAD, "fp16+own")',
        test_theirs="raise RuntimeError('not imported: it does not name the library')",
    )
    repository.pytester.makeini("[pytest]\ntestpaths = perf_tests\nperf_declarations = ours\n")
    found: Any = find_project()
    assert [case.id for case in found.cases] == ["serving-reference", "serving-fp16+own"]
    assert "own" in found.catalog_of(found.cases[0].workload).optimizations


@pytest.mark.parametrize("testpaths", ["", "testpaths = perf_*"])
@pytest.mark.parametrize("folder", [".", "perf_tests", "runs/a[1]"])
def test_commands_find_the_same_in_every_folder_of_the_repository(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, testpaths: str, folder: str
) -> None:
    repository.write(test_own=TEST + WORKLOAD + "measure(WORKLOAD)")
    repository.pytester.makeini(f"[pytest]\n{testpaths}\n")
    where = repository.pytester.path / folder
    where.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(where)
    assert [case.id for case in find_project().cases] == ["serving-reference"]


def test_repository_may_lie_in_a_folder_with_brackets_in_its_name(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository.pytester.mkdir("a[1]")
    (root / "test_own.py").write_text(TEST + WORKLOAD + "measure(WORKLOAD)")
    monkeypatch.chdir(root)
    assert repository.ids("--rootdir=.") == ["test_own[serving-reference]"]
    (root / "pytest.ini").write_text("[pytest]\n")
    assert [case.id for case in find_project().cases] == ["serving-reference"]


def test_commands_name_a_test_file_that_cannot_be_imported(repository: Repository) -> None:
    repository.write(test_own="import diffusers_perf\nimport no_such_module\n")
    said = r"^perf_tests/test_own\.py, line 2: ModuleNotFoundError: .*no_such_module"
    with pytest.raises(Refusal, match=said):
        find_project()
    assert Path.cwd() == repository.pytester.path


def test_checkouts_of_ab_are_passed_over(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold the same tests; without `testpaths` pytest would import these twice."""
    text = TEST + WORKLOAD + "measure(WORKLOAD)"
    repository.write(test_it=text)
    repository.pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    out = repository.pytester.path / "runs" / "ab"
    (out / "base" / "perf_tests").mkdir(parents=True)
    (out / "base" / "perf_tests" / "test_it.py").write_text(text)
    (out / "base" / ".git").write_text("gitdir: elsewhere")
    assert repository.collect().ret != 0
    (out / "lock").touch()
    assert repository.ids() == ["test_it[serving-reference]"]
    monkeypatch.chdir(repository.pytester.path)
    assert [case.workload.name for case in find_project().cases] == ["serving"]
    # `ab` runs them there.
    monkeypatch.chdir(out / "base")
    monkeypatch.delitem(sys.modules, "test_it")
    assert repository.ids("--rootdir=.", "perf_tests") == ["test_it[serving-reference]"]


def test_commands_find_a_users_module_where_pytest_does(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository.pytester.path
    (root / "acme").mkdir()
    repository.write(test_acme=TEST + WORKLOAD + "measure(WORKLOAD)")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(root)
    find_project()
    assert str(root) not in sys.path
    repository.pytester.makeini("[pytest]\npythonpath = .\ntestpaths = perf_tests\n")
    find_project()
    assert str(root) in sys.path
