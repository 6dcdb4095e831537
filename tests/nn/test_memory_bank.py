"""The memory bank: its rows move as the official codes move them, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import rng
from bench.errors import BenchError
from bench.nn.memory_bank import MemoryBank, match_top1


def made(size: int = 9, dim: int = 4, momentum: float = 0.25) -> MemoryBank:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MemoryBank(size, dim, momentum, 0.1).double()


def embeddings(count: int, dim: int = 4) -> Tensor:
    draw = rng.generator("bank", count)
    return 5 * torch.randn(count, dim, generator=draw, dtype=torch.float64)


def test_rows_start_as_different_unit_vectors() -> None:
    rows = made(50).rows
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert (rows @ rows.T).fill_diagonal_(0).max() < 0.999


def test_an_update_moves_the_rows_of_the_batch_and_no_others() -> None:
    bank, new, index = made(), embeddings(3), torch.tensor([7, 0, 4])
    before = bank.rows.clone()
    bank.update(new, index)
    for row in range(9):
        if row not in (7, 0, 4):
            assert torch.equal(bank.rows[row], before[row])
            continue
        unit = new[index.tolist().index(row)]
        moved = 0.25 * before[row] + 0.75 * unit / unit.norm()
        torch.testing.assert_close(bank.rows[row], moved / moved.norm())


def test_of_a_picture_that_is_repeated_the_first_embedding_counts() -> None:
    one, other = made(), made()
    new = embeddings(5)
    one.update(new, torch.tensor([3, 8, 3, 3, 8]))
    other.update(new[:2], torch.tensor([3, 8]))
    assert torch.equal(one.rows, other.rows)


def test_candidates_are_the_own_row_and_uniform_draws_of_all() -> None:
    index = torch.tensor([2, 0, 2])
    at = made().candidates(index, 3000, rng.generator("draw"))
    assert at.shape == (3, 3001)
    assert torch.equal(at[:, 0], index)
    counts = at[:, 1:].flatten().bincount(minlength=9)
    # 9,000 draws of 9 rows: 1,000 each, give or take 30; the own rows among them.
    assert len(counts) == 9
    assert ((counts - 1000).abs() < 150).all()
    again = made().candidates(index, 3000, rng.generator("draw"))
    assert torch.equal(at, again)


def test_the_first_logits_fix_z_and_a_copy_of_the_state_knows_it() -> None:
    bank, query = made(), embeddings(6)
    logits = bank.logits(query, bank.candidates(torch.arange(6), 5, rng.generator("z")))
    bank.nce(logits)
    assert bank.log_z.exp().item() == pytest.approx(9 * logits.exp().mean().item())
    fixed = bank.log_z.clone()
    second = bank.nce(2 * logits)
    assert torch.equal(bank.log_z, fixed)
    resumed = made(momentum=0.5)
    resumed.load_state_dict(bank.state_dict())
    assert torch.equal(resumed.nce(2 * logits), second)
    fresh = made().nce(2 * logits)
    assert not torch.allclose(fresh, second)


def test_a_row_moved_after_the_step_leaves_the_gradient_as_it_was() -> None:
    """The gradient is taken by the rows that the logits saw: the update waits for `after_step`."""
    bank, query = made(), embeddings(3).requires_grad_()
    index = torch.tensor([1, 5, 6])
    F.cross_entropy(bank.logits(query), index).backward()
    before = bank.rows.clone()
    bank.update(query.detach(), index)
    expected = embeddings(3).requires_grad_()
    F.cross_entropy(F.normalize(expected, dim=1) @ before.T / 0.1, index).backward()
    torch.testing.assert_close(query.grad, expected.grad)


def test_match_top1_counts_rows_whose_own_is_not_exceeded() -> None:
    logits = torch.tensor([[1.0, 0.0, 1.0], [0.0, -1.0, 0.1], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert match_top1(logits).item() == 50.0


def test_a_bank_that_cannot_fit_is_told_before_training() -> None:
    with pytest.raises(BenchError, match=r"rows of 128 numbers take about .* GiB.*projection"):
        MemoryBank(10**12, 128, 0.5, 0.07)
