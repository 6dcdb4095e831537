"""The one training loop for every method: phases, precision, schedules, exact resume, honest time.

Every draw comes from (seed, epoch, step, rank), so that a run which was killed and resumed ends in
the weights of the undisturbed one, bit for bit on a CPU.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from bench import checkpoint, optim, rng, spread
from bench.api import Batch, Config, Method, Step
from bench.data.dataset import Split
from bench.errors import BenchError
from bench.kernels import dispatch
from bench.loader import Loader
from bench.progress import Bar, Reporter

WATCHED = 256  # training pictures whose representation is measured after every epoch
WARMUP_STEPS = 10  # steps left out of the throughput: kernels are chosen and caches filled in them


class EngineConfig(Config):
    """How to train, as far as it is the harness's choice and not the method's."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"  # auto: bf16 autocast on a GPU, else fp32
    compile: bool = False  # torch.compile the backbone
    kernels: dispatch.Choice = "auto"  # of the losses: Triton where it pays, on a GPU
    checkpoint_seconds: float = 30.0  # 0: after every step

    def resolved(self) -> EngineConfig:
        """The same with every `auto` decided for this machine.

        Raises:
            BenchError: a GPU, a compiler or Triton was asked for, and there is none.
        """
        if self.compile and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise BenchError(
                "--compile needs a C++ compiler such as g++; leave it out or install one"
            )
        gpu = torch.cuda.is_available()
        if self.device == "cuda" and not gpu:
            raise BenchError("no CUDA device here; use --device cpu or leave --device out")
        device: Literal["cpu", "cuda"] = "cuda" if gpu and self.device != "cpu" else "cpu"
        precision = self.precision
        if precision == "auto":
            precision = "bf16" if device == "cuda" else "32"
        kernels = self.kernels
        if kernels == "auto" and device == "cpu":
            kernels = "reference"
        if kernels == "triton" and (reason := dispatch.unusable(torch.device(device))):
            raise BenchError(f"--kernels triton: {reason}; use auto or reference")
        decided = {"device": device, "precision": precision, "kernels": kernels}
        return self.model_copy(update=decided)

    def fabric(self) -> Fabric:
        """Device and precision as lightning-fabric keeps them; for a resolved config."""
        return Fabric(
            accelerator=self.device,
            devices=1,
            precision="bf16-mixed" if self.precision == "bf16" else "32-true",
        )


@dataclass
class Trained:
    """What training left: `status`, its cost, and the logged values of each epoch."""

    status: Literal["ok", "diverged"]
    seconds: float = 0.0  # training time over all sittings, warm-up included
    images_per_second: float = 0.0  # of this sitting, after warm-up
    images_seen: int = 0
    peak_memory: int | None = None  # bytes allocated on the GPU; None on a CPU
    history: list[dict[str, float]] = field(default_factory=list)
    kernels: dict[str, str] = field(default_factory=dict)  # op -> implementation that ran


def fit(
    method: Method,
    split: Split,
    cfg: EngineConfig,
    *,
    seed: int,
    folder: Path,
    reporter: Reporter,
    stop_after: int | None = None,
) -> Trained:
    """Train `method` on `split`, resuming from `folder` where an earlier sitting left off.

    `stop_after` ends this sitting after that many optimiser steps, checkpointed (for tests).

    Raises:
        BenchError: fewer pictures than one batch; unreadable checkpoints; a full disk.
    """
    trainer = Trainer(method, split, cfg, seed, folder, reporter)
    devices = [torch.cuda.current_device()] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), dispatch.using(cfg.kernels):
        return trainer.run(stop_after)


class Trainer:
    """One sitting of a training; its parts are methods so that a profile can time each."""

    def __init__(
        self,
        method: Method,
        split: Split,
        cfg: EngineConfig,
        seed: int,
        folder: Path,
        reporter: Reporter,
    ) -> None:
        self.method, self.cfg, self.seed = method, cfg, seed
        self.folder, self.reporter = folder, reporter
        self.fabric = cfg.fabric()
        self.device, self.rank = self.fabric.device, self.fabric.global_rank
        self.loader = Loader(method, split, seed, self.device, self.rank)
        self.batch_size, self.per_epoch = self.loader.batch_size, self.loader.per_epoch
        self.epochs: int = method.cfg.epochs
        self.total = self.per_epoch * self.epochs
        method.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if cfg.compile:
            method.backbone.compile()
        self.specs = {phase: method.optim(phase) for phase in method.phases}
        self.spans = {phase: self._span(phase) for phase in method.phases}
        self.parameters = {phase: list(method.parameters_for(phase)) for phase in method.phases}
        self.optimizers = {
            phase: optim.build(self.specs[phase], self.parameters[phase]) for phase in method.phases
        }
        idle = [
            epoch
            for epoch in range(self.epochs)
            if not any(a <= epoch * self.per_epoch < b for a, b in self.spans.values())
        ]
        if idle:
            raise BenchError(f"no phase trains in epoch {idle[0] + 1}; set more epochs")
        self.step = 0  # optimiser steps done
        self.seconds_before = 0.0  # of earlier sittings
        self.history: list[dict[str, float]] = []
        self.kernels_before: dict[str, str] = {}  # that ran in earlier sittings
        self.sums: dict[str, Tensor] = {}  # of this epoch's logged values, on the device
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)

    def _span(self, phase: str) -> tuple[int, int]:
        """The steps [first, end) of a phase, whole epochs."""
        first, end = (round(share * self.epochs) for share in self.method.span(phase))
        return first * self.per_epoch, end * self.per_epoch

    def run(self, stop_after: int | None) -> Trained:
        """Train from the last checkpoint on, to the end or for `stop_after` steps."""
        self._restore()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        last_step = self.total if stop_after is None else min(self.total, self.step + stop_after)
        self.started = self.saved_at = time.monotonic()
        self.clock = _Throughput(self.batch_size, self.device)
        if self.step == 0:
            torch.manual_seed(rng.fold(self.seed, "initialize", self.rank))
            self.method.initialize(self.loader.pictures())
        self.method.train()
        with self.reporter.bar("pretraining", self.total, self.step) as bar:
            try:
                while self.step < last_step:
                    self._epoch(last_step, bar)
            except _DivergedError:
                return self._result("diverged")
        if stop_after is not None and self.step < self.total:
            self._save()
        return self._result("ok")

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _kernels(self) -> dict[str, str]:
        return dispatch.merged(self.kernels_before, dispatch.ran())

    def _result(self, status: Literal["ok", "diverged"]) -> Trained:
        gpu = self.device.type == "cuda"
        return Trained(
            status,
            seconds=self._seconds(),
            images_per_second=self.clock.rate(),
            images_seen=self.step * self.batch_size,
            peak_memory=torch.cuda.max_memory_allocated(self.device) if gpu else None,
            history=self.history,
            kernels=self._kernels(),
        )

    def _epoch(self, last_step: int, bar: Bar) -> None:
        epoch, offset = divmod(self.step, self.per_epoch)
        if offset == 0:
            self._check_weights()
            torch.manual_seed(rng.fold(self.seed, "before_epoch", epoch, self.rank))
            self.method.before_epoch(epoch, self.loader.pictures())
        count = min(self.per_epoch - offset, last_step - self.step)
        for batch in self.loader.batches(epoch, offset, count):
            loss = self.train_step(epoch, batch)
            self.clock.tick()
            self._show(bar, loss)
            if self.step % self.per_epoch == 0:
                self._close_epoch(epoch)
            wait = time.monotonic() - self.saved_at
            if wait >= self.cfg.checkpoint_seconds and self.step < self.total:
                self._save()

    def train_step(self, epoch: int, batch: Batch) -> Tensor:
        """One optimiser step of every phase that takes part in it; the first one's loss."""
        logged: dict[str, Tensor] = {}
        where = (self.seed, epoch, self.step, self.rank)
        for phase, (first, end) in self.spans.items():
            if not first <= self.step < end:
                continue
            # Dropout and the like draw from the global generator: name this step in it too.
            torch.manual_seed(rng.fold(*where, "global", phase))
            step = Step(
                phase=phase,
                epoch=epoch,
                epochs=self.epochs,
                index=self.step,
                total=self.total,
                rng=rng.generator(*where, "loss", phase, device=self.device),
            )
            self.method.zero_grad(set_to_none=True)
            loss = self._loss(batch, step)
            self._backward(loss, step)
            self._update(phase, step)
            self.finite &= loss.detach().isfinite()
            name = "loss" if len(self.method.phases) == 1 else f"loss_{phase}"
            logged |= {name: loss.detach()} | step.logged
        for name, value in logged.items():
            self.sums[name] = self.sums.get(name, 0) + value.float()
        self.step += 1
        return next(iter(logged.values()))

    def _loss(self, batch: Batch, step: Step) -> Tensor:
        with self.fabric.autocast():
            return self.method.loss(batch, step)

    def _backward(self, loss: Tensor, step: Step) -> None:
        self.fabric.backward(loss)
        self.method.after_backward(step)

    def _update(self, phase: str, step: Step) -> None:
        spec, optimizer, (first, end) = self.specs[phase], self.optimizers[phase], self.spans[phase]
        if spec.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters[phase], spec.clip_grad_norm)
        done, total = self.step - first, end - first
        optim.schedule(optimizer, spec, done, self.per_epoch, total, self.batch_size)
        optimizer.step()
        with torch.no_grad():
            self.method.after_step(step)

    def _show(self, bar: Bar, loss: Tensor) -> None:
        # Reading the loss waits for a GPU, so it is done a few times a second at the most.
        if not self.clock.due():
            bar.advance()
            return
        self._check_finite()
        bar.advance(text=f"loss {loss.item():.3f}  {self.clock.rate():,.0f} images/s")

    def _close_epoch(self, epoch: int) -> None:
        row = {name: (value / self.per_epoch).item() for name, value in self.sums.items()}
        row |= self._spread()
        self.history.append({"epoch": float(epoch), **row})
        self.sums = {}
        self._check_finite()
        if not self.reporter.console.is_terminal:
            values = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
            self.reporter.line(
                f"epoch {epoch + 1}/{self.epochs}  {values}  {self.clock.rate():,.0f} images/s"
            )

    def _spread(self) -> dict[str, float]:
        """How far the representation spreads now, on a few pictures: it warns of a collapse."""
        encoder = self.method.encoder()
        features = self.loader.pictures().features(encoder, WATCHED)
        self.method.train()
        return {
            "feature_std": spread.feature_std(features) * encoder.dim**0.5,
            "effective_rank": spread.effective_rank(features),
        }

    def _check_finite(self) -> None:
        if not self.finite.item():
            raise _DivergedError

    def _check_weights(self) -> None:
        """A finite loss may have left weights that are not: no method should relabel by them."""
        every = [parameter.isfinite().all() for parameter in self.method.parameters()]
        if every and not torch.stack(every).all().item():
            raise _DivergedError

    def _save(self) -> None:
        self._check_finite()  # the last good checkpoint is never replaced by a bad one
        state = {
            "method": self.method.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "step": self.step,
            "seconds": self._seconds(),
            "history": self.history,
            "sums": self.sums,
            "kernels": self._kernels(),
        }
        checkpoint.save(self.folder, state)
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        state = checkpoint.load(self.folder, self.device, self.reporter)
        if state is None:
            return
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.seconds_before = state["step"], state["seconds"]
        self.history, self.sums = state["history"], state["sums"]
        self.kernels_before = state.get("kernels", {})
        self.reporter.line(f"resuming after step {self.step:,} of {self.total:,}")


class _DivergedError(Exception):
    """The loss is no longer finite."""


class _Throughput:
    """Pictures per second after the warm-up steps."""

    def __init__(self, batch_size: int, device: torch.device) -> None:
        self._batch_size, self._gpu = batch_size, device.type == "cuda"
        self._steps = 0
        self._start = self._shown = time.perf_counter()
        self._steps_at_start = 0

    def tick(self) -> None:
        self._steps += 1
        if self._steps == WARMUP_STEPS:
            if self._gpu:
                torch.cuda.synchronize()
            self._start, self._steps_at_start = time.perf_counter(), self._steps

    def due(self) -> bool:
        """Whether the display should change now; about twice a second."""
        now = time.perf_counter()
        if now - self._shown < 0.5:
            return False
        self._shown = now
        return True

    def rate(self) -> float:
        """Pictures per second."""
        if self._gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        return (self._steps - self._steps_at_start) * self._batch_size / max(seconds, 1e-9)
