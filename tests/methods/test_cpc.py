"""CPC: the grid, the masked context, the loss against loops in float64, and who sees whom."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench import backbones, conformance, rng
from bench.api import Batch
from bench.errors import BenchError
from bench.nn.patch_grid import PatchGrid
from bench.nn.row_context import RowContext
from bench.resolve import method_config
from methods.cpc import CPC

INFO = conformance.toy_info()
SMALL = {"size": 40, "grid": 4, "patch": 16, "stride": 8, "jitter": 0, "color": "rgb"}
PICTURES = torch.rand(3, 3, 40, 40, generator=rng.generator("cpc"))


def build(**settings: object) -> CPC:
    changes = {"epochs": 2, "batch_size": 3, "blocks": 2} | SMALL | settings
    cfg = method_config(CPC, "cpc", "small", changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CPC(cfg, backbones.build("small", 16), INFO).train()


def batch_of(rgb: Tensor) -> Batch:
    return Batch({"crop": [rgb]}, torch.arange(len(rgb)))


def grid_of(**settings: object) -> PatchGrid:
    plain = {"grid": 4, "patch": 16, "stride": 8, "jitter": 0, "color": "rgb", "drop": 0.0}
    return PatchGrid(INFO, 40, **(plain | settings))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- the grid
def test_patches_overlap_by_half_and_go_row_by_row() -> None:
    patches = grid_of()(PICTURES, rng.generator(0))
    for number in range(16):
        row, column = divmod(number, 4)
        cell = PICTURES[:, :, 8 * row : 8 * row + 16, 8 * column : 8 * column + 16]
        torch.testing.assert_close(patches[:, number], INFO.normalize(cell))


def test_the_papers_grid_covers_its_256_pixels() -> None:
    cfg = method_config(CPC, "cpc", "paper", {})
    assert (cfg.grid - 1) * cfg.stride + cfg.patch == cfg.size == 256
    assert cfg.grid == 7


def test_moved_patches_lie_around_those_that_the_encoder_sees() -> None:
    rows = torch.arange(40.0).view(1, 1, 40, 1).expand(1, 3, 40, 40)
    grid = grid_of(jitter=4)
    tops = INFO.rgb(torch.cat([grid(rows, rng.generator(i)) for i in range(200)]))[..., 0, 0]
    (still,) = grid.still(INFO.normalize(rows))
    assert still.shape == (1, 16, 3, 12, 12)
    middle = (tops.amax(0) + tops.amin(0)) / 2
    torch.testing.assert_close(INFO.rgb(still)[0, :, :, 0, 0], middle)
    assert (tops.amax(0) - tops.amin(0)).unique().tolist() == [4]


def test_dropped_patches_keep_one_channel_each_its_own() -> None:
    patches = grid_of(color="drop", drop=0.5)(PICTURES, rng.generator(1))
    plain = grid_of()(PICTURES, rng.generator(1))
    kept = (patches == plain).flatten(3).all(3)
    assert kept.sum(2).unique().tolist() == [1, 3]
    assert (patches[~kept] == 0).all()
    assert 0.3 < (kept.sum(2) == 1).float().mean() < 0.7
    one = kept[kept.sum(2) == 1]
    assert one.any(0).all(), "each channel is kept somewhere"


@pytest.mark.parametrize(("settings", "renderings"), [({"drop": 0.5}, 1), ({"drop": 1.0}, 3)])
def test_the_encoder_shows_what_training_showed(
    settings: dict[str, float], renderings: int
) -> None:
    shown = grid_of(color="drop", **settings).still(INFO.normalize(PICTURES))
    (whole,) = grid_of().still(INFO.normalize(PICTURES))
    assert len(shown) == renderings
    torch.testing.assert_close(torch.stack(shown).sum(0), whole)


def test_gray_patches_have_no_colour_in_training_and_after() -> None:
    grid = grid_of(color="gray")
    (still,) = grid.still(INFO.normalize(PICTURES))
    for patches in (still, grid(PICTURES, rng.generator(1))):
        assert patches.std(2).max() < 1e-5


# ------------------------------------------------------------------------- who sees whom
def test_no_patch_is_told_of_another_bit_for_bit() -> None:
    """Batch norm would tell it: that is the shortcut which CPC v2 found."""
    method = build()
    patches = method.grid(PICTURES, rng.generator(1))
    changed = patches.clone()
    changed[1, 5] += 1
    same = method.codes(patches) == method.codes(changed)
    told = same.all(3)
    assert not told[1, 1, 1]
    assert told.sum() == told.numel() - 1


def test_a_context_has_seen_its_row_and_those_above() -> None:
    context = RowContext(8, hidden=6, blocks=3)
    codes = torch.randn(1, 8, 5, 5, generator=rng.generator("rows"), requires_grad=True)
    for row in range(5):
        (grad,) = torch.autograd.grad(context(codes)[:, :, row].sum(), codes)
        seen = grad.abs().sum((0, 1, 3)) > 0
        assert seen.tolist() == [max(0, row - 3) <= other <= row for other in range(5)]


@pytest.mark.parametrize("number", range(4))
def test_predictions_never_see_what_they_predict(number: int) -> None:
    """Each direction turned by hand: rows ahead get no gradient through the context."""
    method = build(directions=4)
    codes = torch.randn(2, 4, 4, 256, generator=rng.generator("turn"), requires_grad=True)
    turned = torch.stack([torch.rot90(codes[i], (0, 2, 1, 3)[number], (0, 1)) for i in range(2)])
    seen = method.contexts[number](turned.permute(0, 3, 1, 2))[:, :, 1].sum()
    (grad,) = torch.autograd.grad(seen, codes)
    hit = grad.abs().sum((0, 3)) > 0
    expected = torch.zeros(4, 4, dtype=torch.bool)
    side = (slice(0, 2), slice(2, 4))
    {
        0: lambda: expected[side[0]].fill_(True),
        1: lambda: expected[side[1]].fill_(True),
        2: lambda: expected[:, side[1]].fill_(True),
        3: lambda: expected[:, side[0]].fill_(True),
    }[number]()
    assert torch.equal(hit, expected)


# --------------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize(("skip", "steps", "ahead"), [(0, 5, [1, 2, 3]), (1, 2, [2])])
def test_the_loss_and_its_gradient_are_those_of_loops(
    skip: int, steps: int, ahead: list[int]
) -> None:
    method = build(directions=2, skip=skip, steps=steps, projection=4).double()
    codes = torch.randn(2, 4, 4, 256, dtype=torch.float64, generator=rng.generator("codes"))
    codes.requires_grad_()
    method.codes = lambda patches: codes  # type: ignore[method-assign]
    step = conformance.step_at("main", 0)
    loss = method.loss(batch_of(PICTURES), step)

    totals, hits = [], []
    for number in range(2):
        turned = codes if number == 0 else codes.flip((1, 2))
        context = method.contexts[number](turned.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        keys = method.targets[number](turned)
        for at, k in enumerate(ahead):
            weight = method.predictors[number].weight[4 * at : 4 * at + 4]
            bias = method.predictors[number].bias[4 * at : 4 * at + 4]
            terms, found = [], []
            for b in range(2):
                for row in range(4 - k):
                    for column in range(4):
                        query = weight @ context[b, row, column] + bias
                        logits = (keys.reshape(-1, 4) @ query) / math.sqrt(4)
                        truth = (query @ keys[b, row + k, column]) / math.sqrt(4)
                        terms.append(logits.exp().sum().log() - truth)
                        found.append(int(logits.argmax()) == 16 * b + 4 * (row + k) + column)
            totals.append(torch.stack(terms).mean())
            hits.append(sum(found) / len(found))
    expected = torch.stack(totals).mean()
    # Logits are float32 in the loss, whatever came before.
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    top1 = 100 * sum(hits) / len(hits)
    assert step.logged["pretext_top1"].item() == pytest.approx(top1, rel=1e-5)
    wanted = [codes, *method.predictors.parameters(), *method.contexts.parameters()]
    ours = torch.autograd.grad(loss, wanted)
    theirs = torch.autograd.grad(expected, wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)


def test_the_encoder_is_the_mean_over_the_patches() -> None:
    method = build(color="gray").eval()
    x = INFO.normalize(PICTURES)
    encoder = method.encoder()
    (patches,) = method.grid.still(x)
    each = torch.stack([method.backbone(patches[:, number]) for number in range(16)])
    torch.testing.assert_close(encoder(x), each.mean(0))
    assert encoder.maps(x)["stage1"].shape == (3, 48, 16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 20}, "cover 44 px, more than size=40"),
        ({"jitter": 16}, "jitter is smaller than the patch"),
        ({"skip": 3}, "leaves no row to predict"),
        ({"steps": 2, "skip": 2}, "leaves no row to predict"),
    ],
)
def test_a_grid_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build(**settings)
