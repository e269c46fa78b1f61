"""A builder of the user's own, of another family, measured by what the wheel installs."""

from __future__ import annotations

from pathlib import Path

from perf_tests.tests import installed

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
measure(SERVING, "fused_qkv", "naive_attention", suite="serving")
"""


def test_builder_of_another_family_in_a_users_repository(tmp_path: Path) -> None:
    (tmp_path / "wheel").mkdir()
    environment = installed.environment(
        installed.built_wheel(tmp_path / "wheel"), tmp_path / "environment"
    )
    repository = installed.Repository(tmp_path / "repository", environment)
    (repository.folder / "acme").mkdir()
    (repository.folder / "acme" / "pipelines.py").write_text(BUILDER)
    repository.write("test_serving.py", FLUX)
    done = repository.pytest("--quick", "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 1 skipped" in done.stdout
    assert "naive_attention does not fit FluxPipeline: the attention of its" in done.stdout
    broken = repository.pytest(
        "--quick", "-p", "diffusers_perf.faults.plugin", "--inject=stale_output", "-k=reference"
    )
    assert broken.returncode == 1, broken.stdout + broken.stderr
