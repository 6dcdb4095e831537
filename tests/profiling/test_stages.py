"""Time lines cut into stages, and which calls of networks are outermost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.profiling import stages
from bench.profiling.stages import Timeline, networks

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each reading of the clock takes the first of these seconds."""
    readings: list[float] = []
    monkeypatch.setattr(stages.time, "perf_counter", lambda: readings.pop(0))
    return readings


def test_every_moment_belongs_to_one_stage(clock: list[float]) -> None:
    clock += [1.0, 3.0, 4.0, 7.0, 8.0, 16.0]
    line = Timeline(CPU)
    line.start("views")
    with line.stage("loss"), line.stage("forward"):
        pass
    line.start("")
    # views 1-3, loss 3-4, forward 4-7, loss 7-8, views 8-16
    assert line.read() == {"views": 10e3, "loss": 2e3, "forward": 3e3}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(self.inner(x))
        return out

    def part(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("compiled", [False, True])
def test_outermost_calls_of_networks(compiled: bool) -> None:
    net, told = Two(), list[str]()
    if compiled:
        net.compile(backend="eager")
    with networks(
        net.modules(), lambda: told.append("enter"), lambda: told.append("leave")
    ) as called:
        net(torch.ones(1, 2))
    assert told == ["enter", "leave"]
    assert called == {net}
    net(torch.ones(1, 2))
    assert len(told) == 2  # nothing is left behind


def test_a_part_that_is_called_by_itself_counts() -> None:
    net, told = Two(), list[str]()
    with networks(net.modules(), lambda: told.append("enter"), lambda: told.append("leave")) as got:
        net.part(torch.ones(1, 2))
    assert told == ["enter", "leave"]
    assert got == {net.inner}


def test_what_is_compiled_and_called_within_another_is_told() -> None:
    inner, told = Two(), list[str]()
    inner.compile(backend="eager")
    outer = nn.Sequential(inner)
    with networks(
        outer.modules(), lambda: told.append("enter"), lambda: told.append("leave")
    ) as got:
        outer(torch.ones(1, 2))
    assert told == ["enter", "leave"]
    assert got == {outer, inner}


def test_a_call_that_fails_is_left() -> None:
    net, told = Two(), list[str]()
    with (
        networks(net.modules(), lambda: told.append("enter"), lambda: told.append("leave")),
        pytest.raises(RuntimeError, match="shapes"),
    ):
        net(torch.ones(1, 3))
    assert told == ["enter", "leave"]
