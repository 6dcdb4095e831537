"""Colorization by bins, by regression and by hypercolumns: losses by loops, and who sees what."""

from __future__ import annotations

import colorsys
import math
from pathlib import Path

import kornia
import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor
from torch.nn import functional as F

from bench import conformance, rng, runner
from bench.api import Encoder, Method
from bench.data import catalog
from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.dataset import DataOptions, MemoryImages
from bench.errors import BenchError
from bench.kernels import color_ce
from bench.nn import hue_chroma
from bench.nn.color_bins import ColorBins, bin_shares
from bench.nn.dense_head import DenseHead
from bench.progress import Reporter
from bench.resolve import method_config, parse_sets, resolve
from methods.colorization import Colorization
from methods.hypercolumn_colorization import HypercolumnColorization, hypercolumns

STEP = conformance.step_at("main", 0)


def made(cls: type[Method], name: str, **settings: object) -> Method:
    cfg = method_config(cls, name, "small", {"batch_size": conformance.BATCH, **settings})
    backbone = conformance.build(cls, name).backbone
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(cfg, backbone, conformance.toy_info())


def twins(method: Method) -> tuple[Tensor, Tensor]:
    """Normalised pictures of the same lightness and the same mean of R, G, B; other colours."""
    draw = rng.generator("twins")
    gray = torch.full((2, 1, 32, 32), 0.5, dtype=torch.float64)
    lab = rgb_to_lab((gray + 0.1 * torch.rand(2, 1, 32, 32, generator=draw)).expand(-1, 3, -1, -1))
    ab = torch.rand(2, 2, 32, 32, generator=draw, dtype=torch.float64) * 20 - 10
    one, other = (lab_to_rgb(torch.cat([lab[:, :1], color], 1)) for color in (ab, -ab))
    return method.data.normalize(one), method.data.normalize(other)


def same(encoder: Encoder, one: Tensor, other: Tensor) -> bool:
    with torch.no_grad():
        pairs = [(encoder(one), encoder(other))]
        pairs += zip(encoder.maps(one).values(), encoder.maps(other).values(), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in pairs)


def test_the_encoder_sees_lightness_alone() -> None:
    method = made(Colorization, "colorization").double().eval()
    one, other = twins(method)
    assert same(method.encoder(), one, other)
    assert not same(method.backbone, one, other)


def test_the_hypercolumn_encoder_sees_the_mean_of_the_channels_alone() -> None:
    method = made(HypercolumnColorization, "hypercolumn_colorization").double().eval()
    rgb = torch.rand(2, 3, 32, 32, generator=rng.generator("mean"), dtype=torch.float64)
    one, other = (method.data.normalize(x) for x in (rgb, rgb.roll(1, 1)))
    assert same(method.encoder(), one, other)
    assert not same(method.backbone, one, other)


def test_the_encoder_is_fed_as_in_training() -> None:
    for cls, name in (
        (Colorization, "colorization"),
        (HypercolumnColorization, "hypercolumn_colorization"),
    ):
        method = made(cls, name)
        batch = conformance.memorised(method)
        seen: list[Tensor] = []
        first = next(m for m in method.backbone.modules() if isinstance(m, torch.nn.Conv2d))
        hook = first.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        method.loss(batch, STEP)
        method.encoder()(method.data.normalize(batch.view("crop")))
        hook.remove()
        torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-4)


def test_regression_is_half_the_squared_error_at_every_fourth_pixel() -> None:
    method = made(Colorization, "colorization", target="l2").double()
    batch = conformance.memorised(method)
    rgb = batch.view("crop").double()
    batch.views = {"crop": [rgb]}
    loss = method.loss(batch, STEP)
    lab = kornia.color.rgb_to_lab(rgb)
    out = method.head(method.backbone.maps((lab[:, :1].expand(-1, 3, -1, -1) - 50) / 25))
    total = 0.0
    for row in range(8):
        for col in range(8):
            truth = lab[:, 1:, 4 * row + 2, 4 * col + 2] / 20
            total += (out[:, :, row, col] - truth).square().sum().item() / 2
    # kornia's white point has one digit less.
    assert loss.item() == pytest.approx(total / (conformance.BATCH * 64), rel=1e-3)


def test_bins_weigh_by_the_colours_of_the_training_pictures() -> None:
    """`initialize` counts the bins; the loss weighs them by the official formula."""
    method = made(Colorization, "colorization").double()
    assert method.shares.std() == 0
    batch = conformance.memorised(method)
    images = conformance.toy_split().images
    assert isinstance(images, MemoryImages)
    every = rgb_to_lab(images.pixels.double() / 255)[:, 1:, 2::4, 2::4]
    torch.testing.assert_close(method.shares, bin_shares(every, ColorBins().double()))
    batch.views = {"crop": [batch.view("crop").double()]}
    loss = method.loss(batch, STEP)
    lab = rgb_to_lab(batch.view("crop"))
    raw = 1 / (0.5 * method.shares + 0.5 / 313)
    weights = raw / (method.shares * raw).sum()
    out = method.head(method.backbone.maps(((lab[:, :1] - 50) / 25).expand(-1, 3, -1, -1)))
    ab = lab[:, 1:, 2::4, 2::4]
    expected = color_ce(out, ab, ColorBins().double(), weights)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_colourless_pictures_teach_the_bins_nothing() -> None:
    method = made(Colorization, "colorization")
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").mean(1, keepdim=True).expand(-1, 3, -1, -1)]}
    method.loss(batch, STEP).backward()
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())


def test_the_head_puts_every_map_onto_the_grid() -> None:
    backbone = conformance.build(Colorization, "colorization").backbone
    head = DenseHead(backbone, 32, side=8, outputs=5, width=6).double().eval()
    backbone.double().eval()
    x = torch.rand(2, 3, 32, 32, generator=rng.generator("head"), dtype=torch.float64)
    maps = backbone.maps(x)
    hidden = torch.zeros(2, 6, 8, 8, dtype=torch.float64)
    for layer, conv in head.projections.items():
        value = maps[layer]
        if value.shape[2] > 8:
            value = value.unflatten(3, (8, -1)).mean(4).unflatten(2, (8, -1)).mean(3)
        else:
            value = F.interpolate(value, (8, 8), mode="bilinear")
        hidden += torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], value)
    torch.testing.assert_close(head(maps), head.predict(head.norm(hidden).relu()))


def test_a_backbone_without_maps_is_told() -> None:
    class Blind(Encoder):
        dim = 1

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1, 0, 0]

    with pytest.raises(BenchError, match="Blind gives no feature maps; choose"):
        DenseHead(Blind(), 32, 8, 2)


# ----------------------------------------------------------------------------------- hypercolumns
def test_hypercolumns_are_the_maps_enlarged_to_the_picture() -> None:
    draw = rng.generator("columns")
    maps = [
        torch.rand(2, c, s, s, generator=draw, dtype=torch.float64) for c, s in ((3, 16), (2, 4))
    ]
    rows, cols = torch.randint(32, (2, 2, 7), generator=draw)
    whole = torch.cat([F.interpolate(x, (32, 32), mode="bilinear") for x in maps], 1)
    got = hypercolumns(maps, rows, cols, 32)
    for n in range(2):
        for p in range(7):
            expected = whole[n, :, rows[n, p], cols[n, p]]
            torch.testing.assert_close(got[n, p], expected)


def test_hue_and_chroma_are_colorsys_and_the_spread_of_the_channels() -> None:
    rgb = torch.rand(1, 3, 4, 4, generator=rng.generator("hue"), dtype=torch.float64)
    hue, chroma = hue_chroma.hue_and_chroma(rgb)
    for pixel, h, c in zip(
        rgb[0].flatten(1).T.tolist(), hue.flatten(), chroma.flatten(), strict=True
    ):
        assert h.item() == pytest.approx(colorsys.rgb_to_hsv(*pixel)[0])
        assert c.item() == pytest.approx(max(pixel) - min(pixel))


def test_the_hypercolumn_loss_is_the_papers_by_loops() -> None:
    name = "hypercolumn_colorization"
    method = made(HypercolumnColorization, name, points=3, bins=6, window=3).double()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").double()]}
    rgb, n = batch.view("crop"), conformance.BATCH
    draw = conformance.step_at("main", 0)
    loss = method.loss(batch, draw)
    again = conformance.step_at("main", 0).rng
    rows, cols = torch.randint(32, (2, n, 3), generator=again)
    log_hue, log_chroma = method.log_histograms(rgb, rows, cols)
    total = 0.0
    for picture in range(n):
        for point in range(3):
            hues, chromas = np.zeros(6), np.zeros(6)
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    row = min(max(rows[picture, point].item() + down, 0), 31)
                    col = min(max(cols[picture, point].item() + right, 0), 31)
                    pixel = rgb[picture, :, row, col].tolist()
                    spread = max(pixel) - min(pixel)
                    hues[min(int(colorsys.rgb_to_hsv(*pixel)[0] * 6), 5)] += 1
                    chromas[min(int(spread * 6), 5)] += 1
                    if down == right == 0:
                        own = spread
            total += entropy(chromas, log_chroma[picture, point].exp().detach())
            total += 5 * own * entropy(hues, log_hue[picture, point].exp().detach())
    assert loss.item() == pytest.approx(total / (3 * n), rel=1e-6)


def test_sure_histograms_decode_to_their_colour_and_unsure_ones_to_grey() -> None:
    bins = 32
    for hue, chroma in ((0.0, 0.5), (0.3, 0.9), (0.71, 0.2)):
        at = [min(int(value * bins), bins - 1) for value in (hue, chroma)]
        sure = [F.one_hot(torch.tensor([[i]]), bins).double() for i in at]
        middle = [(i + 0.5) / bins for i in at]
        expected = torch.tensor(colorsys.hsv_to_rgb(middle[0], 1.0, middle[1]))
        got = hue_chroma.decode(*sure)[0, :, 0]
        torch.testing.assert_close(got, expected.double(), rtol=0, atol=1e-6)
    uniform = torch.full((1, 1, bins), 1 / bins, dtype=torch.float64)
    assert hue_chroma.decode(uniform, sure[1]).abs().max() < 1e-6
    opposite = torch.zeros(1, 1, bins, dtype=torch.float64)
    opposite[..., 0], opposite[..., bins // 2] = 0.51, 0.49  # a mean of length 0.02 < eta
    faded = hue_chroma.decode(opposite, sure[1]).amax().item()
    assert faded == pytest.approx(middle[1] * 0.02 / 0.03, rel=1e-5)


def test_hue_is_learnt_in_proportion_to_chroma() -> None:
    """Pixels without chroma have no hue: they send no gradient into its histogram."""
    method = made(HypercolumnColorization, "hypercolumn_colorization")
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").mean(1, keepdim=True).expand(-1, 3, -1, -1)]}
    method.loss(batch, STEP).backward()
    hue, chroma = method.head[-1].weight.grad.chunk(2)
    assert hue.abs().max() == 0
    assert chroma.abs().max() > 0


# ------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("name", ["colorization", "hypercolumn_colorization", "split_brain"])
def test_grey_data_is_told_at_once(name: str, results: Path) -> None:
    data = catalog.load("digits", DataOptions())
    overrides = parse_sets([]) | {"engine": {"device": "cpu"}}
    resolved = resolve(
        method=name,
        protocol="knn",
        data="digits",
        size=data.info.size,
        backbone="small",
        seed=0,
        recipe="auto",
        overrides=overrides,
    )
    with pytest.raises(BenchError, match=f"method {name} needs color; digits has none"):
        runner.run(resolved, data, results, Reporter(quiet=True))


@pytest.mark.parametrize("settings", [{"target": "l1"}, {"gamma": 1.5}, {"temperature": 0.0}])
def test_settings_out_of_range_are_told(settings: dict[str, object]) -> None:
    with pytest.raises(BenchError, match=next(iter(settings))):
        method_config(Colorization, "colorization", "paper", settings)


def test_chance_is_what_an_untrained_network_reaches() -> None:
    method = made(Colorization, "colorization")
    step = conformance.step_at("main", 0)
    loss = method.loss(conformance.memorised(method), step)
    assert step.logged["pretext_top1"] < 15
    assert loss.item() == pytest.approx(math.log(313), rel=0.5)
