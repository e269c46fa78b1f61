"""What a user gets from the wheel: an empty folder, a test file, and the life of its baseline."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from perf_tests.tests import installed
from perf_tests.tests.installed import Repository, calm

TEST_FILE = """
from diffusers_perf import Workload, measure
from diffusers_perf import test_generation as test_generation

{name} = Workload(
    name="{name}",
    model="embedded",
    call={{"prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 7.5}},
    steps=6,
    scheduler="DDIMScheduler",
)

measure({name}, "channels_last", suite="serving")
"""

UNRELATED = """
import pytest

@pytest.fixture(params=["a", "b"])
def case(request):
    return request.param

@pytest.fixture
def suite(case):
    return case * 2

def test_unrelated(case, suite):
    assert suite == case * 2
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    return installed.built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel."""
    return installed.environment(wheel, tmp_path_factory.mktemp("environment"))


@pytest.fixture
def repository(environment: Path, tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository", environment)


def test_wheel_holds_the_library_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names}
    assert {p for p in packages if not p.endswith(".dist-info")} == {"diffusers_perf"}
    for needed in (
        "py.typed",
        "models/embedded/unet/diffusion_pytorch_model.safetensors",
        "models/clip_bpe/LICENSE",
        "models/embedded/tokenizer/tokenizer.json",
        "models/embedded_flux/transformer/diffusion_pytorch_model.safetensors",
    ):
        assert f"diffusers_perf/{needed}" in names
    assert any(name.endswith(".html") for name in names)
    assert not [name for name in names if "/tests/" in name or "/training/" in name]


def test_life_of_a_baseline_in_a_users_repository(repository: Repository) -> None:
    repository.write("test_serving.py", TEST_FILE.format(name="serving"))
    # As few as can be accepted.
    first = repository.pytest("--rounds=3", "--benchmark-json=runs/1.json")
    assert first.returncode == 0, first.stdout + first.stderr
    # A busy machine can make one of the two cases invalid.
    assert " new" in first.stdout
    calm(repository.folder / "runs/1.json")
    accepted = repository.run(
        "diffusers-perf", "accept", "runs/1.json", "--processes=1", "--reason=first"
    )
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert (repository.folder / "baselines" / "HISTORY.md").is_file()
    again = repository.pytest("--benchmark-json=runs/2.json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert repository.run("diffusers-perf", "gate", "runs/2.json").returncode in (0, 2)
    broken = repository.pytest(
        "-p", "diffusers_perf.faults.plugin", "--inject=black", "-k=reference"
    )
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "black: serving-reference" in broken.stdout


def test_each_test_file_runs_its_own_cases(repository: Repository) -> None:
    repository.write("test_one.py", TEST_FILE.format(name="one"))
    repository.write("test_two.py", TEST_FILE.format(name="two"))
    repository.write("test_unrelated.py", UNRELATED)
    fixed = subprocess.run(
        ["ruff", "check", "--fix", "--isolated", "--select=F,I", repository.folder],
        capture_output=True,
        text=True,
    )
    assert fixed.returncode == 0, fixed.stdout
    # In the other order, `unit/test_repository.py`.
    files = ("perf_tests/test_two.py", "perf_tests/test_one.py")
    listed = repository.run("python", "-m", "pytest", "--collect-only", "-q", *files)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    for name in ("one", "two"):
        mine = [line for line in listed.stdout.splitlines() if f"test_{name}.py" in line]
        assert [line.partition("[")[2].rstrip("]") for line in mine] == [
            f"{name}-reference",
            f"{name}-channels_last",
        ]
    unrelated = repository.run("python", "-m", "pytest", "-q", "perf_tests/test_unrelated.py")
    assert unrelated.returncode == 0, unrelated.stdout + unrelated.stderr
    assert "2 passed" in unrelated.stdout


def test_plugin_imports_no_torch_in_an_unrelated_repository(repository: Repository) -> None:
    repository.write(
        "test_unrelated.py",
        "def test_it():\n    import sys\n    assert 'torch' not in sys.modules\n",
    )
    done = repository.run("python", "-m", "pytest", "-q", "perf_tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_clash_of_options_is_one_sentence(repository: Repository) -> None:
    repository.write(
        "conftest.py", "def pytest_addoption(parser):\n    parser.addoption('--device')\n"
    )
    repository.write("test_unrelated.py", "def test_it():\n    pass\n")
    done = repository.run("python", "-m", "pytest", "-q", "perf_tests")
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, said
    assert "Traceback" not in said
    assert "--device" in said
