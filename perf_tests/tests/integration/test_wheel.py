"""What a user gets from the wheel: an empty folder, a test file, and the life of its baseline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHIPPED = ("pyproject.toml", "LICENSE", "README.md", "perf_tests")

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

BUILDER = """
from pathlib import Path

import diffusers_perf
from diffusers import FluxPipeline


def build(*, dtype, device):
    folder = Path(diffusers_perf.__file__).parent / "models" / "embedded_flux"
    return FluxPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
"""

FLUX = """
from diffusers_perf import Workload, measure
from diffusers_perf import test_generation as test_generation

SERVING = Workload(
    name="serving",
    model="acme.pipelines:build",
    call={
        "prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 1.5,
        "max_sequence_length": 20,
    },
    steps=4,
    sensitive_to={"guidance": {"guidance_scale": 3.5}},
)
measure(SERVING, "fused_qkv", "channels_last", suite="serving")
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
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # From a copy: setuptools leaves its build folder in the source tree.
    files = subprocess.run(
        [
            "git",
            "-C",
            ROOT,
            "ls-files",
            "-z",
            "pyproject.toml",
            "LICENSE",
            "README.md",
            "perf_tests",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


class Repository:
    """A user's repository, with an environment into which the wheel is installed."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.environment = folder, environment
        (folder / "perf_tests").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        (self.folder / "perf_tests" / name).write_text(text)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment at the root of the repository."""
        return subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": "", "COLUMNS": "120"},
        )

    def calm(self, name: str) -> None:
        """Edit a run as if the machine had been quiet: tests share theirs with other work."""
        path = self.folder / name
        content = json.loads(path.read_text())
        for benchmark in content["benchmarks"]:
            record = benchmark["extra_info"]["diffusers_perf"]
            for part in (record["measurement"], record.get("reference") or {}):
                part.get("interference", {}).update(gpu=[], host=[])
        content["diffusers_perf"]["reference_drift"] = {}
        path.write_text(json.dumps(content))

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        main_job = ("--benchmark-only", "--device=cpu", "--rounds=3", "-p", "no:cacheprovider")
        return self.run("python", "-m", "pytest", "perf_tests", *main_job, *arguments)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; torch and the rest are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # All that this environment sees, without what is installed in it as editable.
    paths = {sysconfig.get_path("purelib"), *(p for p in sys.path if "site-packages" in p)}
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (site / "site-packages" / "others.pth").write_text("\n".join(sorted(paths)))
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--force-reinstall", str(wheel)], check=True, capture_output=True)
    return folder


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
    ):
        assert f"diffusers_perf/{needed}" in names
    assert any(name.endswith(".html") for name in names)
    assert not [name for name in names if "/tests/" in name or "/training/" in name]


def test_life_of_a_baseline_in_a_users_repository(repository: Repository) -> None:
    repository.write("test_serving.py", TEST_FILE.format(name="serving"))
    first = repository.pytest("--benchmark-json=runs/1.json")
    assert first.returncode == 0, first.stdout + first.stderr
    # A busy machine can make one of the two cases invalid.
    assert " new" in first.stdout
    repository.calm("runs/1.json")
    accepted = repository.run(
        "diffusers-perf", "accept", "runs/1.json", "--processes=1", "--reason=first"
    )
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert (repository.folder / "baselines" / "HISTORY.md").is_file()
    again = repository.pytest("--benchmark-json=runs/2.json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert repository.run("diffusers-perf", "gate", "runs/2.json").returncode in (0, 2)
    broken = repository.pytest("-p", "diffusers_perf.faults.plugin", "--inject=black")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "black: serving-reference" in broken.stdout


def test_builder_of_another_family_in_a_users_repository(repository: Repository) -> None:
    (repository.folder / "acme").mkdir()
    (repository.folder / "acme" / "pipelines.py").write_text(BUILDER)
    repository.write("test_serving.py", FLUX)
    done = repository.pytest("--quick", "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 1 skipped" in done.stdout
    assert "channels_last does not fit FluxPipeline: its transformer is a" in done.stdout
    broken = repository.pytest(
        "--quick", "-p", "diffusers_perf.faults.plugin", "--inject=stale_output", "-k=reference"
    )
    assert broken.returncode == 1, broken.stdout + broken.stderr


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
    for files in (["test_one.py", "test_two.py"], ["test_two.py", "test_one.py"]):
        listed = repository.run(
            "python", "-m", "pytest", "--collect-only", "-q", *(f"perf_tests/{f}" for f in files)
        )
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
