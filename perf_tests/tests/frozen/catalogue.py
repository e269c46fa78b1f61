"""The edits that version 1 was asked about, in groups; `EDITS` has them all."""

from __future__ import annotations

from perf_tests.tests.frozen.edits import (
    Change,
    Edit,
    Target,
    both,
    count_scaled,
    counted,
    drift,
    first_round,
    generates,
    gone,
    latency,
    loops,
    lost,
    machine,
    one_shard,
    other_weights,
    picture,
    put,
    renamed,
    rounds,
    scaled,
    session,
    shorter_than_busy,
    validity,
)

BUSY_HOST = "the host waited for a CPU"
OTHERS = "2 other processes on the GPU"
THROTTLED = "hardware slowdown"

TIMES: dict[str, Change] = {
    **{f"latency x{by:g}": latency(by) for by in (0.5, 1.05, 1.12, 1.6, 3)},
    **{f"GPU busy x{by:g}": scaled("gpu_busy_s", by) for by in (0.9, 1.01, 1.03, 1.1)},
    "latency and GPU busy x1.05": both(latency(1.05), scaled("gpu_busy_s", 1.05)),
    **{f"peak memory x{by:g}": scaled("peak_memory_bytes", by) for by in (0.8, 1.01, 1.03)},
}
"""Of the case, and of the reference as well."""

WORK: dict[str, Change] = {
    "one more host sync per step": counted("host_syncs", per_step=1),
    "one more fixed host sync": counted("host_syncs", fixed=1),
    "one less host sync per step": counted("host_syncs", per_step=-1),
    "fixed host syncs pay for one per step": counted("host_syncs", fixed=-60, per_step=1),
    "one more device read per step": counted("device_reads", per_step=1),
    "one more fixed device read": counted("device_reads", fixed=1),
    "one more cast per step": counted("casts", per_step=1),
    "one more layout conversion per step": counted("layout_conversions", per_step=1),
    "one more copy to the device": counted("host_to_device_copies", fixed=1),
    "one more copy to the host": counted("device_to_host_copies", fixed=1),
    "one more full precision operator": counted("full_precision_operators", fixed=1),
    "one more unfused attention": counted("unfused_attention", fixed=1),
    "one recompile": counted("recompiles", fixed=1),
    "one graph break": counted("graph_breaks", fixed=1),
    "kernels +0.5 %": count_scaled("kernels", 1.005),
    "kernels +2 %": count_scaled("kernels", 1.02),
    "kernels -2 %": count_scaled("kernels", 0.98),
    "kernel launches +2 %": count_scaled("kernel_launches", 1.02),
    "Python calls +2 %": count_scaled("python_calls", 1.02),
    "operators +0.5 %": count_scaled("operators", 1.005),
    "operators +2 %": count_scaled("operators", 1.02),
    "operators -2 %": count_scaled("operators", 0.98),
    "more graph launches": counted("graph_launches", per_step=5),
    "4 kept KiB": counted("kept_bytes", fixed=4096),
    "a million kept bytes": counted("kept_bytes", fixed=10**6),
}

PICTURES: dict[str, Change] = {
    "not finite": picture(finite=False),
    "black": picture(mean=0.002, std=0.0, psnr_db=5.2, ssim=0.01),
    "flat": picture(mean=0.5, std=0.001, psnr_db=9.0, ssim=0.1),
    "another picture": picture(psnr_db=17.0, ssim=0.11),
    "PSNR below the promise": picture(psnr_db=22.0),
    "SSIM below the promise": picture(ssim=0.8),
    "PSNR a little lower": picture(psnr_db=41.0),
    "no distance": picture(psnr_db=None, ssim=None),
    "the repetition differs": picture(repeat_psnr_db=41.0),
    "seed ignored": picture(ignored=["seed"]),
    "prompt ignored": picture(ignored=["prompt"]),
}
"""Of the case, and of the reference as well."""

MEASURING: dict[str, Change] = {
    "first round slow": first_round(2.0),
    "first round a little slow": first_round(1.4),
    "timer too short": shorter_than_busy,
    "noisy rounds": rounds(0.4, 3.0, 1.5, 1.0, 4.0),
    "two rounds": rounds(1.0, 1.01),
    "GPU shared": validity(disturbed_by=[OTHERS]),
    "GPU shared, latency x3": both(validity(disturbed_by=[OTHERS]), latency(3)),
    "throttled, GPU busy x1.1": both(validity(disturbed_by=[THROTTLED]), scaled("gpu_busy_s", 1.1)),
    "busy host": validity(host_disturbed_by=[BUSY_HOST]),
    "busy host, latency x3": both(validity(host_disturbed_by=[BUSY_HOST]), latency(3)),
    "busy host, GPU busy x1.1": both(
        validity(host_disturbed_by=[BUSY_HOST]), scaled("gpu_busy_s", 1.1)
    ),
    "slow core": loops(0.016, 0.01),
    "slow core, latency x1.6": both(loops(0.016, 0.01), latency(1.6)),
    "slow core, latency x3": both(loops(0.016, 0.01), latency(3)),
    "a core as fast, latency x3": both(loops(0.0101, 0.01), latency(3)),
    "slow core beside the reference, latency x3": both(loops(0.01, 0.016), latency(3)),
    "reference drifted": drift(1.3, significant=True),
    "reference drifted, latency x1.6": both(drift(1.3, significant=True), latency(1.6)),
    "reference drifted far, latency x3": both(drift(4.0, significant=True), latency(3)),
    "reference drifted within its noise, latency x3": both(
        drift(4.0, significant=False), latency(3)
    ),
    "reference was slow at first, latency x3": both(drift(0.8, significant=True), latency(3)),
    "reference drifted after the case, latency x3": both(
        drift(4.0, significant=True), drift(1.0, significant=False, own=True), latency(3)
    ),
    "GPU busy unseen": put(gpu_busy_s=None, gpu_speedup=None, notes=["no trace"]),
    "peak memory unseen": put(peak_memory_bytes=None),
    "nothing counted": put(counters={}),
}

RUNS: dict[str, Change] = {
    "case ended early": gone(expected=True),
    "case no longer declared": gone(),
    "case not asked for": gone(not_asked=True),
    "others asked for by name": gone(narrowed=True),
    **{f"case lost: {s}": lost(s) for s in ("skipped", "error", "invalid", "not applied")},
    "case lost: skipped by choice": lost("skipped", by_choice=True),
    "one shard of two": one_shard,
    "a new case": renamed,
    "other weights": other_weights,
    "another GPU": machine(name="NVIDIA A100-SXM4-80GB"),
    "another torch": machine(torch="2.14.0"),
    "another driver": machine(driver="999.1"),
    "other guidance": generates("guidance", 5.0),
    "other steps": generates("steps", 25),
    "with --quick": session(quick=True),
    "without --quick": session(quick=False),
    "another stopwatch": session(measuring="ba9876543210"),
    "no promise": put(promise=None),
    "no promise, farther": both(put(promise=None), picture(psnr_db=12.0, ssim=0.2)),
    "a picture to look at alone": put(picture_only=True),
}


def _edits(to: Target, changes: dict[str, Change]) -> list[Edit]:
    return [
        Edit(name=f"reference: {name}" if to == "reference" else name, to=to, change=change)
        for name, change in changes.items()
    ]


REFERENCES = ("one more host sync per step", "one graph break", "one more device read per step")

EDITS: tuple[Edit, ...] = (
    *_edits("case", {**TIMES, **WORK, **PICTURES, **MEASURING}),
    *_edits("run", RUNS),
    *_edits("reference", {**TIMES, **PICTURES, **{name: WORK[name] for name in REFERENCES}}),
    *_edits("reference", {"GPU shared": MEASURING["GPU shared"], "lost: error": lost("error")}),
)
