"""MSN's loss against lightly's and loops, what the student sees, and what prevents collapse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lightly.loss import MSNLoss
from torch import Tensor

from bench import backbones, conformance, rng
from bench.errors import BenchError
from bench.nn.soft_assignments import log_assignments, msn, sharpened
from bench.resolve import method_config
from methods.msn import MSN


def build(backbone: str = "vit_nano_patch8", **changes: Any) -> Any:
    budget = {"epochs": 2, "batch_size": conformance.BATCH, **changes}
    cfg = method_config(MSN, "msn", "small", budget)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("msn"))
        return MSN(cfg, backbones.build(backbone, 32), conformance.toy_info())


def draw(*shape: int) -> Tensor:
    source = rng.generator("msn", *shape)
    return torch.randn(shape, generator=source, dtype=torch.float64)


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("memax", [1.0, 0.3])
def test_the_loss_is_lightlys_and_so_are_its_gradients(balance: bool, memax: float) -> None:
    found = []
    for ours in (True, False):
        anchors = draw(3 * 6, 5).requires_grad_()
        prototypes = draw(8, 5).requires_grad_()
        targets = draw(6, 5)
        if ours:
            soft = sharpened(log_assignments(targets, prototypes, 0.1), 0.25, balance)
            loss = msn(log_assignments(anchors, prototypes, 0.1), soft, memax)
        else:
            theirs = MSNLoss(0.1, 3 if balance else 0, regularization_weight=memax)
            loss = theirs(anchors, targets, prototypes, 0.25)
        found.append((loss, *torch.autograd.grad(loss, (anchors, prototypes))))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_the_loss_is_a_loop_of_the_official_formula() -> None:
    """src/losses.py: mean of -sum q log p, plus log K - H(mean p), q = p^4 / sum p^4."""
    anchors, seen, prototypes = draw(4, 3), draw(2, 3), draw(5, 3)

    def soft(row: Tensor) -> list[float]:
        cosines = [torch.cosine_similarity(row, other, 0).item() for other in prototypes]
        weights = [math.exp(c / 0.1) for c in cosines]
        return [w / sum(weights) for w in weights]

    total, mean = 0.0, [0.0] * 5
    for number in range(4):
        p, q = soft(anchors[number]), [value**4 for value in soft(seen[number % 2])]
        total -= sum(b / sum(q) * math.log(a) for a, b in zip(p, q, strict=True)) / 4
        mean = [m + a / 4 for m, a in zip(mean, p, strict=True)]
    total += math.log(5) + sum(m * math.log(m) for m in mean)
    logs = log_assignments(anchors, prototypes, 0.1)
    targets = sharpened(log_assignments(seen, prototypes, 0.1), 0.25, balance=False)
    assert msn(logs, targets, 1.0).item() == pytest.approx(total, rel=1e-9)


def test_half_precision_is_raised_inside_autocast() -> None:
    x, prototypes = draw(6, 4).bfloat16(), draw(8, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logs = log_assignments(x, prototypes, 0.1)
        loss = msn(logs, sharpened(logs, 0.25, balance=True), 1.0)
    assert logs.dtype == loss.dtype == torch.float32
    exact = log_assignments(x.double(), prototypes.double(), 0.1)
    torch.testing.assert_close(logs.double(), exact, rtol=1e-4, atol=1e-4)


def test_the_method_matches_a_masked_and_small_views_to_one_whole_view() -> None:
    method = build()
    batch = conformance.memorised(method)
    method.double().eval()  # so that batch norm does not see the order of views
    batch.views = {name: [x.double() for x in views] for name, views in batch.views.items()}
    keep = method.keep(conformance.BATCH, conformance.step_at("main", 0).rng)
    assert keep.shape[1] == int(0.85 * 16)
    random = method.backbone.tokens(batch.view("random"), keep)
    views = [random, *(method.backbone.tokens(view) for view in batch.views["local"])]
    anchors = torch.cat([method.projector(view[:, 0]) for view in views])
    targets = method.teacher_projector(method.teacher.tokens(batch.view("target"))[:, 0])
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    torch.testing.assert_close(
        loss, MSNLoss()(anchors, targets, method.prototypes), rtol=1e-9, atol=0
    )
    near = torch.cosine_similarity(anchors[: len(batch), None], targets[None], 2).argmax(1)
    hits = (near == torch.arange(len(batch))).double().mean().item()
    assert step.logged["match_top1"].item() == pytest.approx(100 * hits)


def test_dropped_patches_are_not_seen_and_the_teacher_gets_no_gradient() -> None:
    method = build(patch_drop=0.5)
    batch = conformance.memorised(method)
    for views in batch.views.values():
        views[0].requires_grad_()
    method.loss(batch, conformance.step_at("main", 0)).backward()
    gradient = batch.view("random").grad
    assert gradient is not None and batch.view("target").grad is None
    patches = gradient.abs().unfold(2, 8, 8).unfold(3, 8, 8).amax((1, 4, 5)).flatten(1)
    keep = method.keep(conformance.BATCH, conformance.step_at("main", 0).rng)
    kept = torch.zeros_like(patches).scatter(1, keep, 1.0).bool()
    assert (patches[~kept] == 0).all() and (patches[kept] > 0).all()
    assert method.prototypes.grad is not None
    for name, parameter in method.named_parameters():
        assert not name.startswith("teacher") or parameter.grad is None


def test_the_teacher_follows_evenly_slower_as_officially() -> None:
    method = build(momentum=0.9)
    with torch.no_grad():
        method.projector[0].bias.fill_(1.0)
        step = conformance.step_at("main", 4, total=8)
        method.teacher_projector[0].bias.zero_()
        method.after_step(step)
    # 0.9 + 0.1 * i / (1.25 * steps), as the generator of msn_train.py counts.
    expected = 1 - (0.9 + 0.1 * 4 / (1.25 * 8))
    assert method.teacher_projector[0].bias[0].item() == pytest.approx(expected, rel=1e-5)


def test_without_mean_entropy_and_balance_fewer_prototypes_are_used() -> None:
    used = []
    for guarded in (True, False):
        method = build(balance=guarded, memax=float(guarded), prototypes=32, momentum=0.5)
        batch = conformance.memorised(method.train())
        optimizer = torch.optim.Adam(method.parameters_for("main"), lr=3e-3)
        for index in range(15):
            step = conformance.step_at("main", index)
            optimizer.zero_grad()
            method.loss(batch, step).backward()
            optimizer.step()
            with torch.no_grad():
                method.after_step(step)
        used.append({key: value.item() for key, value in step.logged.items()})
    assert used[0]["mean_entropy"] > 0.8 * math.log(32)
    assert used[1]["mean_entropy"] < used[0]["mean_entropy"] - 0.5
    assert used[1]["target_information"] < used[0]["target_information"] - 0.2


def test_other_networks_too_many_prototypes_and_one_picture_are_refused_in_one_line() -> None:
    with pytest.raises(BenchError, match="vision transformer with a class token"):
        build("small")
    with pytest.raises(BenchError, match="set fewer prototypes"):
        build(prototypes=2**40)
    with pytest.raises(BenchError, match="at least 2"):
        build(batch_size=1)
