"""The folder a recipe works in: what each stage leaves there, and what the next one finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from perf_tests.training.training import Budget, Log, Training


class NotReadyError(Exception):
    """A stage needs another one first; the message says which and how, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where and on what a recipe runs: what every stage is given."""

    COMMAND: ClassVar[str]
    """How the recipe is started, for messages: `python -m …`."""

    out: Path
    seed: int
    device: torch.device
    capture: bool
    log: Log

    @property
    def work(self) -> Path:
        """Modules in float32, checkpoints, and what each stage reports."""
        return self.out / "work"

    @property
    def model(self) -> Path:
        """The finished model, as it is committed."""
        return self.out / "model"

    def report(self, stage: str) -> dict[str, Any]:
        """What a finished stage reported. `NotReadyError` where it has not finished."""
        path = self.work / stage / "done.json"
        if not path.is_file():
            raise NotReadyError(
                f"stage {stage} has not finished in {self.out}; run "
                f"`{self.COMMAND} --out {self.out} --stage {stage}` first"
            )
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    def is_done(self, stage: str) -> bool:
        return (self.work / stage / "done.json").is_file()

    def finish(self, stage: str, report: dict[str, Any]) -> None:
        """Write the stage's report, which marks it as finished, and drop its checkpoint."""
        (self.work / stage).mkdir(parents=True, exist_ok=True)
        (self.work / stage / "done.json").write_text(json.dumps(report, indent=1) + "\n")
        self.checkpoint(stage).unlink(missing_ok=True)

    def checkpoint(self, stage: str) -> Path:
        return self.work / stage / "checkpoint.pt"

    def training(
        self,
        stage: str,
        modules: list[nn.Module],
        loss: Callable[[], Tensor],
        budget: Budget,
    ) -> Training:
        return Training(
            name=stage,
            modules=modules,
            loss=loss,
            budget=budget,
            seed=self.seed,
            checkpoint=self.checkpoint(stage),
            log=self.log,
            capture=self.capture,
        )

    def save(self, stage: str, name: str, module: nn.Module) -> None:
        folder = self.work / stage
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), folder / f"{name}.pt")

    def trained(self, stage: str, name: str, module: Any) -> Any:
        """`module` with the weights that `stage` saved under `name`: on the device, frozen."""
        self.report(stage)
        path = self.work / stage / f"{name}.pt"
        try:
            module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as error:
            raise NotReadyError(
                f"{path} does not fit this recipe's {name}; the folder was made by another version "
                "of it: name another folder, or remove it first"
            ) from error
        return module.to(self.device).eval().requires_grad_(False)
