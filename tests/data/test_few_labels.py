"""Which labels may be used, and the order in which pictures come."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.conformance import toy_split
from bench.data.few_labels import few_labels
from bench.data.order import endless
from bench.errors import BenchError


@pytest.mark.parametrize("count", [1, 3, 16])
def test_so_many_labels_of_each_class(count: int) -> None:
    split = toy_split()
    chosen = few_labels(split, count, draw=1)
    assert split.labels is not None
    assert split.labels[chosen].bincount().tolist() == [count] * 4
    assert chosen.unique().tolist() == chosen.tolist()  # sorted, each once
    assert torch.equal(chosen, few_labels(split, count, draw=1))
    if count < 16:
        assert not torch.equal(chosen, few_labels(split, count, draw=2))


def test_a_share_of_the_labels_has_each_class_in_its_own() -> None:
    split = toy_split()
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [3])
    chosen = few_labels(replace(split, labels=labels), 0.25)
    assert labels[chosen].bincount().tolist() == pytest.approx([10, 5, 1, 1], abs=1)
    assert len(chosen) == 16


def test_a_list_of_positions(tmp_path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("5\n1\n5\n")
    assert few_labels(toy_split(), str(path)).tolist() == [1, 5]


@pytest.mark.parametrize("text", ["64\n", "-1\n", "1.5\n", ""])
def test_a_list_that_does_not_fit(tmp_path, text: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"list\.txt"):
        few_labels(toy_split(), str(path))


def test_too_few_or_too_many_labels_are_told_in_one_line() -> None:
    with pytest.raises(BenchError, match="below one for each"):
        few_labels(toy_split(), 0.02)
    with pytest.raises(BenchError, match="16 pictures of class 0"):
        few_labels(toy_split(), 17)
    with pytest.raises(BenchError, match="cannot be read"):
        few_labels(toy_split(), "no/such/list.txt")


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (4, 10), (7, 7)])
def test_the_endless_order_shows_all_before_any_again(count: int, batch: int) -> None:
    drawn = torch.cat([endless(count, batch, step, 0, "x") for step in range(7)])
    assert len(drawn) == 7 * batch
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count].tolist()) == list(range(count))
    assert not torch.equal(drawn[:count], torch.cat([endless(count, count, 0, 1, "x")]))
