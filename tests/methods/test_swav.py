"""SwAV's loss against lightly's, its queue, its prototypes, and what a collapse looks like."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import SwaVLoss
from torch import Tensor
from torch.nn import functional as F

from bench import backbones, conformance, rng
from bench.api import Batch, Step
from bench.errors import BenchError
from bench.nn import memory
from bench.resolve import method_config
from methods.swav import SwAV

BATCH, QUEUE = conformance.BATCH, 32


def build(**settings: object) -> SwAV:
    """The small recipe with few prototypes and three local crops."""
    changes = {"epochs": 2, "batch_size": BATCH, "local_crops": 3, "prototypes": 20} | settings
    cfg = method_config(SwAV, "swav", "small", changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SwAV(cfg, backbones.build("small", 32), conformance.toy_info()).train()


def step_at(index: int, epoch: int = 0) -> Step:
    return Step("main", epoch, 2, index, 8, rng.generator("swav"))


def unit_embeddings(method: SwAV, batch: Batch) -> Tensor:
    """`[5, B, D]`: the backbone by size, then the projector once, as in the official code."""
    shared, local = (torch.cat(batch.views[name]) for name in ("global", "local"))
    features = torch.cat([method.backbone(shared), method.backbone(local)])
    out = F.normalize(method.projector(features), dim=1)
    return out.view(5, BATCH, -1)


@pytest.mark.parametrize("queued", [False, True])
def test_loss_and_gradients_are_lightlys(queued: bool) -> None:
    draw = rng.generator("swav loss")
    unit = F.normalize(torch.randn(5, BATCH, 128, dtype=torch.float64, generator=draw), dim=2)
    method = build(queue=QUEUE if queued else 0, queue_epoch=0).double()
    # The method's own arithmetic on given embeddings, in float64 from end to end.
    unit.requires_grad_()
    method.embed = lambda views: unit  # type: ignore[method-assign]
    old = [F.normalize(torch.randn(QUEUE, 128, dtype=torch.float64, generator=draw)) for _ in "ab"]
    for queue, rows in zip(method.queues, old, strict=False):
        queue.rows.copy_(rows)
    loss = method.loss(Batch({"global": []}, torch.arange(BATCH)), step_at(index=QUEUE // BATCH))

    weight = method.prototypes
    scores = [view @ weight.T for view in unit]
    before = [rows @ weight.T for rows in old] if queued else None
    expected = SwaVLoss(0.1, 3, 0.05)(scores[:2], scores[2:], before)
    torch.testing.assert_close(loss, expected[0], rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (unit, weight)),
        torch.autograd.grad(expected[0], (unit, weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


def test_the_projector_sees_all_crops_at_once_and_the_backbone_one_size() -> None:
    method = build()
    batch = conformance.memorised(method)
    got = method.embed(batch.views["global"] + batch.views["local"])
    assert {v.shape[-1] for v in batch.views["local"]} == {16}
    torch.testing.assert_close(got, unit_embeddings(method, batch), rtol=1e-5, atol=1e-6)


def test_the_queues_keep_the_last_batches_of_either_view() -> None:
    method = build(queue=QUEUE)
    pushed: list[Tensor] = []
    embed = method.embed

    def watched(views: list[Tensor]) -> Tensor:
        pushed.append(embed(views))
        return pushed[-1]

    method.embed = watched  # type: ignore[method-assign]
    batch = conformance.memorised(method)
    for index in range(3):
        batch.views["global"] = [v + index for v in batch.views["global"]]
        method.loss(batch, step_at(index))
    for view, queue in enumerate(method.queues):
        # Two batches fit: the third has taken the place of the first.
        expected = torch.cat([pushed[2][view], pushed[1][view]]).to(queue.rows)
        torch.testing.assert_close(queue.rows, expected)


def test_the_queue_waits_for_its_epoch_and_until_it_is_full() -> None:
    method = build(queue=QUEUE, queue_epoch=1)
    sizes: list[int] = []
    full = method.scores

    def counted(unit: Tensor) -> Tensor:
        if unit.ndim == 2:
            sizes.append(len(unit))
        return full(unit)

    method.scores = counted  # type: ignore[method-assign]
    batch = conformance.memorised(method)
    for index, epoch, used in ((2, 0, 0), (1, 1, 0), (2, 1, 2)):
        sizes.clear()
        method.loss(batch, step_at(index, epoch))
        assert sizes == [QUEUE] * used


def test_no_gradient_flows_through_the_codes() -> None:
    method = build()
    scores = torch.randn(BATCH, 20, requires_grad=True)
    assert not method.balance(0, torch.randn(BATCH, 128), scores, step_at(0)).requires_grad


def test_prototypes_are_unit_vectors_that_stay_in_the_first_epoch() -> None:
    method = build()
    batch, start = conformance.memorised(method), method.prototypes.detach().clone()
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    moved = []
    for epoch in range(2):
        optimizer.zero_grad()
        method.loss(batch, step_at(0, epoch)).backward()
        method.after_backward(step_at(0, epoch))
        optimizer.step()
        with torch.no_grad():
            method.after_step(step_at(0, epoch))
        moved.append((method.prototypes - start).abs().max().item())
        norms = method.prototypes.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
    assert moved[0] < 1e-6 < 1e-3 < moved[1]


def test_equal_codes_for_all_are_told_from_codes_that_differ() -> None:
    method = build()
    unit = F.normalize(torch.randn(5, BATCH, 128, generator=rng.generator("unit")), dim=2)
    told = {}
    for name, embeddings in (("spread", unit), ("collapsed", unit[:, :1].expand(5, BATCH, 128))):
        method.embed = lambda views, embeddings=embeddings: embeddings  # type: ignore[method-assign,misc]
        step = step_at(0)
        loss = method.loss(Batch({"global": []}, torch.arange(BATCH)), step)
        told[name] = {key: value.item() for key, value in step.logged.items()}
    assert told["spread"]["target_information"] > 0.2
    assert told["collapsed"]["target_information"] == pytest.approx(0, abs=1e-6)
    assert told["collapsed"]["embedding_std"] == pytest.approx(0, abs=1e-5)
    # Equal rows can only share the prototypes evenly.
    assert told["collapsed"]["teacher_entropy"] == pytest.approx(math.log(20), rel=1e-5)
    assert loss.isfinite()


@pytest.mark.parametrize("queue", [8, 40])
def test_a_queue_is_a_multiple_of_the_batch(queue: int) -> None:
    with pytest.raises(BenchError, match="no multiple of the batch of 16"):
        build(queue=queue)


def test_more_prototypes_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    with pytest.raises(BenchError, match=r"900,000 prototypes .* set fewer prototypes"):
        build(prototypes=900_000)
