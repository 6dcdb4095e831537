"""Turns, warm-up, quantiles and failures of timed calls; nothing is asserted about speed."""

from __future__ import annotations

import pytest
import torch

from bench.profiling import timing

CPU = torch.device("cpu")


def test_calls_take_turns_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []
    times = timing.alternate(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, seconds=0.0
    )
    rounds = timing.WARMUP + timing.ROUNDS
    assert order == ["a", "b"] * rounds
    assert [len(t.samples) for t in times.values()] == [timing.ROUNDS] * 2
    assert all(t.clock == "wall" and t.failed is None for t in times.values())
    assert all(sample >= 0 for t in times.values() for sample in t.samples)


def test_a_call_that_runs_out_of_memory_is_left_out_from_then_on() -> None:
    tried: list[int] = []

    def large() -> None:
        tried.append(1)
        torch.empty(2**60, dtype=torch.int8)

    times = timing.alternate({"large": large, "small": lambda: None}, CPU, seconds=0.0)
    assert len(tried) == 1
    assert times["large"].median is None
    assert "out of memory" in str(times["large"].failed)
    assert times["small"].median is not None


def test_another_error_is_raised() -> None:
    def wrong() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        timing.alternate({"wrong": wrong}, CPU, seconds=0.0)


def test_quantiles_are_interpolated() -> None:
    times = timing.Times(tuple(float(n) for n in range(11)), "wall")
    assert (times.p10, times.median, times.p90) == (1.0, 5.0, 9.0)
    assert timing.Times((1.0, 2.0), "wall").p90 == pytest.approx(1.9)
    assert timing.Times((), "wall", "out of memory").p10 is None


@pytest.mark.gpu
def test_a_short_call_is_replayed_and_one_that_waits_is_not() -> None:
    device = torch.device("cuda")
    x = torch.ones(64, 64, device=device)
    calls = {"short": lambda: x @ x, "waits": lambda: x.sum().item()}
    times = timing.alternate(calls, device, seconds=0.2)
    assert times["short"].clock == "graph"
    assert times["waits"].clock == "events"
    assert all(sample > 0 for found in times.values() for sample in found.samples)
    assert torch.cuda.get_sync_debug_mode() == 0
    assert (x @ x).sum().item() == 64**3  # the device works as before


@pytest.mark.gpu
def test_a_long_call_is_timed_as_it_is() -> None:
    x = torch.ones(4096, 4096, device="cuda")
    times = timing.alternate({"long": lambda: x @ x}, x.device, seconds=0.1)
    assert times["long"].clock == "events"
