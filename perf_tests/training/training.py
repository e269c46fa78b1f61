"""One training loop for all stages.

The modules are small, so that a step in eager mode is bound by the host that launches its
kernels. On a GPU the whole step (draw, forward, backward, optimizer, averaging) is therefore
captured once as a CUDA graph and replayed. A stage's `loss` must for that read nothing back
from the device and copy nothing to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

EAGER_STEPS_BEFORE_CAPTURE = 5
"""They count as steps; they let cuDNN choose its algorithms and the optimizer make its state."""
GRADIENT_NORM_LIMIT = 1.0
MAX_WARMUP_STEPS = 500
STEPS_AHEAD = 16
"""Between two waits for the GPU. Launches that ran far ahead of it would set the learning rate
by a time that the GPU has not reached, and overrun the limit."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a stage trains: `steps` decide on the H100 it was made for, `limit_s` elsewhere.

    The learning rate falls to zero along whichever is further, so that a slow machine gets a
    finished training of fewer steps and not an interrupted one.
    """

    steps: int
    limit_s: float
    batch: int
    peak_rate: float
    average: float = 0.998
    """Decay a step of the exponential average that becomes the trained weights."""

    def rate(self, step: int, progress: float) -> float:
        """The learning rate: a linear start over 4 % of the steps, then half a cosine."""
        start = min(1.0, (step + 1) / max(1.0, min(MAX_WARMUP_STEPS, 0.04 * self.steps)))
        return self.peak_rate * start * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training did, for the log, the scores and the model card."""

    steps: int
    seconds: float
    loss: float
    """Mean of the last logged interval."""
    captured: bool


class Log:
    """Prints lines with the seconds since the start of the process's work."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._start, self._quiet = time.perf_counter(), quiet

    def __call__(self, line: str) -> None:
        if not self._quiet:
            print(f"[{time.perf_counter() - self._start:7.1f} s] {line}", flush=True)


class Training:
    """Trains modules in place against `loss`, and leaves their averaged weights in them."""

    def __init__(
        self,
        *,
        name: str,
        modules: Sequence[nn.Module],
        loss: Callable[[], Tensor],
        budget: Budget,
        seed: int,
        checkpoint: Path,
        log: Log,
        capture: bool,
    ) -> None:
        self.name, self.loss, self.budget, self.seed = name, loss, budget, seed
        self.checkpoint, self.log = checkpoint, log
        self.weights: list[Tensor] = [
            p for module in modules for p in module.parameters() if p.requires_grad
        ]
        self.device = self.weights[0].device
        self.capture = capture and self.device.type == "cuda"
        # A graph reads the learning rate from the device; a number would be frozen into it.
        rate: Any = torch.tensor(0.0, device=self.device) if self.capture else 0.0
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            capturable=self.capture,
            fused=self.device.type == "cuda",
        )
        self.average = [weight.detach().clone() for weight in self.weights]
        self.loss_sum = torch.zeros((), device=self.device)
        self.step, self.elapsed_s = 0, 0.0
        self._graph: Any = None
        self._reached = torch.cuda.Event() if self.device.type == "cuda" else None

    def run(self, probe: Callable[[], str] | None = None, probes: int = 4) -> Outcome:
        """Train to the end of the budget.

        `probe` looks at the averaged weights `probes` times on the way and returns a line for
        the log. At the same times a checkpoint is written, from which the same command goes on
        after an interruption.
        """
        budget = self.budget
        if self.checkpoint.is_file():
            self._load()
        torch.manual_seed(self.seed + self.step)
        start_s = time.perf_counter() - self.elapsed_s
        log_every = max(1, budget.steps // 20)
        logged, mean_loss, next_probe = self.step, math.nan, 1
        while True:
            self.elapsed_s = time.perf_counter() - start_s
            progress = max(self.step / budget.steps, self.elapsed_s / budget.limit_s)
            if progress >= 1 and self.step > logged:
                mean_loss = self._mean_loss(self.step - logged)
                logged = self.step
            if progress >= 1:
                break
            self._set_rate(budget.rate(self.step, progress))
            self._one_step()
            self.step += 1
            if self._reached is not None and self.step % STEPS_AHEAD == 0:
                self._reached.synchronize()
                self._reached.record()
            if self.step % log_every == 0:
                mean_loss = self._mean_loss(self.step - logged)
                logged = self.step
                pace_ms = 1e3 * (time.perf_counter() - start_s) / self.step
                self.log(
                    f"{self.name}: step {self.step}/{budget.steps}, loss {mean_loss:.5f}, "
                    f"{pace_ms:.1f} ms a step{'' if self._graph is None else ' (graph)'}"
                )
                if not math.isfinite(mean_loss):
                    raise TrainingFailedError(
                        f"{self.name}: the loss is {mean_loss} at step {self.step}; "
                        f"try a lower learning rate than {budget.peak_rate}"
                    )
            if probes and progress < 1 and progress >= next_probe / probes:
                next_probe = math.floor(progress * probes) + 1
                self._save()
                if probe is not None:
                    self._swap()
                    self.log(f"{self.name}: {probe()}")
                    self._swap()
        self._swap()
        if probe is not None:
            self.log(f"{self.name}: {probe()}")
        return Outcome(
            steps=self.step,
            seconds=round(time.perf_counter() - start_s, 1),
            loss=mean_loss,
            captured=self._graph is not None,
        )

    def _eager_step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, GRADIENT_NORM_LIMIT)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - self.budget.average)
            self.loss_sum += loss.detach()

    def _one_step(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        if not self.capture:
            self._eager_step()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(EAGER_STEPS_BEFORE_CAPTURE):
                self._eager_step()
        torch.cuda.current_stream().wait_stream(stream)
        self.step += EAGER_STEPS_BEFORE_CAPTURE - 1
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._eager_step()
        except RuntimeError as error:
            # Not in this process: its random generator may still believe that it is captured.
            raise TrainingFailedError(
                f"{self.name}: the step cannot be captured as a CUDA graph "
                f"({str(error).splitlines()[0]}); run the same command with --eager, it is slower"
            ) from error
        self._graph = graph

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _mean_loss(self, steps: int) -> float:
        mean = float(self.loss_sum) / steps
        self.loss_sum.zero_()
        return mean

    def _swap(self) -> None:
        """Exchange weights and averaged weights, in place: a graph knows them by address."""
        with torch.no_grad():
            held = [weight.detach().clone() for weight in self.weights]
            torch._foreach_copy_(self.weights, self.average)
            torch._foreach_copy_(self.average, held)

    def _save(self) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "step": self.step,
                "elapsed_s": self.elapsed_s,
                "weights": [weight.detach() for weight in self.weights],
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        with torch.no_grad():
            torch._foreach_copy_(self.weights, state["weights"])
            torch._foreach_copy_(self.average, state["average"])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.log(f"{self.name}: going on from step {self.step}")


class TrainingFailedError(Exception):
    """The training cannot go on; the message says why, in a sentence."""
