"""Speed and memory of training steps: the engine's own, and a peer's in turn with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from bench import pretraining
from bench.api import Method
from bench.data.dataset import DataSet, Split
from bench.engine import WARMUP_STEPS
from bench.errors import BenchError
from bench.kernels import dispatch
from bench.profiling import memory, peer_step, step_roof
from bench.profiling.stages import Timeline
from bench.profiling.stepper import STAGES, Stepper
from bench.profiling.timing import ROUNDS, Times
from bench.record.profile import MemoryRecord, RoofRecord, StepRow
from bench.resolve import Resolved

OURS = "bench"
PARTS = "not compiled: it calls parts of the backbone, and what is compiled is the whole"
# Steps in a row of one contender. A GPU is not waited for within them, as in training.
TURN = {"cuda": 10, "cpu": 1}
WARMUP = {"cuda": WARMUP_STEPS, "cpu": 2}


Found = TypeVar("Found")


@dataclass(frozen=True)
class Asked:
    """How to profile a step."""

    seconds: float = 10.0  # of timed steps, for all contenders together; three turns at least
    peer: str | None = None  # a library whose step of the same method takes turns with ours
    roof: RoofRecord | None = None  # without it there is no share of it


def profile(resolved: Resolved, data: DataSet, asked: Asked) -> Iterator[StepRow]:
    """Profile the step of what `bench run` would train: a row per contender and part of training.

    A part is one in which other phases take part: most methods have one alone.

    Raises:
        BenchError: the method has no step, does not fit the data, or the peer has no such method.
    """
    pretraining.check_needs(resolved, data.info)
    if resolved.method_cfg.epochs == 0:
        raise BenchError(f"method {resolved.method_name} has no training step")
    if asked.peer is not None:
        peer_step.check(asked.peer, resolved.method_name)
    split = data.train if resolved.sees_labels else data.full
    info = replace(data.info, n_train=len(split))
    part = 0
    while True:
        with memory.resident() as resident:
            made: dict[str, Method] = {OURS: pretraining.build(resolved, info)}
            if asked.peer is not None:
                made[asked.peer] = peer_step.build(asked.peer, resolved.method_name, made[OURS])
            kernels = resolved.engine.kernels
            contenders = [_Contender(name, m, kernels) for name, m in made.items()]
            for contender in contenders:
                contender.begin(split, resolved, part)
            _turns(contenders, asked.seconds)
        alone = len(contenders) == 1
        yield from (
            contender.row(resolved, data, asked.roof, resident.bytes if alone else None)
            for contender in contenders
        )
        part += 1
        if contenders[0].stepper is None or part >= contenders[0].stepper.parts:
            return


@dataclass
class _Contender:
    """One library's step, and what has been found of it."""

    name: str
    method: Method
    kernels: dispatch.Choice
    stepper: Stepper | None = None
    samples: list[dict[str, float]] = field(default_factory=list)  # of each step: stage -> ms
    ran: dict[str, str] = field(default_factory=dict)
    failed: str | None = None
    missing: list[str] = field(default_factory=list)  # what of the row is, and why

    def begin(self, split: Split, resolved: Resolved, part: int) -> None:
        """Get ready, and warm up: kernels are chosen and compiled, caches filled."""
        try:
            with dispatch.using(self.kernels):
                self.stepper = Stepper(self.method, split, resolved.engine, resolved.seed, part)
                self.failed = self.stepper.too_large()
            if self.failed:
                return
            self.advance(WARMUP[self.stepper.device.type])
        except (RuntimeError, MemoryError) as error:
            self.give_up(error)

    def advance(self, count: int) -> list[dict[str, float]]:
        """Take steps; what each spent, once all are done."""
        assert self.stepper is not None
        with dispatch.using(self.kernels) as ran:
            lines: list[Timeline] = self.stepper.advance(count)
        self.ran = dispatch.merged(self.ran, ran)
        return [line.read() for line in lines]

    def turn(self) -> None:
        """Take a turn's steps, and keep what they spent."""
        if self.stepper is None or self.failed:
            return
        try:
            self.samples += self.advance(TURN[self.stepper.device.type])
        except (RuntimeError, MemoryError) as error:
            self.give_up(error)

    def give_up(self, error: BaseException) -> None:
        """Keep the reason, if it is want of memory.

        Raises:
            BaseException: `error`, if it is anything else.
        """
        self.failed = memory.out_of_memory(error)
        if self.failed is None:
            raise error

    def row(
        self, resolved: Resolved, data: DataSet, roof: RoofRecord | None, resident: int | None
    ) -> StepRow:
        """All that was found, with memory and FLOPs, which are measured in steps of their own."""
        engine, cfg = resolved.engine, resolved.method_cfg
        row = StepRow(
            method=resolved.method_name,
            provider=self.name,
            backbone=resolved.backbone,
            data=data.info.name,
            size=data.info.size,
            batch_size=cfg.batch_size,
            precision=engine.precision,
            compiled=engine.compile,
            notes=peer_step.notes(self.name, resolved.method_name, engine.precision),
            reason=self.failed,
        )
        if self.stepper is None or self.failed:
            return row
        whole = self._times([sum(sample.values()) for sample in self.samples])
        assert whole.median is not None
        flops = self._tried("FLOPs", self.stepper.flops)
        share = None
        if roof is not None and flops is not None:
            share = flops / (whole.median / 1e3) / step_roof.peak(roof, engine.precision)
        with dispatch.using(self.kernels):
            peak = self.stepper.peak()
            saved = self._tried("bytes saved", self.stepper.saved)
        if peak.failed:
            self.missing.append(f"peak not measured: {peak.failed}")
        compiled = self.stepper.compiled
        return row.model_copy(
            update={
                "compiled": compiled,
                "notes": (*row.notes, *([PARTS] if engine.compile and not compiled else [])),
                "reason": "; ".join(self.missing) or None,
                "phases": self.stepper.active if self.stepper.phased else (),
                "kernels": self.ran,
                "step": whole.record(),
                "stages": {
                    stage: self._times([sample.get(stage, 0.0) for sample in self.samples]).record()
                    for stage in STAGES
                },
                "images_per_second": cfg.batch_size / (whole.median / 1e3),
                "memory": MemoryRecord(
                    peak=peak.allocated, reserved=peak.reserved, resident=resident, saved=saved
                ),
                "parameters": self.stepper.parameters_trained(),
                "flops": flops,
                "share": share,
            }
        )

    def _tried(self, what: str, measure: Callable[[], Found]) -> Found | None:
        """What `measure` finds; where memory runs out, None, and the row says so."""
        try:
            return measure()
        except (RuntimeError, MemoryError) as error:
            if (reason := memory.out_of_memory(error)) is None:
                raise
            self.missing.append(f"{what} not measured: {reason}")
            return None

    def _times(self, samples: list[float]) -> Times:
        assert self.stepper is not None
        clock = "events" if self.stepper.device.type == "cuda" else "wall"
        return Times(tuple(samples), clock)


def _turns(contenders: list[_Contender], seconds: float) -> None:
    """Let the contenders take turns until the time is over."""
    end, rounds = time.monotonic() + seconds, 0
    while rounds < ROUNDS or time.monotonic() < end:
        for contender in contenders:
            contender.turn()
        if all(contender.failed for contender in contenders):
            return
        rounds += 1
