"""Tracking: the tracker on known shifts and against a loop, the triplet loss, its negatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import conformance, registry, rng
from bench.api import Step
from bench.data.ops import Normalize
from bench.errors import BenchError
from bench.nn.patch_tracker import most_moving, track, windows
from bench.resolve import method_config
from methods.tracking import BARRED, Tracking

SIDE, REACH = 10, 4


def build(**settings: object) -> Tracking:
    cfg = method_config(Tracking, "tracking", "small", {"batch_size": 16, **settings})
    plain = conformance.build(Tracking, "tracking")
    return registry.method("tracking")(cfg, plain.backbone, conformance.toy_info())


def textured(count: int, size: int, name: str) -> Tensor:
    return torch.rand(count, 3, size, size, generator=rng.generator(name))


def at(progress: float) -> Step:
    step = conformance.step_at("main", round(100 * progress), total=100)
    assert step.progress == pytest.approx(progress)
    return step


# ------------------------------------------------------------------------------------ the tracker
def test_known_shifts_are_found_under_other_light() -> None:
    world = textured(81, 24 + 2 * REACH, "world")
    shifts = torch.cartesian_prod(torch.arange(-REACH, REACH + 1), torch.arange(-REACH, REACH + 1))
    start = torch.full((81,), REACH)
    first = windows(world, start, start, 24)
    second = windows(world, start - shifts[:, 0], start - shifts[:, 1], 24) * 0.5 + 0.3
    top = torch.full((81,), 7)
    y, x = track(windows(first, top, top, SIDE), second, top, top, REACH)
    assert torch.equal(torch.stack([y - top, x - top], 1), shifts)


def test_the_best_match_is_that_of_a_loop_over_the_window_inside_the_frame() -> None:
    frame, patch = textured(12, 16, "frame"), textured(12, SIDE, "patch")
    draw = rng.generator("places")
    top, left = torch.randint(16 - SIDE + 1, (2, 12), generator=draw)
    y, x = track(patch, frame, top, left, REACH)
    for i in range(12):
        scores = {}
        for row in range(max(int(top[i]) - REACH, 0), min(int(top[i]) + REACH, 16 - SIDE) + 1):
            for col in range(
                max(int(left[i]) - REACH, 0), min(int(left[i]) + REACH, 16 - SIDE) + 1
            ):
                there = frame[i, :, row : row + SIDE, col : col + SIDE]
                pair = torch.stack([patch[i].flatten(), there.flatten()]).double()
                scores[row, col] = np.corrcoef(pair.numpy())[0, 1]
        assert (int(y[i]), int(x[i])) == max(scores, key=scores.__getitem__)


def test_the_patch_is_where_the_frames_differ_most() -> None:
    first = textured(6, 20, "still")
    second = first.clone()
    for i in range(6):
        second[i, :, 2 + i : 5 + i, 10 - i : 13 - i] += 1.0
    top, left = most_moving(first, second, 3)
    assert top.tolist() == [2 + i for i in range(6)]
    assert left.tolist() == [10 - i for i in range(6)]


def test_patches_follow_the_shift_of_the_toys_frames() -> None:
    """Its second frames show what the first do, a pixel up and a pixel right."""
    method = build(patch=0.5)
    batch = conformance.memorised(method)
    query, tracked, shift = method.patches(batch)
    top, left = most_moving(batch.view("first"), batch.view("second"), 16)
    inside = (top > 0) & (left < 16)  # else they have left the frame
    assert inside.sum() > 8
    assert (shift[inside] == torch.tensor([-1.0, 1.0])).all()
    assert torch.equal(query[inside], tracked[inside])


# --------------------------------------------------------------------------------------- the loss
def distances(method: Tracking, query: Tensor, tracked: Tensor) -> list[list[float]]:
    """The cosine distance of every query to every patch, with numpy."""
    both = torch.cat([query, tracked])
    both = F.interpolate(both, 32, mode="bilinear", align_corners=False)
    mean = torch.tensor(method.data.mean)[:, None, None]
    std = torch.tensor(method.data.std)[:, None, None]
    z = method.projector(method.backbone((both - mean) / std)).detach().double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return (1 - z[:16] @ z.T).tolist()


@pytest.mark.parametrize("margin", [0.5, 0.05])
def test_mined_loss_is_the_formula_over_the_nearest_of_other_pairs(margin: float) -> None:
    method = build(hard=1.0, margin=margin, patch=0.5).eval()
    method.ops = (Normalize(mean=method.data.mean, std=method.data.std),)
    batch = conformance.memorised(method)
    step = at(0.9)
    loss = method.loss(batch, step)
    query, tracked, _ = method.patches(batch)
    every = distances(method, query, tracked)
    total, hits = 0.0, 0
    for i in range(16):
        others = sorted(every[i][j] for j in range(32) if j % 16 != i)
        positive = every[i][16 + i]
        hits += positive < others[0]
        total += sum(max(0.0, positive - negative + margin) for negative in others[:4])
    assert loss.item() == pytest.approx(total / 64, rel=1e-4)
    assert step.logged["pretext_top1"].item() == pytest.approx(100 * hits / 16)


def barred(n: int = 16) -> Tensor:
    """Distances of which the last patches are the nearest."""
    distance = torch.linspace(1.9, 0.1, 2 * n).repeat(n, 1)
    return distance + torch.eye(n).repeat(1, 2) * BARRED


def test_negatives_are_random_at_first_and_never_of_the_same_pair() -> None:
    method = build(random_until=0.5)
    counts = torch.zeros(16, 32)
    for i in range(300):
        step = at(0.4)
        step.rng.manual_seed(i)
        chosen = method._negatives(barred(), step)
        assert chosen.shape == (16, 4)
        counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float))
    own = torch.eye(16).repeat(1, 2) > 0
    assert (counts[own] == 0).all()
    assert counts[~own].min() > 15 and counts[~own].max() < 75  # 40 are expected
    assert counts.max(1).values.max() <= 300  # none twice in one draw


@pytest.mark.parametrize(("hard", "mined"), [(1.0, 4), (0.5, 2), (0.0, 0)])
def test_later_a_share_of_the_negatives_is_the_nearest(hard: float, mined: int) -> None:
    method = build(random_until=0.5, hard=hard)
    everything = torch.zeros(16, 32)
    for i in range(200):
        step = at(0.5)
        step.rng.manual_seed(i)
        chosen = method._negatives(barred(), step)
        assert all(len(set(row)) == 4 for row in chosen.tolist())
        everything.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float))
    for i in range(16):
        nearest = [j for j in range(31, -1, -1) if j % 16 != i]
        always = {j for j in range(32) if everything[i, j] == 200}
        assert always == set(nearest[:mined])
        assert everything[i, i] == everything[i, 16 + i] == 0


# -------------------------------------------------------------------------------------- bad input
def test_a_patch_too_small_to_track_is_told() -> None:
    with pytest.raises(BenchError, match=r"patches of 6 px are too small.*method\.patch"):
        build(patch=0.2)


def test_a_batch_with_too_few_negatives_is_told() -> None:
    with pytest.raises(BenchError, match="2 pairs have fewer than 4 negatives"):
        build(batch_size=2)
