"""Triplet loss against loops in float64, what each mining keeps, and the collapse it prevents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench import backbones, conformance, rng
from bench.api import Batch
from bench.data.views import render
from bench.errors import BenchError
from bench.resolve import method_config
from methods.triplet import Mining, Triplet, matches, triplets

PICTURES, MARGIN = 6, 0.2
MINING: tuple[Mining, ...] = ("semi-hard", "hard", "all")


def embeddings() -> Tensor:
    """Views of 6 pictures close enough that every mining finds triplets, and drops some."""
    draw = rng.generator("triplet")
    base = torch.randn(PICTURES, 3, generator=draw, dtype=torch.float64).repeat(2, 1)
    noise = torch.randn(2 * PICTURES, 3, generator=draw, dtype=torch.float64)
    return (base + 0.5 * noise).requires_grad_()


def distances(x: Tensor) -> Tensor:
    unit = x / x.norm(dim=1, keepdim=True)
    return 2 - 2 * unit @ unit.T


def build(**settings: object) -> Triplet:
    cfg = method_config(Triplet, "triplet", "small", {"batch_size": conformance.BATCH} | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Triplet(cfg, backbones.build("small", 32), conformance.toy_info()).train()


def by_loops(x: Tensor, mining: str) -> tuple[Tensor, int]:
    """The sum of active triplets' losses and their number, one triplet at a time."""
    unit = [row / row.norm() for row in x]
    total, active = x.new_zeros(()), 0
    for a in range(2 * PICTURES):
        p = (a + PICTURES) % (2 * PICTURES)
        near = (unit[a] - unit[p]).square().sum()
        others = [n for n in range(2 * PICTURES) if n % PICTURES != a % PICTURES]
        far = {n: (unit[a] - unit[n]).square().sum() for n in others}
        if mining == "semi-hard":
            others = [n for n in others if far[n] > near]
        if mining != "all":
            others = sorted(others, key=lambda n, far=far: far[n].item())[:1]
        for n in others:
            value = near - far[n] + MARGIN
            if value > 0:
                total, active = total + value, active + 1
    return total, active


@pytest.mark.parametrize("mining", MINING)
def test_values_and_gradients_are_those_of_loops(mining: Mining) -> None:
    x = embeddings()
    hinge = triplets(distances(x), MARGIN, mining)
    total, active = by_loops(x, mining)
    assert 0 < active < 2 * PICTURES * (2 * PICTURES - 2), "some triplets are kept, some are not"
    assert int((hinge > 0).sum()) == active
    torch.testing.assert_close(hinge.sum(), total, rtol=1e-12, atol=1e-12)
    (ours,), (theirs,) = (torch.autograd.grad(value, x) for value in (hinge.sum(), total))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_semi_hard_negatives_lie_between_the_positive_and_the_margin() -> None:
    """Anchor 0: positive at 0.5; negatives at 0.4 (hard), 0.6 and 0.65 (semi-hard), 0.8 (easy)."""
    distance = torch.full((10, 10), 2.0)
    distance[0, [0, 5, 1, 2, 3, 4]] = torch.tensor([0, 0.5, 0.4, 0.65, 0.6, 0.8])
    kept = {mining: triplets(distance, MARGIN, mining)[0] for mining in MINING}
    places = {mining: row.nonzero()[:, 0].tolist() for mining, row in kept.items()}
    assert places == {"semi-hard": [3], "hard": [1], "all": [1, 2, 3]}
    assert not matches(distance)[0]
    distance[0, 5] = 0.3
    assert matches(distance)[0]


def test_the_loss_is_the_mean_over_active_triplets_of_both_views() -> None:
    method = build()
    batch = conformance.memorised(method)
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    one, two = batch.views["view"]
    out = method.projector(method.backbone(torch.cat([one, two])))
    hinge = triplets(distances(out), MARGIN, "semi-hard")
    assert loss.item() == pytest.approx(hinge.sum().item() / (hinge > 0).sum().item(), rel=1e-4)
    share = 100 * (hinge > 0).any(1).float().mean().item()
    assert step.logged["active"].item() == pytest.approx(share)


def test_without_an_active_triplet_the_loss_is_zero_and_so_is_its_gradient() -> None:
    x = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3] * 2].requires_grad_()
    hinge = triplets(distances(x), MARGIN, "all")
    assert hinge.sum() == 0
    assert torch.autograd.grad(hinge.sum(), x)[0].abs().sum() == 0


@pytest.mark.parametrize(("mining", "low", "high"), [("semi-hard", 0.6, 1), ("hard", 0, 0.1)])
def test_hard_mining_collapses_and_semi_hard_does_not(mining: str, low: float, high: float) -> None:
    """FaceNet, section 3.2: the hardest negatives can lead to f(x) = 0 early on."""
    method = build(mining=mining, hidden=0)  # the paper's; batch norm would delay the collapse
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    pixels = conformance.toy_split().images.pixels  # type: ignore[union-attr]
    step = conformance.step_at("main", 0)
    for number in range(30):
        index = torch.randperm(len(pixels), generator=rng.generator("order", number))[:16]
        views = render(method.views()[0], pixels[index], rng.generator("view", number))
        loss = method.loss(Batch({"view": views}, index), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert low < step.logged["embedding_std"].item() < high
    if mining == "hard":
        assert loss.item() == pytest.approx(MARGIN, rel=0.1), "all distances are about 0"


def test_one_picture_has_no_negatives() -> None:
    with pytest.raises(BenchError, match="at least 2 pictures"):
        build(batch_size=1)
