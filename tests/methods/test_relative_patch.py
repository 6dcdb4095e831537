"""Relative patch location: guards against the papers, pairs against the official code, the loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bench import backbones, conformance
from bench.errors import BenchError
from bench.nn.patch_cutter import (
    NOISE,
    PatchCutter,
    keep_channel,
    project_green_magenta,
    shift_channels,
)
from bench.nn.patch_encoder import PatchEncoder, tiled
from bench.nn.resizing import KERNELS, apply_matrix, coarsen, coarsening, resize_matrix
from bench.resolve import method_config
from bench.rng import generator
from methods.relative_patch import PLACES, RelativePatch, neighbours

INFO = conformance.toy_info()
UNGUARDED = {"gap": 0.0, "jitter": 0.0, "normalize": False, "color_drop": "none"}


@pytest.fixture
def pictures():
    return torch.rand(4, 3, 48, 48, generator=generator("patches"))


def cutter(**settings):
    size = settings.pop("size", 48)
    return PatchCutter(settings.pop("data", INFO), size, **(UNGUARDED | settings))


# ----------------------------------------------------------------------------- where patches lie
@pytest.mark.parametrize(
    ("size", "gap", "jitter", "expected"),
    [
        (400, 48 / 96, 14 / 96, (96, 48, 14)),  # Doersch
        (255, 21 / 64, 21 / 64, (64, 21, 21)),  # Noroozi
        (48, 0, 0, (16, 0, 0)),
    ],
)
def test_the_papers_pixels_follow_from_the_shares(size, gap, jitter, expected):
    data = replace(INFO, size=size)
    made = cutter(data=data, size=size, gap=gap, jitter=jitter)
    assert (made.side, made.gap, made.jitter) == expected


@pytest.mark.parametrize("size", range(24, 100, 5))
def test_the_largest_patches_that_fit_are_cut(size):
    made = cutter(data=replace(INFO, size=size), size=size, gap=0.5, jitter=14 / 96)
    x = torch.rand(2, 3, size, size, generator=generator(size))
    assert made(x, generator(1)).shape == (2, 9, 3, made.side, made.side)
    larger = made.side + 1
    assert 3 * larger + 2 * round(0.5 * larger) + round(14 / 96 * larger) > size


def test_patches_without_jitter_are_those_of_the_encoder_and_slices(pictures):
    made = cutter(gap=0.5)  # 12 px patches, 6 apart
    (still,) = made.still(INFO.normalize(pictures))
    patches = made(pictures, generator(1))
    torch.testing.assert_close(still, patches)
    for number in range(9):
        top, left = (18 * k for k in divmod(number, 3))
        expected = (pictures[:, :, top : top + 12, left : left + 12] - 0.5) / 0.25
        torch.testing.assert_close(patches[:, number], expected)


def test_the_encoders_patches_lie_in_the_middle_of_where_training_took_them():
    rows = torch.arange(48.0).view(1, 1, 48, 1).expand(1, 3, 48, 48)
    made = cutter(gap=0.5, jitter=0.4)
    tops = torch.cat([made(rows, generator(i))[..., 0, 0] for i in range(300)])
    (still,) = made.still(INFO.normalize(rows))
    middle = (tops.amin(0) + tops.amax(0)) / 2
    assert (tops.amax(0) - tops.amin(0)).unique().item() * 0.25 == made.jitter
    assert ((still[0, :, :, 0, 0] - middle).abs() * 0.25 <= 0.5).all()


# ------------------------------------------------------------------------------------ the guards
def test_normalised_patches_have_lost_brightness_and_contrast(pictures):
    made = cutter(normalize=True)
    bright = pictures * torch.tensor([0.3, 0.6, 0.9]).view(3, 1, 1) + 0.1
    one, other = made(pictures, generator(1)), made(bright, generator(1))
    torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    torch.testing.assert_close(one.mean((3, 4)), torch.zeros(4, 9, 3), atol=1e-5, rtol=0)


def test_one_channel_is_kept_and_the_others_are_faint_noise(pictures):
    made = cutter(normalize=True, color_drop="channel")
    plain = cutter(normalize=True)(pictures, generator(1))
    patches = made(pictures, generator(1))
    same = (patches == plain).flatten(3).all(3)
    assert (same.sum(2) == 1).all(), "one channel of each patch is as it was"
    assert same.flatten(0, 1).any(0).all(), "each is kept somewhere"
    noise = patches[~same]
    assert noise.std().item() == pytest.approx(NOISE, rel=0.1)
    assert abs(noise.mean().item()) < NOISE / 10


def test_the_encoder_shows_each_channel_alone(pictures):
    made = cutter(normalize=True, color_drop="channel")
    renderings = made.still(INFO.normalize(pictures))
    (whole,) = cutter(normalize=True).still(INFO.normalize(pictures))
    torch.testing.assert_close(torch.stack(renderings).sum(0), whole)
    for channel, rendering in enumerate(renderings):
        assert rendering[:, :, [c for c in range(3) if c != channel]].eq(0).all()


def test_projection_removes_green_magenta_only():
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64, generator=generator("projection"))
    a = np.array([[-1.0, 2.0, -1.0]])
    matrix = np.eye(3) - a.T @ a / (a @ a.T)
    expected = np.einsum("ij,njhw->nihw", matrix, x.numpy())
    np.testing.assert_allclose(project_green_magenta(x).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("p", "grey"), [(1.0, True), (0.0, False)])
def test_grey_pictures_are_shown_as_often_as_asked(pictures, p, grey):
    made = cutter(color_drop="gray", color_drop_p=p)
    patches = made(pictures, generator(1))
    assert patches.std(2).max().lt(1e-6) == grey
    (still,) = made.still(INFO.normalize(pictures))
    assert still.std(2).max().lt(1e-6) == grey


def test_channels_are_shifted_each_on_its_own():
    x = torch.arange(20.0).expand(1, 1, 3, 20, 20).repeat(40, 9, 1, 1, 1)
    moved = shift_channels(x, 2, generator("shift")) - x
    inner = moved[..., 3:-3]
    shifts = inner[..., 0, 0]
    assert torch.equal(inner, shifts[..., None, None].expand_as(inner))
    assert shifts.unique().tolist() == [-2, -1, 0, 1, 2]
    assert (shifts[:, :, 0] != shifts[:, :, 1]).any()


# ---------------------------------------------------------------------------------- resampling
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("size", "out"), [(24, 12), (24, 9), (12, 30)])
def test_resizing_is_pillows(kernel, size, out):
    x = torch.rand(size, size, generator=generator(kernel, size, out)) * 255
    method = {"box": "BOX", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}
    picture = Image.fromarray(x.numpy())
    expected = np.asarray(picture.resize((out, out), Image.Resampling[method[kernel]]))
    got = apply_matrix(resize_matrix(size, out, kernel), x).numpy()
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_third_of_the_patches_lose_details_and_no_more():
    x = torch.rand(300, 9, 3, 12, 12, generator=generator("fine"))
    table = coarsening(12)
    out = coarsen(x, table, 0.33, 16, generator("coarse"))
    changed = (out - x).abs().flatten(2).amax(2) > 1e-5
    assert changed.float().mean().item() == pytest.approx(0.33, abs=0.03)
    # A patch that was shrunk to k px has rank k at most: k^2 is between 16 and 121.
    ranks = torch.linalg.matrix_rank(out[changed][:, 0], rtol=1e-4)
    assert ranks.min().item() == 4 and ranks.max().item() <= 11
    shrunk = F.interpolate(x[0], 5, mode="bilinear", antialias=True)
    expected = F.interpolate(shrunk, 12, mode="bilinear")
    torch.testing.assert_close(apply_matrix(table[5], x[0]), expected, atol=1e-5, rtol=0)


def test_noise_follows_the_channel_that_is_kept():
    patches = torch.rand(1, 2, 3, 50, 50, generator=generator("kept"))
    patches[:, 1] *= 10
    noise = torch.randn(patches.shape, generator=generator("noise"))
    out = keep_channel(patches, torch.tensor(2), noise)
    spread = out[:, :, 0].std((2, 3)) / patches[:, :, 2].std((2, 3))
    torch.testing.assert_close(spread, torch.full((1, 2), NOISE), rtol=0.1, atol=0)


# ------------------------------------------------------------------------------ pairs and loss
def test_places_are_the_official_labels():
    """1 2 3 / 4 . 5 / 6 7 8 by the offset of columns, then rows."""
    around = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]
    pairs = neighbours()
    assert len(pairs) == len(set(pairs)) == 40
    for first, second, place in pairs:
        offset = (second % 3 - first % 3, second // 3 - first // 3)
        assert around[place] == offset
    assert neighbours(centre_only=True) == [(4, p + (p >= 4), p) for p in range(8)]


def build(**settings):
    cfg = method_config(RelativePatch, "relative_patch", "small", {"batch_size": 16} | settings)
    return RelativePatch(cfg, backbones.build("small", 32), INFO)


@pytest.mark.parametrize("pairs", ["all", "centre"])
def test_the_loss_is_cross_entropy_over_pairs(pairs):
    method = build(pairs=pairs, hidden=8).double().eval()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop")[:3].double()]}
    batch.index = batch.index[:3]
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step).item()
    patches = method.cutter(batch.view("crop"), conformance.step_at("main", 0).rng)
    total, hits, count = 0.0, 0, 0
    for picture in patches:
        towers = [method.tower(method.backbone(patch[None])) for patch in picture]
        for first, second, place in neighbours(pairs == "centre"):
            scores = method.head(torch.cat([towers[first], towers[second]], 1))[0].tolist()
            total += math.log(sum(math.exp(s) for s in scores)) - scores[place]
            hits += scores.index(max(scores)) == place
            count += 1
    assert loss == pytest.approx(total / count, rel=1e-9)
    assert step.logged["pretext_top1"].item() == pytest.approx(100 * hits / count)


# ----------------------------------------------------------------------------------- the encoder
def test_maps_lie_as_the_patches_and_outputs_are_averaged(pictures):
    method = build(size=48, color_drop="channel")
    encoder = method.encoder().eval()
    assert isinstance(encoder, PatchEncoder)
    x = INFO.normalize(pictures)
    with torch.no_grad():
        maps, output = encoder.maps(x), encoder(x)
        renderings = method.cutter.still(x)
        single = [[method.backbone.maps(r[:, i])["stage1"] for i in range(9)] for r in renderings]
        alone = [method.backbone(r[:, i]) for r in renderings for i in range(9)]
    side = single[0][0].shape[-1]
    for number in range(9):
        top, left = (side * k for k in divmod(number, 3))
        there = maps["stage1"][:, :, top : top + side, left : left + side]
        torch.testing.assert_close(there, sum(s[number] for s in single) / 3)
    torch.testing.assert_close(output, sum(alone) / 27)


def test_tiles_are_put_back_where_they_were(pictures):
    patches = cutter()(pictures, generator(1))
    torch.testing.assert_close(INFO.rgb(tiled(patches)), pictures)


def test_the_picture_asks_for_every_place_once():
    method = build().eval()
    batch = conformance.memorised(method)
    with torch.no_grad():
        *_, put = method.picture(batch, conformance.step_at("main", 0))
    asked = [caption.split(",")[0] for caption in put.captions]
    assert asked == [f"is {place}" for place in PLACES]


def test_pictures_smaller_than_the_grid_are_one_clear_line():
    with pytest.raises(BenchError, match="too small for a 3 x 3 grid") as error:
        RelativePatch(
            method_config(RelativePatch, "relative_patch", "small", {}),
            backbones.build("small", 16),
            replace(INFO, size=16),
        )
    assert "\n" not in str(error.value)
