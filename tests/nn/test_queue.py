"""The queue against a plain list of rows, oldest first."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bench import rng
from bench.errors import BenchError
from bench.nn.queue import Queue


def test_it_holds_the_last_rows_that_were_pushed_normalised() -> None:
    queue, draw = Queue(6, 3, batch_size=2), rng.generator("queue")
    expected = list(queue.rows.clone())
    for number in range(8):  # it wraps twice
        batch = torch.randn(2, 3, generator=draw)
        queue.push(batch)
        expected = expected[2:] + [F.normalize(row, dim=0) for row in batch]
        start = 2 * (number + 1) % 6
        oldest_first = queue.rows.roll(-start, 0)
        torch.testing.assert_close(oldest_first, torch.stack(expected))
        assert queue.at.item() == start


def test_a_queue_of_one_batch_is_that_batch() -> None:
    queue, batch = Queue(4, 3, batch_size=4), torch.eye(4, 3) + 1
    queue.push(batch)
    torch.testing.assert_close(queue.rows, F.normalize(batch, dim=1))


def test_random_unit_vectors_come_first_and_gradients_never() -> None:
    queue = Queue(64, 8, batch_size=8)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(64))
    assert queue.rows.std(0).min() > 0.1
    queue.push(torch.ones(8, 8, requires_grad=True))
    assert not queue.rows.requires_grad


def test_rows_and_place_survive_a_save() -> None:
    one, other = Queue(6, 3, batch_size=2), Queue(6, 3, batch_size=2)
    one.push(torch.ones(2, 3))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.rows, other.rows) and torch.equal(one.at, other.at)


@pytest.mark.parametrize(("size", "batch", "advice"), [(100, 32, 96), (16, 32, 32), (110, 32, 96)])
def test_a_queue_that_batches_do_not_fill_is_refused(size: int, batch: int, advice: int) -> None:
    with pytest.raises(
        BenchError, match=f"no multiple of the batch of {batch}: set it to {advice}"
    ):
        Queue(size, 3, batch_size=batch)


def test_keys_in_half_precision_are_normalised_in_full() -> None:
    queue = Queue(4, 64, batch_size=4)
    queue.push(torch.randn(4, 64, generator=rng.generator("half")).bfloat16())
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6)
