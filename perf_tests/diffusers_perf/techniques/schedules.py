"""Schedulers whose step is one product: ``next = a * latents + b * prediction``.

DDIM without noise, Euler and flow matching are linear, with two numbers a step that follow from the
schedule alone; Euler also divides what its denoiser is given by a third.
"""

from __future__ import annotations

from typing import Any

import torch

ROOM = 128
"""Steps that a table has room for: every number of them is replayed by the same capture."""


def why_not(scheduler: Any) -> str | None:
    """Why a step of this scheduler is not one product that is known here; None if it is."""
    name, config = type(scheduler).__name__, scheduler.config
    if name not in _ROWS:
        return f"its scheduler is a {name}, not one of {', '.join(_ROWS)}"
    if config.get("prediction_type", "epsilon") != "epsilon":
        return f"its model predicts {config.prediction_type}, not epsilon"
    if any(map(config.get, ("clip_sample", "thresholding", "rescale_betas_zero_snr"))):
        return "its scheduler clips or rescales, and a step is not one product"
    if config.get("stochastic_sampling"):
        return "its scheduler draws noise in each step"
    return None


def table(scheduler: Any, steps: int, **schedule: Any) -> torch.Tensor:
    """Rows ``timestep``, ``a`` and ``b``, of Euler a fourth by which the denoiser's latents are
    multiplied; a column each step; shape (rows, `ROOM`), float32 on the host.

    `schedule`: what the scheduler's `set_timesteps` takes beside the steps. `ValueError` for more
    steps than it has room for.
    """
    if steps > ROOM:
        raise ValueError(f"{steps} steps are more than the {ROOM} that there is room for")
    scheduler.set_timesteps(steps, **schedule)
    filled = torch.stack(_ROWS[type(scheduler).__name__](scheduler, steps))
    rows = torch.zeros(len(filled), ROOM)
    rows[:, :steps] = filled
    return rows


def _ddim(scheduler: Any, steps: int) -> list[torch.Tensor]:
    """From DDIM (Song et al., 2020, equation 12) with no noise of its own: with ``alpha`` the
    schedule's cumulative product, ``a`` is ``sqrt(alpha_next / alpha)`` and ``b`` is
    ``sqrt(1 - alpha_next) - a * sqrt(1 - alpha)``.
    """
    timesteps = scheduler.timesteps
    following = timesteps - scheduler.config.num_train_timesteps // steps
    alphas = scheduler.alphas_cumprod.double()
    alpha = alphas[timesteps]
    after = torch.where(
        following >= 0, alphas[following.clamp(min=0)], scheduler.final_alpha_cumprod.double()
    )
    a = (after / alpha).sqrt()
    return [timesteps.double(), a, (1 - after).sqrt() - a * (1 - alpha).sqrt()]


def _flow_matching(scheduler: Any, steps: int) -> list[torch.Tensor]:
    """A step along the velocity that was predicted, as long as sigma falls."""
    by = scheduler.sigmas.diff()
    return [scheduler.timesteps, torch.ones_like(by), by]


def _euler(scheduler: Any, steps: int) -> list[torch.Tensor]:
    """The same along the noise, of latents that the denoiser sees at unit scale."""
    scale = (scheduler.sigmas[:-1].double().square() + 1).rsqrt()
    return [*_flow_matching(scheduler, steps), scale.float()]


_ROWS = {
    "DDIMScheduler": _ddim,
    "EulerDiscreteScheduler": _euler,
    "FlowMatchEulerDiscreteScheduler": _flow_matching,
}
