"""Why a model cannot be used."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from diffusers_perf.messages.common import meant

WOULD_WORK = (
    "a model is a folder that save_pretrained wrote, a Hub id (owner/name), or a function of "
    "yours that builds the pipeline (module:function)"
)
BUILD_IT = "build the pipeline in a function of yours, and name that: --model module:function"


def of(model: str, reason: object) -> str:
    return f"model {model}: {reason}"


def unknown(model: str, known: Collection[str]) -> str:
    shown = f"{model:.200}"
    return of(
        shown,
        f"no such folder{meant(shown, known)}, and the known names are {', '.join(known)}; "
        f"{WOULD_WORK}",
    )


# A function of the user's


def no_module(model: str, module: object) -> str:
    return of(
        model,
        f"no module is called {module} here; where it lies beside the tests, pytest's setting "
        "`pythonpath = .` finds it, or PYTHONPATH",
    )


def no_function(model: str, module: str, function: str) -> str:
    return of(model, f"{module} has no function {function}")


def no_pipeline(model: str, built: str) -> str:
    return f"model {model} gave a {built}: a pipeline has components and can be called"


def components_not_by_name(model: str, built: str, what: str) -> str:
    return (
        f"model {model} gave a {built} whose components are a {what}; they must be a dict of its "
        "modules by name, such as 'unet' or 'transformer'"
    )


# A checkpoint


def out_of_reach(model: str) -> str:
    return of(
        model,
        "no such folder, and the Hub does not serve such a checkpoint to this machine (offline, "
        f"gated, or misspelt); {WOULD_WORK}",
    )


def no_class(model: str, name: object) -> str:
    shown = f"is of a {name}, which diffusers does not have" if name else "names no class"
    return of(model, f"its model_index.json {shown}; {BUILD_IT}")


def no_component(model: str) -> str:
    return of(model, "its model_index.json names no component")


def foreign_code(model: str, component: str, library: str) -> str:
    return of(
        model,
        f"its {component} is code of {library}, and code that comes with a model is not run; "
        f"{BUILD_IT}",
    )


def cannot_load(model: str, reason: str) -> str:
    return f"model {model} cannot be loaded: {reason}"


def lacks_component(model: str, component: str) -> str:
    return of(model, f"it lacks {component}, which its model_index.json names; {WOULD_WORK}")


def lacks_file(model: str, file: str) -> str:
    return of(model, f"it lacks {file}; {WOULD_WORK}")


def lacks_tensors(model: str, component: str, lacking: Sequence[str], total: int) -> str:
    return of(
        model, f"its {component} lacks {len(lacking)} of {total} tensors (first {lacking[0]})"
    )


def no_vocabulary(model: str, component: str, files: Sequence[str]) -> str:
    return of(model, f"its {component} has no vocabulary ({', '.join(files)})")


def no_safetensors(model: str, component: str, pickled: str) -> str:
    """`pickled` is a file with weights that can run code; empty where there is none."""
    only = f", only pickled weights ({pickled}), which can run code" if pickled else ""
    return of(
        model,
        f"its {component} has no safetensors{only}; save it with "
        "save_pretrained(safe_serialization=True)",
    )


def unreadable(model: str, what: str, reason: object) -> str:
    return of(model, f"its {what}: {reason}")


def not_json(model: str, file: str) -> str:
    return of(model, f"its {file} is not valid JSON")


def not_an_object(model: str, file: str) -> str:
    return of(model, f"its {file} is not a JSON object")


def bad_sample_size(model: str, denoiser: str, size: int) -> str:
    return of(model, f"sample_size in its {denoiser}/config.json must be positive (got {size})")


def no_scheduler(name: str) -> str:
    return f"scheduler {name!r}: diffusers has no scheduler of that name"


def no_scheduler_config(name: str, pipeline: str, own_class: str) -> str:
    """`own_class`: of its scheduler; empty where it has none."""
    has = f"a {own_class} without one" if own_class else "no scheduler"
    return (
        f"scheduler {name!r} is made with the config of the pipeline's own scheduler, and "
        f"{pipeline} has {has}; leave the workload's scheduler out to measure the pipeline's own"
    )


# A model on seeded weights


def needs_gpu(model: str) -> str:
    return of(
        model,
        f"its weights are computed on a GPU; diffusers-perf structure --model={model} counts its "
        "operators without one",
    )


def other_parameters(place: str, kind: str, count: int, wanted: int) -> str:
    return f"{place}: {kind} has {count:,} parameters and should have {wanted:,}"


def no_rule(path: str, kind: str) -> str:
    return f"{path} is a {kind}, which has no rule to be drawn by"


STANDS_IN_FOR_T5 = "CLIP's first byte pair merges stand in for T5's vocabulary"
