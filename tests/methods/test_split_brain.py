"""Split-brain: neither half sees what it predicts; both losses by loops."""

from __future__ import annotations

import math

import kornia
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from bench import backbones, conformance, rng
from bench.api import Method
from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.errors import BenchError
from bench.kernels.color_ce.reference import soft_labels
from bench.nn.color_bins import ColorBins
from bench.resolve import method_config
from methods.split_brain import SplitBrain

STEP = conformance.step_at("main", 0)


def made(**settings: object) -> Method:
    cfg = method_config(SplitBrain, "split_brain", "small", {"batch_size": 16, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = backbones.build("small", conformance.SIZE)
        return SplitBrain(cfg, backbone, conformance.toy_info())


def muted() -> Tensor:
    """Lab pictures well inside the gamut, where RGB and back changes nothing."""
    draw = rng.generator("muted")
    lightness = 40 + 20 * torch.rand(2, 1, 32, 32, generator=draw, dtype=torch.float64)
    ab = 20 * torch.rand(2, 2, 32, 32, generator=draw, dtype=torch.float64) - 10
    return torch.cat([lightness, ab], 1).requires_grad_()


@pytest.mark.parametrize("layer", ["output", "stem", "stage1", "stage2", "stage3"])
def test_neither_half_depends_on_what_it_has_to_predict(layer: str) -> None:
    """Gradients of the probed features by L and by ab, through RGB, in float64."""
    method = made().double().eval()
    encoder, lab = method.encoder(), muted()
    x = method.data.normalize(lab_to_rgb(lab))
    features = encoder(x) if layer == "output" else encoder.maps(x)[layer]
    seen = []
    for half in features.chunk(2, 1):
        weights = torch.randn(half.shape, generator=rng.generator("probe"), dtype=torch.float64)
        (gradient,) = torch.autograd.grad((half * weights).sum(), lab, retain_graph=True)
        seen.append([gradient[:, :1].abs().max().item(), gradient[:, 1:].abs().max().item()])
    (l_by_l, l_by_ab), (ab_by_l, ab_by_ab) = seen
    # What is left comes from the last digits of the RGB matrices, which are not quite inverse.
    assert l_by_ab < 1e-5 * l_by_l
    assert ab_by_l < 1e-5 * ab_by_ab


def test_in_training_each_half_learns_from_its_own_prediction_alone() -> None:
    method = made()
    lab = rgb_to_lab(conformance.memorised(method).view("crop"))
    halves = method.backbone
    for output, own, other in zip(
        method.predictions(lab),
        (halves.half_l, halves.half_ab),
        (halves.half_ab, halves.half_l),
        strict=True,
    ):
        method.zero_grad(set_to_none=True)
        output.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in own.parameters())
        assert all(p.grad is None for p in other.parameters())


def test_the_encoder_is_both_halves_and_no_more() -> None:
    whole = backbones.build("small", 32)
    method = made()
    encoder = method.encoder()
    assert (encoder.dim, encoder.layers) == (whole.dim, whole.layers)
    kept = sum(p.numel() for p in encoder.parameters())
    assert kept == 2 * sum(p.numel() for p in whole.half().parameters())


def test_classification_is_soft_313_way_and_hard_100_way_cross_entropy() -> None:
    method = made().double()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop")[:2].double()]}
    loss = method.loss(batch, STEP)
    lab = rgb_to_lab(batch.view("crop"))
    ab, lightness = (x.detach().numpy() for x in method.predictions(lab))
    index, share = soft_labels(lab[:, 1:, 2::4, 2::4], ColorBins().double())
    total = 0.0
    for n in range(2):
        for row in range(8):
            for col in range(8):
                log_p = log_softmax(ab[n, :, row, col])
                for q, weight in zip(index[n, :, row, col], share[n, :, row, col], strict=True):
                    total -= weight.item() * log_p[q]
                level = math.floor(lab[n, 0, 4 * row + 2, 4 * col + 2].item())
                total -= log_softmax(lightness[n, :, row, col])[level]
    assert loss.item() == pytest.approx(total / (2 * 64), rel=1e-5)


def test_regression_is_half_the_squared_errors() -> None:
    method = made(target="regression").double()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop")[:2].double()]}
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    lab = kornia.color.rgb_to_lab(batch.view("crop"))
    ab, lightness = method.predictions(rgb_to_lab(batch.view("crop")))
    total = 0.0
    for n in range(2):
        for row in range(8):
            for col in range(8):
                true_l, *true_ab = lab[n, :, 4 * row + 2, 4 * col + 2].tolist()
                for c in range(2):
                    total += (ab[n, c, row, col].item() - true_ab[c] / 20) ** 2 / 2
                total += (lightness[n, 0, row, col].item() - (true_l - 50) / 25) ** 2 / 2
    # kornia's white point has one digit less.
    assert loss.item() == pytest.approx(total / (2 * 64), rel=1e-3)
    assert {"ab_rmse", "lightness_rmse"} == set(step.logged)


def test_a_backbone_without_half_widths_is_told() -> None:
    cfg = method_config(SplitBrain, "split_brain", "small", {})
    with pytest.raises(BenchError, match=r"no TimmBackbone of half the width; use small"):
        SplitBrain(cfg, backbones.build("test_resnet", 32), conformance.toy_info())
