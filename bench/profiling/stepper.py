"""The engine's own training step, taken one at a time, with its time and memory looked into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.api import Batch, Method, Step
from bench.data.dataset import Split
from bench.engine import EngineConfig, Trainer
from bench.kernels import dispatch
from bench.profiling import memory
from bench.profiling.stages import Timeline, compiled, networks
from bench.progress import Reporter

FEW = 32  # pictures that tell of the memory that many need
STAGES = ("views", "forward", "loss", "backward", "optimiser")


class Stepper(Trainer):
    """Steps of a part of training in which the same phases take part, over and over.

    What precedes a first step or an epoch (`initialize`, `before_epoch`) is done once, untimed.
    """

    def __init__(
        self, method: Method, split: Split, cfg: EngineConfig, seed: int, span: int = 0
    ) -> None:
        super().__init__(method, split, cfg, seed, Path(), Reporter(quiet=True))
        self.first, self.end, self.active = spans(self)[span]
        self._timeline = Timeline(self.device)
        self._counted: list[int] | None = None  # FLOPs, while they are counted
        self._kept: list[int] | None = None  # bytes, while they are counted
        method.initialize(self.loader.pictures())
        method.before_epoch(self.first // self.per_epoch, self.loader.pictures())
        method.train()
        self._stream = self._endless()
        self._every = [module for module in method.modules() if module is not method]
        self._networks = self._every

    def advance(self, count: int = 1) -> list[Timeline]:
        """Take `count` steps; the time of each, to be read once all are queued."""
        lines = []
        for _ in range(count):
            self._timeline = line = Timeline(self.device)
            with networks(self._networks, self._enter, self._leave) as called:
                line.start("views")
                self.step, batch = next(self._stream)
                line.start("optimiser")
                self.train_step(self.step // self.per_epoch, batch)
                line.start("")
            lines.append(line)
            # Once is enough to know them; hooks on others cost time. Where what is compiled was not
            # called, its parts may be.
            idle = {module for module in self._networks if compiled(module)} - called
            self._networks = [m for m in self._every if m not in idle] if idle else list(called)
        return lines

    def flops(self) -> int:
        """Of one step's forward and backward: two for each multiplication with its addition.

        Counted without compilation, by plain attention and by reference kernels, all of whose
        products are seen, and which repeat none.
        """
        counted: list[int] = []
        self._counted = counted
        try:
            with self._uncompiled(), sdpa_kernel(SDPBackend.MATH), dispatch.using("reference"):
                self.advance()
        finally:
            self._counted = None
        return sum(counted)

    def peak(self) -> memory.Peak:
        """The most that one step needs, with weights, optimiser state and views; not the data."""
        self.method.zero_grad(set_to_none=True)
        self._stream = self._endless()  # the one before holds its last batch
        standing = self._standing()
        found = memory.peak(self.advance, self.device)
        if found.allocated is None:
            return found
        return replace(found, allocated=found.allocated + standing)

    def saved(self) -> int:
        """Bytes that a forward pass keeps for its backward, the most of the step's phases."""
        kept: list[int] = []
        self._kept = kept
        try:
            self.advance()
        finally:
            self._kept = None
        return max(kept)

    def too_large(self) -> str | None:
        """Why the batch cannot fit in the memory of this machine; None where it may.

        On a CPU, where the system ends a process sooner than an allocation fails. What a step keeps
        of a few pictures for its backward tells what it keeps of all; it needs more than that.
        """
        free = memory.available()
        if self.device.type != "cpu" or self.batch_size <= 2 * FEW or free is None:
            return None
        self._kept, self.step = [], self.first
        epoch = self.first // self.per_epoch
        try:
            (batch,) = self.loader.of([torch.arange(FEW)], epoch, self.first)
            with self._uncompiled():  # or all batches would be compiled as of any size
                self.train_step(epoch, batch)
        except (RuntimeError, ValueError, AssertionError):
            return None  # a method that takes whole batches alone
        finally:
            kept, self._kept = self._kept, None
        need = max(kept, default=0) * self.batch_size // FEW
        if need <= free:
            return None
        return f"out of memory: needs more than {need / 2**30:.1f} GiB; {free / 2**30:.1f} are free"

    @property
    def parts(self) -> int:
        """How many parts the training has."""
        return len(spans(self))

    @property
    def compiled(self) -> bool:
        """Whether steps call what is compiled, the backbone; known once two were taken."""
        return any(compiled(module) for module in self._networks)

    @property
    def phased(self) -> bool:
        """Whether there are several phases to tell apart."""
        return len(self.spans) > 1

    def parameters_trained(self) -> int:
        """How many numbers the phases of the step train."""
        own = {id(p): p for phase in self.active for p in self.parameters[phase]}
        return sum(p.numel() for p in own.values())

    def _endless(self) -> Iterator[tuple[int, Batch]]:
        while True:
            step = self.first
            while step < self.end:
                epoch, offset = divmod(step, self.per_epoch)
                count = min(self.per_epoch - offset, self.end - step)
                for batch in self.loader.batches(epoch, offset, count):
                    yield step, batch
                    step += 1

    def _loss(self, batch: Batch, step: Step) -> Tensor:
        with self._timeline.stage("loss"), self._counting():
            if self._kept is None:
                return super()._loss(batch, step)
            found: list[Tensor] = []
            there = chain(self.method.parameters(), self.method.buffers(), _tensors(batch))
            forward = super()._loss
            size = memory.saved(lambda: found.append(forward(batch, step)), there)
            self._kept.append(size)
            return found[0]

    def _backward(self, loss: Tensor, step: Step) -> None:
        with self._timeline.stage("backward"), self._counting():
            super()._backward(loss, step)

    def _uncompiled(self) -> AbstractContextManager[object]:
        return torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        if self._counted is None:
            yield
            return
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoModules()  # type: ignore[assignment]
        with counter:
            yield
        self._counted.append(counter.get_total_flops())

    def _enter(self) -> None:
        if self._timeline.current == "loss":
            self._timeline.start("forward")

    def _leave(self) -> None:
        if self._timeline.current == "forward":
            self._timeline.start("loss")

    def _standing(self) -> int:
        """Bytes of what stays from step to step, each storage once."""
        states = chain.from_iterable(
            state.values() for o in self.optimizers.values() for state in o.state.values()
        )
        tensors = chain(self.method.parameters(), self.method.buffers(), states)
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in tensors
            if isinstance(t, Tensor)
        }
        return sum(storages.values())


class _NoModules(AbstractContextManager[None]):
    """Leaves out which module a FLOP is of: its hooks forbid a loss to take gradients itself."""

    parents: ClassVar = {"Global"}

    def __exit__(self, *_: object) -> None:
        """Nothing was entered."""


def spans(trainer: Trainer) -> list[tuple[int, int, tuple[str, ...]]]:
    """The parts of training [first, end), in steps, in each of which other phases take part."""
    cuts = sorted({at for span in trainer.spans.values() for at in span})
    found = []
    for first, end in pairwise(cuts):
        active = tuple(p for p, (a, b) in trainer.spans.items() if a <= first and end <= b)
        found.append((first, end, active))
    return found


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for views in batch.views.values():
        yield from views
    for value in (batch.index, batch.label, batch.text, batch.motion):
        if value is not None:
            yield value
    if batch.labeled is not None:
        yield from _tensors(batch.labeled)
