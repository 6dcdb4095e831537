"""Jigsaw: permutation sets against the paper's table, the loss by loops over shuffled patches."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from bench import backbones, conformance
from bench.errors import BenchError
from bench.nn import permutations
from bench.nn.patch_encoder import tiled
from bench.nn.permutations import farthest_permutations, permutation_set
from bench.resolve import method_config
from methods.jigsaw import Jigsaw

INFO = conformance.toy_info()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))


def build(**settings):
    small = {"batch_size": 16, "permutations": 24, "hidden": 16, "tower": 8}
    cfg = method_config(Jigsaw, "jigsaw", "small", small | settings)
    return Jigsaw(cfg, backbones.build("small", 32), INFO)


# -------------------------------------------------------------------------------- permutations
@pytest.mark.parametrize("count", [24, 64, 100])
def test_the_average_distance_is_the_greatest_there_can_be(count):
    """It is where every patch is as often in every place: 8.08 for 100 (the paper has 8.08)."""
    chosen = farthest_permutations(count, 9)
    assert chosen.sort(1).values.eq(torch.arange(9)).all() and len(chosen.unique(dim=0)) == count
    pairs = list(itertools.combinations(chosen.tolist(), 2))
    distances = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs]
    low, more = divmod(count, 9)  # how often each patch is in each place, at best
    shared = 9 * (more * math.comb(low + 1, 2) + (9 - more) * math.comb(low, 2))
    assert sum(distances) / len(pairs) == pytest.approx(9 - shared / len(pairs))
    assert min(distances) >= 4


def test_greedy_choices_are_those_of_plain_loops():
    """Length 4, all 24: greatest total distance, then greatest to the nearest, then the first."""

    def distance(one, other):
        return sum(a != b for a, b in zip(one, other, strict=True))

    left = list(itertools.permutations(range(4)))
    expected = [left.pop(0)]
    while left:
        best = max(
            left,
            key=lambda p: (
                sum(distance(p, q) for q in expected),
                min(distance(p, q) for q in expected),
            ),
        )
        left.remove(best)
        expected.append(best)
    assert farthest_permutations(24, 4).tolist() == [list(p) for p in expected]
    assert farthest_permutations(7, 4).tolist() == [list(p) for p in expected[:7]]


def test_sets_are_kept(monkeypatch):
    first = permutation_set(24)
    monkeypatch.setattr(permutations, "farthest_permutations", None)  # would raise if called
    again = permutation_set(24)
    assert torch.equal(first, again) and first.dtype == again.dtype == torch.int64


@pytest.mark.parametrize("count", [1, 362_881])
def test_more_permutations_than_there_are_is_one_clear_line(count):
    with pytest.raises(BenchError, match=f"{count} permutations of 9 .* 2 to 362880") as error:
        build(permutations=count)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------- loss
def test_the_loss_is_cross_entropy_over_shuffled_patches():
    method = build(puzzles=2).double().eval()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop")[:3].double()]}
    batch.index = batch.index[:3]
    step, same = (conformance.step_at("main", 0) for _ in range(2))
    loss = method.loss(batch, step).item()
    patches = method.cutter(batch.view("crop"), same.rng)
    drawn = method.draw(3, 2, same).tolist()
    total, hits = 0.0, 0
    for puzzle, picture in itertools.product(range(2), range(3)):
        number = drawn[puzzle][picture]
        shuffled = [patches[picture, at] for at in method.orders[number].tolist()]
        towers = [method.tower(method.backbone(patch[None])) for patch in shuffled]
        scores = method.head(torch.cat(towers, 1))[0].tolist()
        total += math.log(sum(math.exp(s) for s in scores)) - scores[number]
        hits += scores.index(max(scores)) == number
    assert loss == pytest.approx(total / 6, rel=1e-9)
    assert step.logged["pretext_top1"].item() == pytest.approx(100 * hits / 6)


def test_every_permutation_is_drawn_as_often():
    method = build()
    drawn = method.draw(2400, 10, conformance.step_at("main", 0))
    counts = drawn.flatten().bincount(minlength=24)
    assert drawn.shape == (10, 2400) and (counts / 1000 - 1).abs().max() < 0.12


# --------------------------------------------------------------------------------- the picture
def test_a_solved_puzzle_shows_the_picture_again(monkeypatch):
    method = build(normalize=False, color_drop="none", jitter=0.0, gap=0.0).eval()
    batch = conformance.memorised(method)

    def solved(patches, drawn):
        return torch.nn.functional.one_hot(drawn.flatten(), 24).float()

    monkeypatch.setattr(method, "logits", solved)
    with torch.no_grad():
        picture, shuffled, restored = method.picture(batch, conformance.step_at("main", 0))
    side = restored.tiles.shape[-1]
    top = (picture.tiles.shape[-1] - side) // 2
    there = picture.tiles[:, :, top : top + side, top : top + side]
    torch.testing.assert_close(restored.tiles, there)
    assert not torch.allclose(shuffled.tiles, there)
    assert restored.good == (True,) * 8 and set(restored.captions) == {"9 of 9 right"}


def test_a_wrong_guess_is_counted_and_shown(monkeypatch):
    method = build(normalize=False, color_drop="none", jitter=0.0, gap=0.0).eval()
    batch = conformance.memorised(method)
    monkeypatch.setattr(method, "draw", lambda n, puzzles, step: torch.ones(1, n, dtype=torch.long))
    monkeypatch.setattr(method, "logits", lambda patches, drawn: torch.eye(24)[0].expand(8, 24))
    with torch.no_grad():
        _, shuffled, restored = method.picture(batch, conformance.step_at("main", 0))
    # Permutation 0 is the identity: nothing is moved, and 1 moves every patch.
    assert method.orders[0].tolist() == list(range(9))
    assert torch.equal(restored.tiles, shuffled.tiles)
    assert restored.good == (False,) * 8 and set(restored.captions) == {"0 of 9 right"}
    patches = method.cutter(batch.view("crop")[:8], conformance.step_at("main", 0).rng)
    expected = tiled(INFO.rgb(patches[:, method.orders[1]]))
    torch.testing.assert_close(shuffled.tiles, expected)


def test_the_encoder_sees_colour_unless_training_never_did():
    x = torch.randn(2, 3, 32, 32)
    (coloured,) = build().cutter.still(x)
    (grey,) = build(color_drop_p=1.0).cutter.still(x)
    assert coloured.std(2).min() > 1e-3 and grey.std(2).max() < 1e-5


def test_pictures_smaller_than_the_grid_are_one_clear_line():
    cfg = method_config(Jigsaw, "jigsaw", "small", {})
    with pytest.raises(BenchError, match="too small for a 3 x 3 grid") as error:
        Jigsaw(cfg, backbones.build("small", 14), replace(INFO, size=14))
    assert "\n" not in str(error.value)
