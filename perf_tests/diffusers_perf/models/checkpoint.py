"""Weights from a checkpoint in diffusers' format: a local folder or a Hub id. Safetensors only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Kind, Scale
from diffusers_perf.measurement.pipelines import BadModel
from diffusers_perf.records.files import read_text

EMBEDDED = Path(__file__).parent / "embedded"

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

PIPELINE = "StableDiffusionPipeline"

VARIANT_CLASSES = {"distilled_unet": "UNet2DConditionModel", "tiny_vae": "AutoencoderTiny"}

CONFIG_MOST_BYTES = 2**24

SMALL_BELOW_PIXELS = 256
"""A model whose own images are smaller than this runs the scaled-down workloads."""


class Checkpoint:
    """A checkpoint in diffusers' format, with its variants in folders beside its modules.

    A folder may hold `distilled_unet/` and `tiny_vae/`; Stable Diffusion 1.x from the Hub takes
    the guide's. `BadModel` if it is not a pipeline, has only pickled weights, or is out of reach.
    """

    def __init__(self, model: str, *, kind: Kind = "checkpoint") -> None:
        self._path = model
        self._local = os.path.isdir(model)  # noqa: PTH112 (Path.is_dir raises for long names)
        self._revision = PINNED_REVISIONS.get(model)
        self.kind: Kind = kind
        self.name = Path(model).resolve().name if self._local else model
        self.weights = self.name if self._revision is None else f"{model}@{self._revision[:8]}"
        index = self._config("model_index.json")
        self._refuse_what_is_incomplete(index)
        vae, unet = self._config("vae/config.json"), self._config("unet/config.json")
        try:
            pixels = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
        except (KeyError, TypeError, ValueError):
            raise BadModel(
                f"--model {model}: its unet/config.json and vae/config.json do not say what size "
                "of image it makes (sample_size, block_out_channels)"
            ) from None
        if pixels < 1:
            raise BadModel(
                f"--model {model}: sample_size in its unet/config.json must be positive "
                f"(got {unet['sample_size']})"
            )
        self.scale: Scale = "small" if pixels < SMALL_BELOW_PIXELS else "full"
        self.variants = self._find_variants()

    def load(
        self,
        *,
        scheduler: str | None,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Any:
        """See `Source.load`."""
        import diffusers
        import transformers

        failure = ""
        # Their loading bars would run through the terminal's own lines.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        try:
            modules = {place: self._load_variant(name, dtype) for place, name in variants.items()}
            loaded = diffusers.StableDiffusionPipeline.from_pretrained(
                self._path,
                revision=self._revision,
                torch_dtype=dtype,
                use_safetensors=True,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
                **modules,
            )
            if scheduler is not None:
                # Stable Diffusion's PNDM begins without Runge-Kutta's steps; another scheduler's
                # file does not say so, and others ignore it.
                loaded.scheduler = getattr(diffusers, scheduler).from_config(
                    loaded.scheduler.config, skip_prk_steps=True
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # Three libraries read a checkpoint, and a broken one makes each raise what it likes.
            failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if failure:
            raise BadModel(f"--model {self._path} cannot be loaded: {failure}")
        return loaded.to(device)

    def _load_variant(self, name: str, dtype: torch.dtype) -> Any:
        import diffusers

        repository, folder = (self._path, name) if self._local else HUB_VARIANTS[name]
        return getattr(diffusers, VARIANT_CLASSES[name]).from_pretrained(
            repository,
            subfolder=folder,
            revision=PINNED_REVISIONS.get(repository),
            torch_dtype=dtype,
            use_safetensors=True,
        )

    def _find_variants(self) -> frozenset[str]:
        if self._local:
            return frozenset(n for n in VARIANT_CLASSES if (Path(self._path) / n).is_dir())
        return frozenset(HUB_VARIANTS) if self._path in STABLE_DIFFUSION_1 else frozenset()

    def _config(self, name: str) -> dict[str, Any]:
        """A JSON file of the checkpoint."""
        try:
            config: dict[str, Any] = json.loads(read_text(self._file(name), most=CONFIG_MOST_BYTES))
        except FileNotFoundError:
            raise BadModel(
                f"--model {self._path}: no {name} in it, so it is not a Stable Diffusion pipeline "
                "in diffusers' format (the folder that save_pretrained writes)"
            ) from None
        except (ValueError, RecursionError):
            raise BadModel(f"--model {self._path}: its {name} is not valid JSON") from None
        except OSError as error:
            raise BadModel(f"--model {self._path}: its {name}: {error.strerror}") from None
        if not isinstance(config, dict):
            raise BadModel(f"--model {self._path}: its {name} is not a JSON object")
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
                raise BadModel(self._out_of_reach()) from None
            raise FileNotFoundError(name) from None
        except (HfHubHTTPError, HFValidationError, OSError):
            raise BadModel(self._out_of_reach()) from None

    def _out_of_reach(self) -> str:
        return (
            f"--model {self._path}: no folder of that name here, and the Hub does not serve such "
            "a checkpoint to this machine (offline, gated, or misspelt)"
        )

    def _refuse_what_is_incomplete(self, index: Mapping[str, Any]) -> None:
        kind = index.get("_class_name")
        if kind != PIPELINE:
            raise BadModel(
                f"--model {self._path}: its model_index.json is of a {kind}, and this suite "
                f"measures a {PIPELINE}"
            )
        if not self._local:
            return  # from_pretrained(use_safetensors=True) refuses what it would download.
        for place in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            # Without its files a tokenizer loads all the same, with a vocabulary of two words.
            folder = Path(self._path) / place
            if place not in index or not folder.is_dir() or not any(folder.iterdir()):
                raise BadModel(
                    f"--model {self._path}: no {place} in it, so it is not a Stable Diffusion "
                    "pipeline"
                )
            if place == "tokenizer" and not any(
                (folder / name).is_file() for name in ("tokenizer.json", "vocab.json")
            ):
                raise BadModel(
                    f"--model {self._path}: its tokenizer has neither tokenizer.json nor vocab.json"
                )
            if place in ("tokenizer", "scheduler"):
                continue
            if not any(folder.glob("*.safetensors")):
                pickled = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.ckpt")))
                raise BadModel(
                    f"--model {self._path}: {place} has no safetensors"
                    + "".join(
                        f", only pickled weights ({n}), which can run code" for n in pickled[:1]
                    )
                    + "; save it with save_pretrained(safe_serialization=True)"
                )
