"""What measuring a case says: why it cannot run or be measured, and notes on a measurement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from diffusers_perf.messages.common import first_line, meant
from diffusers_perf.messages.numbers import plural

# Calls


def unknown_argument(pipeline: str, argument: str, known: Collection[str]) -> str:
    return f"{pipeline} takes no argument {argument!r}{meant(argument, known)}"


def lacking_argument(pipeline: str, argument: str) -> str:
    return f"{pipeline} needs an argument {argument!r}, which the workload does not give"


def takes_no_steps(pipeline: str) -> str:
    return (
        f"{pipeline} takes no argument 'num_inference_steps', with which every workload asks for "
        "its steps"
    )


# What is missing here


def not_installed(package: str, python: str, what: str) -> str:
    return f"{package} is not installed: {python} -m pip install {what}"


def too_little_address_space(limit_gib: float, needed_gib: float) -> str:
    return (
        f"this process may use {limit_gib:.2f} GiB of addresses (ulimit -v), and torch needs "
        f"{needed_gib:.2f} GiB: raise the limit"
    )


def no_gpu(cuda: str | None) -> str:
    """`cuda` is the version that torch is built for, if it is."""
    built = f"it is built for CUDA {cuda}" if cuda else "it is built without CUDA"
    return (
        f"--device cuda: torch sees no CUDA GPU here ({built}); without --device the suite runs on "
        "the CPU"
    )


def needs_gpu(optimization: str, wanted: str, machine: str, here: str | None) -> str:
    """Compute capabilities; `here` is None without a GPU."""
    has = f"{machine} has {here}" if here else "this machine has none"
    return f"{optimization} needs a CUDA GPU of compute capability {wanted} or newer; {has}"


def needs_variant(optimization: str, variant: str, model: str) -> str:
    return f"{optimization} needs a {variant} that fits {model}"


def needs_package(optimization: str, package: str) -> str:
    return f"{optimization} needs the package {package}, which is not installed"


def does_not_fit(optimization: str, pipeline: str, reason: str) -> str:
    return f"{optimization} does not fit {pipeline}: {reason}"


# The pipeline


def not_discovered(pipeline: str) -> str:
    return f"this {pipeline} was not explored before it was used"


def no_steps(pipeline: str) -> str:
    return f"{pipeline} has no scheduler with a step to count"


def no_denoiser(pipeline: str, few: int, many: int) -> str:
    return (
        f"no component of {pipeline} is called more often in {many} steps than in {few}: a "
        "denoiser has to be an nn.Module among its components"
    )


def steps_unseen(pipeline: str) -> str:
    return (
        f"{pipeline} calls its denoiser, but never the step of its scheduler, with which a "
        "denoising step ends"
    )


def at_line(error: str, file: str, line: int) -> str:
    return f"{error} ({file}, line {line})"


def gives_sound(output: str) -> str:
    return f"the pipeline gave {output} with sound; only images and videos are measured"


def bad_images(output: str, shapes: Sequence[Sequence[int]]) -> str:
    """`shapes` of one array, or of several that do not fit together."""
    shown = " and ".join(str(tuple(shape)) for shape in shapes)
    held = (
        f"{'arrays' if len(shapes) > 1 else 'an array'} of shape {shown}" if shown else "no array"
    )
    return (
        f"the pipeline gave {output} with {held}, not images of shape (count, height, width, 3) in "
        "floating point or uint8; let its __call__ pass on output_type and return what has .images "
        "or .frames"
    )


def compiled_from_source(modules: int, *, is_lost: bool, is_forbidden: bool) -> str:
    """`is_lost` where their bytecode is not kept, `is_forbidden` where Python is asked not to."""
    said = f"this process compiled {plural(modules, 'module')} from source"
    if not is_lost:
        return f"{said}, as the first to import them"
    why = "PYTHONDONTWRITEBYTECODE or -B is set" if is_forbidden else "it cannot be written"
    return f"{said}, and no bytecode of them is kept ({why})"


def not_judged(times: Sequence[str], reason: str) -> str:
    """Times by their names."""
    return f"{' and '.join(times)} not judged: {reason}"


def import_of_another_process(reason: str) -> str:
    return f"import time is that of another process, which had bytecode: {reason}"


# Rounds and images

REPEATING = "repeating the reference"


def no_round(case: str) -> str:
    return f"{case}: no round was generated"


def image_not_saved(case: str, reason: str) -> str:
    return f"{case}: its image was not saved: {reason}"


def not_of_this_workload(path: Path, reason: object) -> str:
    why = str(reason).removeprefix(f"{path}: ")
    return (
        f"{path}: not an image of this workload ({why}); restore the file, or remove it and accept "
        "the image anew"
    )


def other_than_declared(shape: Sequence[int], declared: Sequence[int]) -> str:
    return f"its images have shape {tuple(shape)}, the workload's {tuple(declared)}"


def other_than_accepted(
    shape: Sequence[int], reduced: Sequence[int], accepted: Sequence[int], path: Path
) -> str:
    """`reduced`: of the thumbnails, which are what is compared."""
    is_smaller = tuple(reduced) != tuple(shape)
    small = f", reduced to {tuple(reduced)} to be compared," if is_smaller else ""
    return (
        f"the pipeline gave images of shape {tuple(shape)}{small} and the accepted image ({path}) "
        f"has shape {tuple(accepted)}"
    )


# Counting

SET_TWICE = "set in two ways"
"""Of a precision."""


def no_counters(reason: object) -> str:
    return f"no GPU busy time and no counters: {reason}"


def no_structure(reason: object) -> str:
    return f"no structural counters: {reason}"


OTHER_PROFILER = "another profiler of PyTorch is at work in this process"
NO_EVENTS = "torch.profiler recorded no GPU events: CUPTI is missing, or another profiler holds it"
AUTOCAST = "torch.autocast ignores tensors without data"
VALUE_UNKNOWN = "what it does next depends on a value read from data that are not there"
DATA_UNKNOWN = "what it does next depends on data that are not there"


def result_unknown(operator: str) -> str:
    return f"the result of {operator} depends on data that are not there"


def mixed_devices(operator: str) -> str:
    return f"{operator} mixes tensors of the host and of the device"


# Steps, compared with the reference's

NOT_RECORDED = "its reference's steps were not recorded"
REPLAYED = "its denoising is replayed without calling a denoiser"


def not_comparable(case: str, reason: object) -> str:
    return f"{case}: its steps cannot be compared: {reason}"


def other_calls(denoiser: str, calls: int, expected: int) -> str:
    return (
        f"its {denoiser} is called {plural(calls, 'time')}, the reference's "
        f"{plural(expected, 'time')}"
    )


def kept_elsewhere(pipeline: str, denoiser: str) -> str:
    return f"{pipeline} does not keep its {denoiser} in an attribute of that name"


NO_BLOCK_RECORDED = "no block of its reference is recorded"
UNEVEN_STEPS = "its steps differ from one another by design"
BLOCK_NOT_CALLED = "not called one by one: compiled or replayed as a whole, or left out"
OTHER_ARGUMENTS = "given other arguments than the reference's"
NOT_FINITE = "not finite in the reference"
TOO_LARGE = "not recorded: their inputs would take too much of the host's memory"


def blocks_not_compared(cases: Sequence[str], reason: str, *, some: bool) -> str:
    which = "some blocks are" if some else "blocks are"
    return f"{which} not compared one by one: {reason} ({', '.join(cases)})"


def block_failed(kind: str, error: object) -> str:
    return f"failed when called by itself ({kind}: {first_line(error)})"


def blocks_left_out(number: int, total: int, reason: str) -> str:
    return f"{number} of {total} blocks {reason}"


# Interference

SLOWDOWN = "hardware slowdown"
SOFTWARE_THERMAL = "software thermal slowdown"
HARDWARE_THERMAL = "hardware thermal slowdown"
POWER_BRAKE = "power brake"
CLOCKS = "clocks and other processes"
NO_NVML = "nvidia-ml-py is not installed"


def unknown(what: str, reason: str) -> str:
    return f"{what} unknown: {reason}"


def nvml_says(error: object) -> str:
    return f"NVML says {error}"


def clock_moved(low_mhz: int, high_mhz: int) -> str:
    return f"the SM clock moved between {low_mhz} and {high_mhz} MHz"


def waited_for_cpu(share: float) -> str:
    return f"the host waited for a CPU for {share:.0%} of the rounds"


def other_processes(number: int) -> str:
    return f"{plural(number, 'other process', 'other processes')} on the GPU"
