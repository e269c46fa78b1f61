"""LoRA adapters that are swapped in place: what is compiled or captured around them stays valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import denoisers


def take_the_place_of_another(module: Any) -> None:
    """Load an adapter of zeros in place of the module's one, and swap that in again.

    Its scale stays as it is.
    """
    ((name, config),) = module.peft_config.items()
    state = _state(module, name)
    scales = {path: float(layer.scaling[name]) for path, layer in _layers(module)}
    metadata = config.to_dict()
    module.unload_lora()
    module.enable_lora_hotswap(target_rank=_highest_rank(state))
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    module.load_lora_adapter(zeros, prefix=None, adapter_name=name, metadata=metadata)
    _swap(module, name, state, scales)


def swaps_in_place(pipeline: Any) -> None:
    """A swap leaves each tensor of the denoisers' adapters where it is, and its scale a tensor."""
    for place, module in denoisers(pipeline).items():
        layers = dict(_layers(module))
        if not layers:
            raise NotApplied(f"the {place} has no layer with an adapter")
        (name,) = module.peft_config
        plain = [p for p, one in layers.items() if not isinstance(one.scaling[name], torch.Tensor)]
        if plain:
            raise NotApplied(
                f"the scale of {place}.{plain[0]} is a number, for which a swap compiles anew"
            )
        before = _addresses(module, name)
        scales = {path: float(layer.scaling[name]) for path, layer in layers.items()}
        _swap(module, name, _state(module, name), scales)
        moved = [key for key, at in _addresses(module, name).items() if at != before[key]]
        if moved:
            raise NotApplied(f"a swap put {place}.{moved[0]} into another tensor")


def _swap(module: Any, name: str, state: dict[str, Any], scales: dict[str, float]) -> None:
    metadata = module.peft_config[name].to_dict()
    module.load_lora_adapter(state, prefix=None, adapter_name=name, hotswap=True, metadata=metadata)
    for path, layer in _layers(module):
        layer.scaling[name].fill_(scales[path])


def _layers(module: Any) -> Iterator[tuple[str, Any]]:
    """The layers with an adapter, by path."""
    return ((p, layer) for p, layer in module.named_modules() if hasattr(layer, "lora_A"))


def _state(module: Any, name: str) -> dict[str, torch.Tensor]:
    """A copy of an adapter's tensors, as its file has them."""
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(module, adapter_name=name)
    return {key: tensor.detach().clone() for key, tensor in own.items()}


def _highest_rank(state: dict[str, torch.Tensor]) -> int:
    return max(len(tensor) for key, tensor in state.items() if "lora_A" in key)


def _addresses(module: Any, name: str) -> dict[str, int]:
    tensors = {key: tensor for key, tensor in module.state_dict().items() if f".{name}." in key}
    scales = {f"{path}.scaling": layer.scaling[name] for path, layer in _layers(module)}
    return {key: tensor.data_ptr() for key, tensor in (tensors | scales).items()}
