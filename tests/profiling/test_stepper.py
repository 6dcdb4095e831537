"""The engine's step, looked into: stages, FLOPs and bytes of a step that is known by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import conformance, engine
from bench.api import Batch, Method, MethodConfig, OptimSpec, Step, View
from bench.data.ops import Normalize
from bench.engine import EngineConfig
from bench.profiling import memory, stepper
from bench.profiling.stepper import STAGES, Stepper
from bench.progress import Reporter

CPU = EngineConfig(device="cpu", precision="32")
BATCH, WIDTH, OUT = 16, 3 * 32 * 32, 5
SHAPE = (3, 32, 32)


class Known(Method):
    """One linear layer on pixels; in its second half another phase takes part."""

    phases = ("early", "late")

    class Config(MethodConfig):
        epochs: int = 2
        batch_size: int = BATCH

    def build(self) -> None:
        self.head = nn.Linear(WIDTH, OUT, bias=False)
        self.register_buffer("steps", torch.zeros(()))

    def span(self, phase: str) -> tuple[float, float]:
        return (0.0, 1.0) if phase == "early" else (0.5, 1.0)

    def views(self) -> Sequence[View]:
        return (View("plain", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def parameters_for(self, phase: str) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def loss(self, batch: Batch, step: Step) -> Tensor:
        out: Tensor = self.head(batch.view("plain").flatten(1))
        return out.exp().mean()

    def after_step(self, step: Step) -> None:
        self.steps += 1

    def optim(self, phase: str) -> OptimSpec:
        return OptimSpec(lr=1e-9, momentum=0.9, schedule="constant")


@pytest.fixture
def known() -> Stepper:
    return Stepper(conformance.build(Known, "known"), conformance.toy_split(), CPU, seed=0)


def test_a_step_has_every_stage_and_their_times_are_the_whole(known: Stepper) -> None:
    lines = known.advance(3)
    for line in lines:
        spent = line.read()
        assert sorted(spent) == sorted(STAGES)
        assert all(value >= 0 for value in spent.values())
        first, last = line._cuts[0][1], line._cuts[-1][1]
        assert sum(spent.values()) == pytest.approx(last - first, rel=1e-6)
    assert known.method.steps == 3


def test_steps_are_those_of_the_engine(known: Stepper, tmp_path) -> None:
    trained = conformance.build(Known, "known")
    engine.fit(
        trained,
        conformance.toy_split(),
        CPU,
        seed=0,
        folder=tmp_path,
        reporter=Reporter(quiet=True),
        stop_after=4,
    )
    known.advance(4)
    assert torch.equal(known.method.head.weight, trained.head.weight)


def test_steps_never_end(known: Stepper) -> None:
    per_epoch = conformance.PICTURES // BATCH
    known.advance(3 * per_epoch)
    assert known.step == per_epoch  # of the first part, again


def test_flops_are_exact(known: Stepper) -> None:
    # Forward, and in the backward the weights' gradient: pixels need none.
    assert known.flops() == 2 * (2 * BATCH * WIDTH * OUT)


def test_saved_bytes_are_exact(known: Stepper) -> None:
    # The layer keeps its input, a reshaped view, which is there anyway; exp keeps its output.
    assert known.saved() == 4 * BATCH * OUT


def test_the_peak_holds_weights_momentum_gradients_and_views(known: Stepper) -> None:
    known.advance()  # makes the momentum
    weight, views = 4 * WIDTH * OUT, 4 * BATCH * WIDTH
    frozen = sum(4 * p.numel() for p in known.method.backbone.parameters())
    frozen += sum(b.element_size() * b.numel() for b in known.method.backbone.buffers())
    found = known.peak()
    assert found.failed is None
    assert found.reserved is None
    assert found.allocated >= frozen + 3 * weight + views
    assert found.allocated <= frozen + 4 * weight + 8 * views  # rendering needs a few times a view


def test_parts_are_where_other_phases_take_part(known: Stepper) -> None:
    per_epoch = conformance.PICTURES // BATCH
    assert stepper.spans(known) == [
        (0, per_epoch, ("early",)),
        (per_epoch, 2 * per_epoch, ("early", "late")),
    ]
    assert known.active == ("early",)
    method = conformance.build(Known, "known")
    late = Stepper(method, conformance.toy_split(), CPU, seed=0, span=1)
    assert late.active == ("early", "late")
    assert late.parameters_trained() == WIDTH * OUT
    late.advance()
    assert method.steps == 2  # one of each phase


def test_a_batch_that_cannot_fit_is_refused_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stepper, "FEW", 4)
    method = conformance.build(Known, "known")
    small = Stepper(method, conformance.toy_split(), CPU, seed=0)
    kept = BATCH * OUT * 4
    monkeypatch.setattr(memory, "available", lambda: kept)
    assert small.too_large() is None
    monkeypatch.setattr(memory, "available", lambda: kept - 1)
    assert "out of memory: needs more than" in str(small.too_large())


class Whole(Known):
    """Calls the backbone."""

    def build(self) -> None:
        self.head = nn.Linear(self.backbone.dim, OUT)

    def embed(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone(x)
        return out

    def loss(self, batch: Batch, step: Step) -> Tensor:
        out: Tensor = self.head(self.embed(batch.view("plain")))
        return out.exp().mean()

    def after_step(self, step: Step) -> None:
        """Nothing follows."""


class Parts(Whole):
    """Calls what is in the backbone, and never itself."""

    def embed(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone.forward(x)
        return out


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """What is compiled takes no time; of which batches."""
    found: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        found.extend(x.shape for x in inputs if isinstance(x, Tensor) and x.shape[1:] == SHAPE)
        return graph.forward

    method = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: method(self, backend=backend))
    yield found
    torch.compiler.reset()


@pytest.mark.parametrize("kind", [Whole, Parts])
def test_what_is_not_called_is_not_compiled(kind: type[Known], shapes: list[torch.Size]) -> None:
    cfg = EngineConfig(device="cpu", precision="32", compile=True)
    made = Stepper(conformance.build(kind, "known"), conformance.toy_split(), cfg, seed=0)
    made.advance(2)
    assert made.compiled == (kind is Whole)
    assert bool(shapes) == (kind is Whole)
    assert (made.method.backbone in made._networks) == (kind is Whole)
    if kind is Parts:  # its time is that of networks all the same
        assert len(made._networks) > 1


def test_a_small_batch_does_not_decide_what_is_compiled(
    shapes: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepper, "FEW", 4)
    cfg = EngineConfig(device="cpu", precision="32", compile=True)
    made = Stepper(conformance.build(Whole, "known"), conformance.toy_split(), cfg, seed=0)
    made.too_large()
    made.advance()
    assert {shape[0] for shape in shapes} == {BATCH}


@pytest.mark.parametrize("measure", ["flops", "saved"])
def test_what_fails_leaves_nothing_behind(
    measure: str, known: Stepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(batch: Batch, step: Step) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(known.method, "loss", fails)
        with pytest.raises(torch.OutOfMemoryError):
            getattr(known, measure)()
    assert (known._counted, known._kept) == (None, None)


def test_zeroing_is_the_optimisers(known: Stepper, monkeypatch: pytest.MonkeyPatch) -> None:
    stages, zero = list[str](), known.method.zero_grad

    def zeroed(set_to_none: bool = True) -> None:
        stages.append(known._timeline.current)
        zero(set_to_none)

    monkeypatch.setattr(known.method, "zero_grad", zeroed)
    known.advance()
    assert stages == ["optimiser"]


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_stages_and_memory_on_a_gpu(compiled: bool) -> None:
    cfg = EngineConfig(device="cuda", precision="bf16", compile=compiled)
    known = Stepper(conformance.build(Known, "known"), conformance.toy_split(), cfg, seed=0)
    for line in known.advance(3):
        assert sorted(line.read()) == sorted(STAGES)
    found = known.peak()
    assert found.allocated is not None
    assert found.reserved is not None
    assert found.reserved >= found.allocated > 0
    assert known.flops() == 2 * (2 * BATCH * WIDTH * OUT)
