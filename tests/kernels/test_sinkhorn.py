"""Sinkhorn-Knopp against lightly's, a loop, and the transport plan that it tends to."""

from __future__ import annotations

import math
from threading import Barrier, Thread

import pytest
import torch
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from torch import Tensor

from bench import rng
from bench.errors import BenchError
from bench.kernels import Teacher, sinkhorn, sinkhorn_center


def cosines(rows: int, prototypes: int) -> Tensor:
    draw = rng.generator("sinkhorn", rows, prototypes)
    return 2 * torch.rand(rows, prototypes, generator=draw, dtype=torch.float64) - 1


@pytest.mark.parametrize("iterations", [1, 3, 7])
@pytest.mark.parametrize("shape", [(6, 4), (16, 50), (40, 1)])
def test_it_is_lightlys(shape: tuple[int, int], iterations: int) -> None:
    scores = cosines(*shape)
    theirs = lightly_sinkhorn(scores, iterations=iterations, epsilon=0.05)
    torch.testing.assert_close(sinkhorn(scores, 0.05, iterations), theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_it_is_a_loop_of_divisions(temperature: float) -> None:
    scores = cosines(7, 5)
    plan = [[math.exp(s / temperature) for s in row] for row in scores.tolist()]
    for _ in range(3):
        sums = [sum(row[k] for row in plan) for k in range(5)]
        plan = [[value / total for value, total in zip(row, sums, strict=True)] for row in plan]
        plan = [[value / sum(row) for value in row] for row in plan]
    expected = torch.tensor(plan, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, temperature), expected, rtol=1e-10, atol=0)


def test_in_the_end_prototypes_share_the_rows_evenly() -> None:
    plan = sinkhorn(cosines(12, 4), 0.1, 300)
    torch.testing.assert_close(plan.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((4,), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_overflows_at_low_temperature(dtype: torch.dtype) -> None:
    """exp(1 / 0.01) is beyond float32, exp(-1 / 0.01) below it."""
    scores = cosines(64, 16).to(dtype)
    scores[:, 3] = -1  # a prototype that no row is near
    scores[5] = -1  # a row that is near no prototype
    scores[6], scores[7, 2] = 1, 1
    plan = sinkhorn(scores, 0.01)
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan.sum(1), torch.ones(64))
    assert plan[:, 3].sum() > 0.1, "the prototype that no row is near gets its share"
    expected = lightly_sinkhorn(scores.double(), epsilon=0.01)
    torch.testing.assert_close(plan.double(), expected, rtol=1e-3, atol=1e-6)


def test_no_gradient_flows_and_the_scores_are_left_alone() -> None:
    scores = cosines(4, 3).requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(scores, 0.05).requires_grad
    assert torch.equal(scores, before)


def test_autocast_is_raised_to_float32() -> None:
    scores = cosines(8, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = sinkhorn(scores, 0.05)
    assert torch.equal(inside, sinkhorn(scores, 0.05))


def test_no_row_and_no_column_is_lost_for_having_no_entry() -> None:
    """exp(-inf): a prototype that no row may choose, and a row that may choose none."""
    scores = cosines(5, 4)
    scores[:, 2] = -math.inf
    center = sinkhorn_center(scores, 0.1)
    plan = Teacher(scores, 0.1, center).probabilities()
    kept = [0, 1, 3]
    torch.testing.assert_close(plan[:, kept], sinkhorn(scores[:, kept], 0.1))
    assert (plan[:, 2] == 0).all()
    scores[4] = -math.inf
    assert sinkhorn_center(scores, 0.1).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "temperature", "iterations"), [((3,), 0.1, 3), ((3, 4), 0.0, 3), ((3, 4), 0.1, 0)]
)
def test_what_cannot_be_balanced_is_refused_in_one_line(
    shape: tuple[int, ...], temperature: float, iterations: int
) -> None:
    with pytest.raises(BenchError, match="sinkhorn") as error:
        sinkhorn(torch.zeros(shape), temperature, iterations)
    assert "\n" not in str(error.value)


class Half:
    """One of two ranks, each of them a thread."""

    def __init__(self, rank: int, meeting: Barrier, table: list[Tensor]) -> None:
        self.rank, self.meeting, self.table = rank, meeting, table

    def gather(self, x: Tensor) -> Tensor:
        self.table[self.rank] = x
        self.meeting.wait()
        every = torch.cat(self.table)
        self.meeting.wait()
        return every

    def sum(self, x: Tensor) -> Tensor:
        return self.gather(x[None]).sum(0)


def test_two_ranks_balance_the_rows_of_both() -> None:
    scores = cosines(20, 7)
    meeting, table = Barrier(2, timeout=60), [scores, scores]
    found: dict[int, Tensor] = {}

    def work(rank: int) -> None:
        mine = scores[10 * rank : 10 * rank + 10]
        found[rank] = sinkhorn_center(mine, 0.05, ranks=Half(rank, meeting, table))

    threads = [Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sinkhorn_center(scores, 0.05)
    for rank in range(2):
        torch.testing.assert_close(found[rank], expected, rtol=1e-13, atol=1e-15)
