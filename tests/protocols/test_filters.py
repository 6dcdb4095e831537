"""The first layer's filters, against the network that they are taken from."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image
from pictured import SIZE, data, measure
from torch import Tensor, nn
from torch.nn import functional as F

from bench import backbones
from bench.api import Encoder, Scores
from bench.errors import BenchError
from bench.features import Evaluation, FeatureStore
from bench.nn.wrap import Rewired
from bench.progress import Reporter
from protocols.filters import Filters, as_pictures, color_energy, first_filters, frequency

LABELS = torch.arange(12) % 3


class Net(Encoder):
    """Any modules in a row, then the mean over space."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.body, self.dim = nn.Sequential(*modules), 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out.mean((2, 3))


def evaluation(tmp_path: Path) -> Evaluation:
    store = FeatureStore(tmp_path, Net(), "", torch.device("cpu"), Reporter(quiet=True))
    return Evaluation(data(LABELS, LABELS, LABELS), store)


def with_filters(bank: Tensor) -> Net:
    conv = nn.Conv2d(bank.shape[1], len(bank), bank.shape[2:], bias=False)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(bank)
    return Net(conv)


def run(encoder: Encoder, tmp_path: Path) -> Scores:
    return measure(Filters, encoder, data(LABELS, LABELS, LABELS), tmp_path)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("affine", [True, False])
def test_folded_filters_do_what_convolution_and_norm_do(affine: bool, tmp_path: Path) -> None:
    conv, norm = nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5, affine=affine)
    norm.running_mean, norm.running_var = random(5), random(5, seed=1).square() + 0.1
    if affine:
        norm.weight, norm.bias = nn.Parameter(random(5, seed=2)), nn.Parameter(random(5, seed=3))
    net = Net(conv, norm, nn.ReLU(), nn.Conv2d(5, 5, 3)).eval()
    bank = first_filters(net, SIZE, evaluation(tmp_path))
    x = random(4, 3, SIZE, SIZE, seed=4)
    moved = norm(conv(x)) - norm(conv(torch.zeros_like(x)))  # without what biases add
    assert torch.allclose(F.conv2d(x.double(), bank, stride=2).float(), moved, atol=1e-5)


def test_a_norm_that_follows_something_else_is_not_folded(tmp_path: Path) -> None:
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    norm.running_var = torch.full((5,), 9.0)
    net = Net(conv, nn.ReLU(), norm).eval()
    bank = first_filters(net, SIZE, evaluation(tmp_path))
    assert torch.equal(bank, conv.weight.double())


@pytest.mark.parametrize("name", ["small", "vit_nano_patch8", "nin3"])
def test_backbones_have_filters_and_keep_no_hooks(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = backbones.build(name, 32).eval()
    bank = first_filters(encoder, 32, evaluation(tmp_path))
    assert bank.shape[1] == 3 and len(bank) > 8
    assert not any(module._forward_hooks for module in encoder.modules())
    assert len(run_at(encoder, 32, tmp_path).metrics) == 6


def run_at(encoder: Encoder, size: int, tmp_path: Path) -> Scores:
    some = evaluation(tmp_path)
    some.info = some.info.__class__(**{**some.info.__dict__, "size": size})
    return Filters().run(encoder, some, Filters.Config(), 0)


def test_dead_filters_and_copies_are_counted(tmp_path: Path) -> None:
    good = torch.linalg.qr(random(27, 27)).Q[:5].view(5, 3, 3, 3)
    bank = torch.cat([good, 3 * good[:2], -good[2:3], 1e-5 * good[3:4], torch.zeros(1, 3, 3, 3)])
    metrics = run(with_filters(bank), tmp_path).metrics
    assert metrics["distinct_filters"] == 50.0  # the five; three are copies, two dead
    assert metrics["dead_filters"] == 20.0
    # Three pairs of 8 living ones are parallel, all others at right angles.
    assert metrics["mean_abs_cosine"] == pytest.approx(3 * 2 / (8 * 7), abs=1e-6)
    assert 1 < metrics["effective_rank"] <= 5 + 1e-6


def test_constant_filters_are_at_the_floor_and_orthogonal_ones_at_the_top(tmp_path: Path) -> None:
    same = run(with_filters(torch.ones(8, 3, 3, 3)), tmp_path).metrics
    assert same["distinct_filters"] == 12.5
    assert same["effective_rank"] == pytest.approx(1, abs=1e-5)
    assert same["mean_abs_cosine"] == pytest.approx(1)
    basis = torch.linalg.qr(random(27, 27)).Q.view(27, 3, 3, 3)
    best = run(with_filters(basis), tmp_path).metrics
    assert best["distinct_filters"] == 100 and best["effective_rank"] == pytest.approx(27)
    nothing = run(with_filters(torch.zeros(4, 3, 3, 3)), tmp_path).metrics
    assert nothing["distinct_filters"] == 0 and nothing["dead_filters"] == 100
    assert all(np.isfinite(value) for value in nothing.values())


def test_a_wave_has_its_own_frequency() -> None:
    at = torch.arange(32).double()
    wave = torch.cos(2 * torch.pi * 0.25 * at)
    upright, diagonal = wave.expand(32, 32), torch.cos(torch.pi / 2 * (at[:, None] + at))
    bank = torch.stack([upright, diagonal, torch.ones(32, 32)])[:, None].double()
    assert frequency(bank).tolist() == pytest.approx([0.25, 0.25 * 2**0.5, 0.0], abs=1e-9)
    noise = frequency(random(4000, 3, 3, 3).double()).mean()
    assert float(noise) == pytest.approx(0.38, abs=0.005)


def test_color_is_what_grey_pictures_do_not_excite() -> None:
    grey = random(4, 1, 3, 3).expand(4, 3, 3, 3)
    assert color_energy(grey) == pytest.approx(0, abs=1e-12)
    opponent = torch.cat([grey[:, :1], -grey[:, :1], 0 * grey[:, :1]], 1)
    assert color_energy(opponent) == pytest.approx(1)
    assert color_energy(random(4000, 3, 3, 3)) == pytest.approx(2 / 3, abs=0.01)
    assert color_energy(torch.zeros(1, 3, 3, 3)) == 0


def test_filters_that_see_lightness_are_grey(tmp_path: Path) -> None:
    class Grey(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True).expand(-1, 3, -1, -1)

    bank = random(6, 3, 3, 3)
    scores = run(Rewired(Grey(), with_filters(bank)), tmp_path)
    assert scores.selected["shape"] == [1, 3, 3]
    assert scores.metrics["color_energy"] == 0


def test_each_filter_fills_the_range_of_grey() -> None:
    bank = random(5, 3, 3, 4).double()
    shown = as_pictures(bank)
    assert shown.shape == (5, 3, 4, 4)
    for filter_, tile in zip(bank, shown, strict=True):
        low, high = filter_.min(), filter_.max()
        assert torch.allclose(tile[:, :3], (filter_ - low) / (high - low))
    assert torch.equal(as_pictures(bank[:, :1])[:, 0], as_pictures(bank[:, :1])[:, 2])
    assert not as_pictures(bank[:, :2])[:, 2].any()


def test_the_figure_shows_every_filter_once(tmp_path: Path) -> None:
    colors = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2])][:, :, None, None]
    corner = torch.zeros(6, 3, 2, 2)
    corner[:, :, :1] = colors  # a primary colour above black
    figure = run(with_filters(corner), tmp_path).figure
    assert figure is not None and figure == run(with_filters(corner), tmp_path).figure
    pixels = (255 * image.imread(BytesIO(figure))[..., :3]).round().astype(int)
    for color in np.eye(3, dtype=int) * 255:
        assert (np.abs(pixels - color) <= 2).all(2).sum() == 2 * 96 * 96 / 2


def test_no_convolution_and_broken_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no convolution, hence no filters to show"):
        run(Net(nn.Identity()), tmp_path)
    with pytest.raises(BenchError, match="first convolution holds NaN"):
        run(with_filters(torch.full((2, 3, 3, 3), float("nan"))), tmp_path)
