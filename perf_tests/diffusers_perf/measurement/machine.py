"""Which machine this is and which versions run on it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch
from msgspec import structs

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.run import Machine


def this_machine(device: str | None) -> Machine:
    """Describe this machine; without a device named, CUDA where there is a GPU.

    `Refusal` for ``cuda`` where torch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise Refusal(messages.no_gpu(torch.version.cuda))
    on_gpu = torch.cuda.is_available() if device is None else device == "cuda"
    properties = torch.cuda.get_device_properties(0) if on_gpu else None
    return Machine(
        device="cuda" if on_gpu else "cpu",
        name=properties.name if properties else cpu_name(),
        compute_capability=(properties.major, properties.minor) if properties else None,
        memory_bytes=properties.total_memory if properties else None,
        driver=driver_version() if on_gpu else None,
        cuda=torch.version.cuda if on_gpu else None,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        diffusers=metadata.version("diffusers"),
        transformers=metadata.version("transformers"),
        gpu_uuid=str(properties.uuid) if properties else None,
        cpu=cpu_model(),
    )


def with_threads_for(machine: Machine, scale: Scale) -> Machine:
    """The machine with as many threads for PyTorch as a model of this scale can use on it.

    On a CPU a small one gets one: its images leave a second thread nothing to do but wait, and
    where others use the CPU as well, half precision took forty times as long with two.
    """
    if machine.device == "cuda" or scale == "full":
        return machine
    torch.set_num_threads(1)
    return structs.replace(machine, threads=1)


def cpu_name() -> str:
    """The CPU's model with the number of its cores that this process may use."""
    return f"{cpu_model()} ({cores()} cores)"


def cpu_model() -> str:
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open() as lines:
            models = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
            name = models[0].strip() if models else name
    except OSError:
        pass  # not Linux: the name above has to do
    return name


def cores() -> int:
    """How many CPU cores this process may use."""
    # Not on every system.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def driver_version() -> str | None:
    """The NVIDIA driver's version, where NVML is there to ask."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
