"""Queries and keys of FLUX.1's attention, normalized and turned in one pass through memory.

diffusers turns them with a second tensor, in which the numbers of each pair have changed places.
torch.compile writes that tensor and reads it again, and what is normalized as well, where the
prompt's part and the image's are joined before they are turned. Here each part is turned before
they are joined, and a number's partner is read from where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.replay import replay
from diffusers_perf.techniques.fused import Seen

READ_AT = "aten::index.Tensor"
TURNED = 2
"""Of each attention's parts: queries and keys."""


@cache
def _processor() -> type[Any]:
    from diffusers.models.attention_dispatch import dispatch_attention_fn
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

    class TurningInOnePass(FluxAttnProcessor):
        """`FluxAttnProcessor`, which turns each part before it joins them."""

        def __call__(
            self,
            attn: Any,
            hidden_states: torch.Tensor,
            encoder_hidden_states: Any = None,
            attention_mask: torch.Tensor | None = None,
            image_rotary_emb: Any = None,
        ) -> Any:
            if image_rotary_emb is None:
                return super().__call__(
                    attn, hidden_states, encoder_hidden_states, attention_mask, None
                )
            cos, sin = (table.to(hidden_states.device) for table in image_rotary_emb)
            joined = attn.added_kv_proj_dim is not None and encoder_hidden_states is not None
            words = encoder_hidden_states.shape[1] if joined else 0
            query, key, value = _projections(attn, hidden_states, "to_q", "to_k", "to_v", "to_qkv")
            query = _turned(query, attn.norm_q, cos[words:], sin[words:])
            key = _turned(key, attn.norm_k, cos[words:], sin[words:])
            value = value.unflatten(-1, (-1, attn.head_dim))
            if joined:
                names = "add_q_proj", "add_k_proj", "add_v_proj", "to_added_qkv"
                own_query, own_key, own_value = _projections(attn, encoder_hidden_states, *names)
                own_query = _turned(own_query, attn.norm_added_q, cos[:words], sin[:words])
                own_key = _turned(own_key, attn.norm_added_k, cos[:words], sin[:words])
                query = torch.cat([own_query, query], dim=1)
                key = torch.cat([own_key, key], dim=1)
                value = torch.cat([own_value.unflatten(-1, (-1, attn.head_dim)), value], dim=1)
            made = dispatch_attention_fn(
                query,
                key,
                value,
                attn_mask=attention_mask,
                backend=self._attention_backend,
                parallel_config=self._parallel_config,
            )
            made = made.flatten(2, 3).to(query.dtype)
            if encoder_hidden_states is None:
                return made
            words = encoder_hidden_states.shape[1]
            project, drop_out = attn.to_out
            image, text = made[:, words:].contiguous(), made[:, :words].contiguous()
            return drop_out(project(image)), attn.to_add_out(text)

    return TurningInOnePass


def _projections(attn: Any, states: torch.Tensor, *names: str) -> Any:
    """Query, key and value, by the layers of these names; the last makes all three, if fused."""
    if attn.fused_projections:
        return getattr(attn, names[-1])(states).chunk(3, dim=-1)
    return [getattr(attn, name)(states) for name in names[:-1]]


def _turned(
    states: torch.Tensor, norm: torch.nn.Module, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """(batch, tokens, heads x numbers) as (batch, tokens, heads, numbers); the tables of angles are
    (tokens, numbers).
    """
    normed: torch.Tensor = norm(states.unflatten(-1, (-1, cos.shape[-1])))
    place = torch.arange(cos.shape[-1], device=normed.device)
    partner = normed[..., place ^ 1].float()
    partner = torch.where(place % 2 == 0, -partner, partner)
    return (normed.float() * cos[:, None] + partner * sin[:, None]).to(normed.dtype)


def fuse_rotary(root: torch.nn.Module) -> None:
    """Let the attentions below, which have diffusers' own processors, turn in one pass."""
    for _, attention in _attentions(root):
        processor = _processor()()
        # Such as the backend that was chosen for it.
        vars(processor).update(vars(attention.processor))
        attention.set_processor(processor)


def _attentions(root: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    from diffusers.models.transformers.transformer_flux import FluxAttention

    return (
        (path, module) for path, module in root.named_modules() if isinstance(module, FluxAttention)
    )


def why_rotary_does_not_fuse(pipeline: Any) -> str | None:
    """Why the attentions of its denoisers cannot turn in one pass, or None."""
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

    for name, module in denoisers(pipeline).items():
        found = [*_attentions(module)]
        if not found:
            return f"its {name} ({type(module).__name__}) has no attention of FLUX.1's kind"
        for path, attention in found:
            own = type(attention.processor)
            if own not in (FluxAttnProcessor, _processor()):
                return f"{path} of its {name} has another processor, {own.__name__}"
    return None


def rotary_is_fused(pipeline: Any) -> None:
    """A call of each denoiser reads partners from where they stand, in each attention."""
    with Seen() as seen:
        replay(pipeline)
    attentions = [
        attention for root in denoisers(pipeline).values() for _, attention in _attentions(root)
    ]
    others = sum(type(attention.processor) is not _processor() for attention in attentions)
    if not attentions or others:
        raise NotApplied(f"{others} of the denoiser's {len(attentions)} attentions turn twice")
    if seen.names[READ_AT] < TURNED * len(attentions):
        raise NotApplied(
            f"{seen.names[READ_AT]} queries and keys are turned in one pass, of "
            f"{TURNED * len(attentions)} or more"
        )
