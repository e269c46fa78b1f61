"""A pipeline in diffusers' format: a local folder or a Hub id. Safetensors only, and no code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.catalog.declarations import WeightsKind
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.messages import models as messages
from diffusers_perf.models import identity
from diffusers_perf.models.complete import refuse_lacking
from diffusers_perf.records.files import read_text

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_FLUX = Path(__file__).parent / "embedded_flux"

PINNED_REVISIONS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "CompVis/stable-diffusion-v1-4": "133a221b8aa7292a167afc5127cb63fb5005638b",
    "nota-ai/bk-sdm-small": "572238db7ed3a10858900803f3fc8cca53e893e0",
    "madebyollin/taesd": "614f76814bbe30edbe2e627ace1c2234c81a2c0e",
}
"""The guide's own checkpoints, each at one commit, so that its numbers stay comparable."""

STABLE_DIFFUSION_1 = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "CompVis/stable-diffusion-v1-4",
)
HUB_VARIANTS = {
    "distilled_unet": ("nota-ai/bk-sdm-small", "unet"),
    "tiny_vae": ("madebyollin/taesd", None),
}
"""What stands in on the Hub for a module of Stable Diffusion 1.x: repository and folder in it."""

VARIANT_CLASSES = {"distilled_unet": "UNet2DConditionModel", "tiny_vae": "AutoencoderTiny"}

CONFIG_MOST_BYTES = 2**24

SMALL_BELOW_PIXELS = 256
"""A model whose own images are smaller than this runs the scaled-down workloads."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")
"""Without any of them a tokenizer loads all the same, with a vocabulary of two words."""


class Checkpoint:
    """A pipeline in diffusers' format, with its variants in folders beside its modules.

    diffusers resolves its class. A folder may hold `distilled_unet/` and `tiny_vae/`; Stable
    Diffusion 1.x from the Hub takes the guide's. `Refusal` if it is not a pipeline, names code
    that is not diffusers' or transformers', has only pickled weights, or is out of reach.
    """

    def __init__(
        self, model: str, *, kind: WeightsKind = "checkpoint", name: str | None = None
    ) -> None:
        """`name` stands in for the folder's own."""
        self._path = model
        self._local = os.path.isdir(model)  # noqa: PTH112 (Path.is_dir raises for long names)
        self._revision = PINNED_REVISIONS.get(model)
        self.kind: WeightsKind = kind
        self.name = name or (Path(model).resolve().name if self._local else model)
        self._index = self._config("model_index.json")
        self.family = self._class()
        components = list(self._components())
        if not components:
            raise Refusal(messages.no_component(model))
        if self._local:
            for name in components:
                try:
                    self._refuse_incomplete(name)
                except OSError as error:
                    raise Refusal(messages.unreadable(model, name, error.strerror)) from None
        self.weights = self._weights()
        # A transformer's configuration does not say how large its images are.
        is_small = kind == "embedded" or self._pixels() < SMALL_BELOW_PIXELS
        self.scale: Scale = "small" if is_small else "full"
        self.variants = self._find_variants()

    def load(
        self,
        *,
        scheduler: str | None,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
        offloaded: bool = False,
    ) -> Any:
        """See `Source.load`."""
        import diffusers
        import transformers

        failure = ""
        # Their loading bars would run through the terminal's own lines.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        # Its false positive is a black image.
        unsafe = {"safety_checker": None, "feature_extractor": None}
        if "safety_checker" in self._index:
            options: dict[str, Any] = {**unsafe, "requires_safety_checker": False}
        else:
            options = {}
        try:
            modules = {place: self._load_variant(name, dtype) for place, name in variants.items()}
            loaded = diffusers.DiffusionPipeline.from_pretrained(
                self._path,
                revision=self._revision,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                **options,
                **modules,
            )
            with_scheduler(loaded, scheduler)
            refuse_lacking(loaded, self._path, revision=self._revision)
        except (torch.OutOfMemoryError, MemoryError, Refusal):
            raise
        except Exception as error:
            # Three libraries read a checkpoint, and a broken one makes each raise what it likes.
            first_line = str(error).strip().partition("\n")[0]
            failure = f"{type(error).__name__}: {first_line}"
        if failure:
            raise Refusal(messages.cannot_load(self._path, failure))
        return loaded if offloaded else loaded.to(device)

    def _load_variant(self, name: str, dtype: torch.dtype) -> Any:
        import diffusers

        repository, folder = (self._path, name) if self._local else HUB_VARIANTS[name]
        return getattr(diffusers, VARIANT_CLASSES[name]).from_pretrained(
            repository,
            subfolder=folder,
            revision=PINNED_REVISIONS.get(repository),
            dtype=dtype,
            use_safetensors=True,
        )

    def _class(self) -> str:
        """The pipeline's class, which has to be one of diffusers'."""
        import diffusers

        name = self._index.get("_class_name")
        # Asked for by name, it would import all that the class is made of.
        if isinstance(name, str) and name in dir(diffusers):
            return name
        raise Refusal(messages.no_class(self._path, name))

    def _components(self) -> Iterator[str]:
        """Those that are there. `Refusal` for one whose code is neither library's."""
        from diffusers import pipelines

        for name, value in self._index.items():
            if name.startswith("_") or name == "safety_checker" or not isinstance(value, list):
                continue
            if len(value) != 2 or None in value:
                continue
            library = value[0]
            if library not in ("diffusers", "transformers", *dir(pipelines)):
                raise Refusal(messages.foreign_code(self._path, name, library))
            yield name

    def _refuse_incomplete(self, name: str) -> None:
        folder = Path(self._path) / name
        if name == "feature_extractor":
            return
        if not folder.is_dir() or not any(folder.iterdir()):
            raise Refusal(messages.lacks_component(self._path, name))
        if "tokenizer" in name and not any((folder / n).is_file() for n in VOCABULARIES):
            raise Refusal(messages.no_vocabulary(self._path, name, VOCABULARIES))
        if not (folder / "config.json").is_file() or any(folder.glob("*.safetensors")):
            return  # a scheduler or a tokenizer, whose configurations have other names
        if "tokenizer" in name or "processor" in name:
            return
        pickled = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.ckpt")))
        raise Refusal(messages.no_safetensors(self._path, name, next(iter(pickled), "")))

    def _weights(self) -> str:
        if self.kind == "embedded":
            return self.name
        if self._local:
            try:
                return identity.of_folder(Path(self._path))
            except OSError as error:
                raise Refusal(messages.unreadable(self._path, "weights", error.strerror)) from None
        # The Hub's cache has a folder for each commit, whose name identifies the weights.
        commit = self._revision or self._file("model_index.json").parent.name
        return f"{self._path}@{commit[:8]}"

    def _pixels(self) -> int:
        """Side of the images that it is made for, as far as its configuration says."""
        for name in ("unet", "transformer"):
            if name in self._index and "vae" in self._index:
                denoiser, vae = self._config(f"{name}/config.json"), self._config("vae/config.json")
                side, blocks = denoiser.get("sample_size"), vae.get("block_out_channels")
                if isinstance(side, int) and side < 1:
                    raise Refusal(messages.bad_sample_size(self._path, name, side))
                if isinstance(side, int) and isinstance(blocks, list) and blocks:
                    return side << len(blocks) - 1
        return SMALL_BELOW_PIXELS

    def _find_variants(self) -> frozenset[str]:
        if self._local:
            return frozenset(n for n in VARIANT_CLASSES if (Path(self._path) / n).is_dir())
        return frozenset(HUB_VARIANTS) if self._path in STABLE_DIFFUSION_1 else frozenset()

    def _config(self, name: str) -> dict[str, Any]:
        """A JSON file of the checkpoint."""
        try:
            config: dict[str, Any] = json.loads(read_text(self._file(name), most=CONFIG_MOST_BYTES))
        except FileNotFoundError:
            raise Refusal(messages.lacks_file(self._path, name)) from None
        except (ValueError, RecursionError):
            raise Refusal(messages.not_json(self._path, name)) from None
        except OSError as error:
            raise Refusal(messages.unreadable(self._path, name, error.strerror)) from None
        if not isinstance(config, dict):
            raise Refusal(messages.not_an_object(self._path, name))
        return config

    def _file(self, name: str) -> Path:
        if self._local:
            return Path(self._path) / name
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

        try:
            return Path(hf_hub_download(self._path, name, revision=self._revision))
        except EntryNotFoundError as error:
            # LocalEntryNotFoundError is one too: offline and not in the cache.
            if "Local" in type(error).__name__:
                raise Refusal(messages.out_of_reach(self._path)) from None
            raise FileNotFoundError(name) from None
        except (HfHubHTTPError, HFValidationError, OSError):
            raise Refusal(messages.out_of_reach(self._path)) from None


def with_scheduler(pipeline: Any, name: str | None) -> None:
    """Put a scheduler of diffusers in the place of the pipeline's own, with its configuration.

    `Refusal` if diffusers has none of that name, or the pipeline's own has no configuration.
    """
    if name is None:
        return
    chosen = scheduler_class(name)
    own: Any = getattr(pipeline, "scheduler", None)
    if not isinstance(getattr(own, "config", None), Mapping):
        what = "" if own is None else type(own).__name__
        raise Refusal(messages.no_scheduler_config(name, type(pipeline).__name__, what))
    # Stable Diffusion's PNDM begins without Runge-Kutta's steps; another scheduler's file does not
    # say so, and others ignore it.
    pipeline.scheduler = chosen.from_config(own.config, skip_prk_steps=True)


def scheduler_class(name: str) -> Any:
    """diffusers' class of this name. `Refusal` if it has none."""
    import diffusers

    # Asked for by name, it would import all that the class is made of.
    if not name.endswith("Scheduler") or name not in dir(diffusers):
        raise Refusal(messages.no_scheduler(name))
    return getattr(diffusers, name)
