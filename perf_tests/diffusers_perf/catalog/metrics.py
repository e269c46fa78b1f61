"""What is judged: one table, which the judge, the comparison, the limits, the tables and the faults
read. A metric that is a number of a `Measurement` needs a row here and a place that measures it.
"""

from __future__ import annotations

from functools import partial

from diffusers_perf.catalog.metric import Detector, LimitRule, Metric, MetricKind, Subject, Unit
from diffusers_perf.catalog.status import Status


def _counter(name: str, about: str, *, rise: float = 0.0) -> Metric:
    return Metric(
        name=name,
        field=name,
        unit=Unit.COUNT,
        kind=MetricKind.COUNTER,
        worse=Status.MORE_WORK,
        detector="counter",
        about=about,
        rise=rise,
    )


def _rule(name: str, kind: MetricKind, worse: Status, detector: Detector, about: str) -> Metric:
    """A metric whose rule is its own: see `judge`."""
    unit = Unit.DECIBEL if kind is MetricKind.IMAGE else Unit.SECONDS
    return Metric(
        name=name, field="", unit=unit, kind=kind, worse=worse, detector=detector, about=about
    )


def _stage(name: str, about: str) -> Metric:
    return Metric(
        name=f"{name} stage",
        field=f"{name.replace(' ', '_')}_stage_s",
        unit=Unit.SECONDS,
        kind=MetricKind.TIME,
        worse=Status.SLOWER,
        detector="host time",
        about=f"{about}: host time, the least of several short generations",
        wall_clock=True,
        margin=0.02,
        limit=LimitRule(slack=0.50),
    )


def _start(name: str, field: str, about: str, *, reference_only: bool = False) -> Metric:
    return Metric(
        name=name,
        field=field,
        unit=Unit.SECONDS,
        kind=MetricKind.TIME,
        worse=Status.SLOWER,
        detector="load",
        about=about,
        margin=1.0,
        optional=True,
        reference_only=reference_only,
        limit=LimitRule(slack=0.20),
    )


_time = partial(Metric, kind=MetricKind.TIME, worse=Status.SLOWER)
_memory = partial(
    Metric,
    unit=Unit.BYTES,
    kind=MetricKind.MEMORY,
    worse=Status.MORE_MEMORY,
    detector="memory",
)

IMAGE_DROP_DB = 3.0
"""Twice the squared error. The same seed gives the same image but for rounding, and what is farther
from its reference than rounding takes it (60 dB) is not moved by it: a drop like this is another
image."""
LAUNCH_RISE = 0.01
"""Launches, kernels, operators and Python calls may grow by this share."""

LATENCY = _time(
    name="latency",
    field="latency_s",
    unit=Unit.SECONDS,
    detector="latency",
    about="wall clock of one call, synchronized, end to end: the median of the timed rounds",
    samples="rounds_s",
    wall_clock=True,
    reference_only=True,
    threshold=0.03,
    limit=LimitRule(slack=0.10, noise_times=1, slack_of_few=0.50),
    column="latency",
)
LATENCY_SPEEDUP = _time(
    name="latency speedup",
    field="latency_speedup",
    unit=Unit.RATIO,
    detector="latency",
    about="the reference's latency over the case's, in the same run",
    more_is_better=True,
    samples="rounds_s",
    ratio_of="latency_s",
    wall_clock=True,
    limit=LimitRule(slack=0.10, noise_times=1, slack_of_few=0.50),
    portable="latency_speedup",
    column="speedup",
)
DEFAULT_CALL = _time(
    name="default call",
    field="default_call_s",
    unit=Unit.SECONDS,
    detector="latency",
    about="the shortest call as users make it, with the pipeline's own output type (PIL images)",
    wall_clock=True,
    # One call of few steps: a conversion that takes half a second is several times as much.
    threshold=0.50,
    limit=LimitRule(slack=0.50, noise_times=3),
)
GPU_BUSY = _time(
    name="GPU busy",
    field="gpu_busy_s",
    unit=Unit.SECONDS,
    detector="GPU busy",
    about="union of the intervals of kernels and of copies within the GPU, of one untimed call",
    threshold=0.015,
    limit=LimitRule(anchor="median", slack=0.02, noise_times=3, calibrated=True),
    improves=1.03,
    column="GPU busy",
)
GPU_SPEEDUP = _time(
    name="GPU busy speedup",
    field="gpu_speedup",
    unit=Unit.RATIO,
    detector="GPU busy",
    about="the reference's GPU busy time over the case's, in the same run",
    more_is_better=True,
    ratio_of="gpu_busy_s",
    limit=LimitRule(slack=0.03),
    portable="gpu_speedup",
    column="GPU speedup",
)
PEAK_MEMORY = _memory(
    name="peak memory",
    field="peak_memory_bytes",
    about="the most GPU memory that tensors and CUDA graphs held during the timed rounds",
    threshold=0.02,
    limit=LimitRule(slack=0.02),
    portable="memory_gib",
    column="memory",
)
PEAK_HOST_MEMORY = _memory(
    name="peak host memory",
    field="peak_host_memory_bytes",
    about="the most memory that the process held during the timed rounds, where it has no GPU",
    # Processes of one commit differed by up to 2.4 %, libraries included.
    threshold=0.05,
    limit=LimitRule(slack=0.10, noise_times=1),
    column="memory",
)
LOAD_MEMORY = _memory(
    name="load memory",
    field="load_memory_bytes",
    about="the most GPU memory while the pipeline was loaded and changed, before its first image",
    threshold=0.02,
    limit=LimitRule(slack=0.02),
    portable="load_memory_gib",
)
MEMORY_RATIO = Metric(
    name="memory ratio",
    field="memory_ratio",
    unit=Unit.RATIO,
    kind=MetricKind.MEMORY,
    worse=Status.MORE_MEMORY,
    detector="memory",
    about="the case's peak memory over the reference's, in the same run",
    ratio_of="peak_memory_bytes",
    portable="memory_ratio",
)
KEPT_BYTES = _memory(
    name="kept bytes",
    field="kept_bytes",
    about="tensors that one generation leaves behind",
    # A few numbers, and no image.
    most=4096,
)
HOST_GROWTH = _memory(
    name="host growth",
    field="host_growth_bytes",
    about="host memory that each further generation adds, of new prompts and seeds",
    # What Python and the libraries remember of a prompt was up to 3.1 KB. An image of 64 by 64
    # pixels has 12 KB at least.
    most=8192,
)
GPU_GROWTH = _memory(
    name="GPU growth",
    field="gpu_growth_bytes",
    about="GPU memory that each further generation adds, of new prompts and seeds",
    most=4096,
)
TEXT_STAGE = _stage("text", "from the call to the first denoiser: tokenizer and text encoder")
DENOISING_STAGE = _stage("denoising", "from the first denoiser to the end of the last step")
DECODER_STAGE = _stage("decoder", "from the end of the last step to the images")
IMPORT = _start(
    "import time",
    "import_s",
    "until pytest, plugins, libraries and declarations are imported, from cached bytecode",
    reference_only=True,
)
COLD_IMPORT = _start(
    "cold import time",
    "cold_import_s",
    "the same, read from the disk",
    reference_only=True,
)
IMPORT_IDLE = _start(
    "import idle time",
    "import_idle_s",
    "of the import time, what the process slept or waited for disk, network or other processes",
    reference_only=True,
)
LOAD = _start("load time", "load_s", "loading a pipeline whose weights the process loaded before")
COLD_LOAD = _start("cold load time", "cold_load_s", "loading it for the first time, or from disk")
FIRST_IMAGE = _start(
    "first image time",
    "first_image_s",
    "load, and how much longer the first image takes than any later one; caches are warm",
)
COLD_FIRST_IMAGE = _start(
    "cold first image time",
    "cold_first_image_s",
    "the same where the load was cold or torch.compile's cache was",
)
HOST_SYNCS = _counter("host_syncs", "points where the host waits for the GPU")
DEVICE_TO_HOST_COPIES = _counter("device_to_host_copies", "copies from the GPU")
HOST_TO_DEVICE_COPIES = _counter("host_to_device_copies", "copies to the GPU")
DEVICE_READS = _counter(
    "device_reads", "values that the code reads from a tensor (`.item()`, `bool`)"
)
GRAPH_BREAKS = _counter("graph_breaks", "graph breaks of torch.compile")
RECOMPILES = _counter("recompiles", "recompilations during the timed rounds")
CASTS = _counter("casts", "conversions between dtypes")
LAYOUT_CONVERSIONS = _counter("layout_conversions", "conversions between memory layouts")
FULL_PRECISION_OPERATORS = _counter(
    "full_precision_operators", "convolutions, products and attention in float32"
)
UNFUSED_ATTENTION = _counter(
    "unfused_attention", "attention calls that write out their score matrix"
)
MASKED_ATTENTION = _counter(
    "masked_attention", "attention calls with a mask, which flash kernels do not take"
)
DENOISER_SAMPLES = _counter(
    "denoiser_samples", "samples that denoisers are called with: twice as many under guidance"
)
# Not the launches of graphs: one more stands for many kernels, whose launches there are fewer
# of.
KERNELS = _counter("kernels", "kernels that ran on the GPU", rise=LAUNCH_RISE)
KERNEL_LAUNCHES = _counter("kernel_launches", "kernels that the host launched", rise=LAUNCH_RISE)
OPERATORS = _counter("operators", "PyTorch operators that the code calls", rise=LAUNCH_RISE)
PYTHON_CALLS = _counter(
    "python_calls",
    "Python functions that the generating thread calls, without AOTAutograd's around graphs and "
    "Dynamo's around new modules",
    rise=LAUNCH_RISE,
)
IMAGE_PSNR = Metric(
    name="image PSNR",
    field="image_psnr_db",
    unit=Unit.DECIBEL,
    kind=MetricKind.IMAGE,
    worse=Status.WORSE_IMAGE,
    detector="image",
    about="the image's PSNR to the one that it is compared with, beside its tolerance",
    more_is_better=True,
    optional=True,
    limit=LimitRule(drop=IMAGE_DROP_DB, enough=60.0),
)
IMAGE = _rule("image", MetricKind.IMAGE, Status.BLACK, "image", "finite, not black, not uniform")
REPEAT = _rule(
    "repeat",
    MetricKind.IMAGE,
    Status.WORSE_IMAGE,
    "image",
    "the last round's image is the first's, computed anew; another seed or prompt changes it",
)
IMAGE_DISTANCE = _rule(
    "image distance",
    MetricKind.IMAGE,
    Status.WORSE_IMAGE,
    "image",
    "PSNR and SSIM to the reference's image, or its own to an accepted one; steps and blocks too",
)
TORCH_FLAGS = _rule(
    "torch flags",
    MetricKind.MEASURING,
    Status.MORE_WORK,
    "counter",
    "torch's global flags: deterministic algorithms, TF32, gradients and others are as accepted",
)
WARM_UP = _rule(
    "warm-up", MetricKind.MEASURING, Status.INVALID, "measuring", "the first round was warm"
)
TIMER = _rule(
    "timer", MetricKind.MEASURING, Status.INVALID, "measuring", "the timer waits for the GPU"
)
ROOFLINE = _rule(
    "roofline",
    MetricKind.MEASURING,
    Status.ERROR,
    "measuring",
    "no round is shorter than its arithmetic and memory traffic take",
)
APPLIED_CHECK = _rule(
    "applied check",
    MetricKind.MEASURING,
    Status.NOT_APPLIED,
    "applied check",
    "every optimization took effect",
)

METRICS = tuple(row for row in [*globals().values()] if isinstance(row, Metric))
"""Every row above, in this order."""

BY_NAME = {metric.name: metric for metric in METRICS}
COUNTERS = {metric.field: metric for metric in METRICS if metric.kind is MetricKind.COUNTER}
"""The judged counters, by name. All others explain a number and are not limited."""
COMPARED = tuple(metric for metric in METRICS if metric.threshold)
"""What base and head are compared by, beside counters and images."""
LEFT = {metric.field: metric for metric in METRICS if metric.most}
"""What generations leave behind, by its name among `Measurement.counters`."""
BY_THE_CLOCK: tuple[Detector, ...] = ("latency", "host time", "load")
"""Detectors that a machine which became slower under way alarms as well."""
BY_LEAST = tuple(metric for metric in METRICS if metric.margin)
"""What base and head are compared by as well, with the least of each."""
SHORTEST = (DEFAULT_CALL, DENOISING_STAGE)
"""Metrics of the shortest generation that a pipeline makes, in proportion to its steps."""
LIMITED = tuple(metric for metric in METRICS if metric.limit is not None)
"""What a machine's baseline limits, beside counters."""
STRICT = frozenset(name for name, metric in COUNTERS.items() if not metric.rise)
"""Counters of which one more is a regression."""
PORTABLE = {metric.portable: metric for metric in METRICS if metric.portable}
"""By its name in `portable.json`."""


def detector_of(name: str) -> Detector | None:
    """What detects a fault of which a finding on this is the worst; None where nothing does.

    `ValueError` for what is neither a metric nor a `Subject`.
    """
    metric = BY_NAME.get(name)
    return metric.detector if metric else Subject(name).detector


COLUMNS = tuple(dict.fromkeys(metric.column for metric in METRICS if metric.column))
"""Headings of the metrics in a table of cases."""


def cells(measured: object, reference: object) -> dict[str, str]:
    """By heading, a case's metrics as a table shows them; empty where nothing was measured."""
    found = dict.fromkeys(COLUMNS, "")
    for metric in METRICS:
        value = metric.of(measured, reference) if metric.column else None
        if value is not None:
            found[metric.column] = found[metric.column] or metric.unit.short(value)
    return found
