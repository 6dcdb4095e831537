"""Top pictures of units and their occlusion maps, against explicit loops."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image
from pictured import Given, data, measure
from torch import Tensor

from bench.api import Encoder
from bench.errors import BenchError
from bench.eval.figures import overlay
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter
from protocols.units import Units, _purest, occlusion, top_pictures

CLASSES, TEST = 5, 60
FEW = torch.arange(CLASSES)
LABELS = torch.arange(TEST) * 7 % CLASSES
FIRST = 2 * CLASSES  # the number of the first test picture


def padded(features: Tensor) -> Tensor:
    """Features of the test pictures, with zeros for those of train and val before them."""
    return torch.cat([torch.zeros(FIRST, *features.shape[1:]), features])


def draw(*shape: int, values: int | None = None) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return (
        torch.randn(*shape, generator=rng)
        if values is None
        else torch.randint(-values, values, shape, generator=rng).float()
    )


def loop(values: Tensor, labels: Tensor, among: list[int]) -> tuple[list[list[int]], float]:
    """The top nine of each unit, equals in order, and the mean purity in percent."""
    tops, purity = [], []
    for unit in values.T.tolist():
        top = sorted(among, key=lambda i, unit=unit: (-unit[i], i))[:9]  # type: ignore[misc]
        tops.append(top)
        common = Counter(labels[i].item() for i in top).most_common(1)[0][1]
        alive = len({unit[i] for i in among}) > 1
        purity.append(common / 9 if alive else 0.0)
    return tops, 100 * sum(purity) / len(purity)


@pytest.mark.parametrize("values", [None, 2])
@pytest.mark.parametrize("gaps", [False, True])
def test_agrees_with_a_loop(values: int | None, gaps: bool, tmp_path: Path) -> None:
    output, maps = draw(TEST, 6, values=values), draw(TEST, 4, 3, 3, values=values)
    output[:, 2] = -0.5
    encoder = Given(padded(output), padded(maps))
    dataset = data(FEW, FEW, LABELS, gaps=gaps)
    scores = measure(Units, encoder, dataset, tmp_path, shown=2)
    among = [i for i in range(TEST) if not gaps or i % 7 != 3]
    peaks = torch.stack([maps[:, :, i, j] for i in range(3) for j in range(3)]).max(0).values
    for layer, activity in (("output", output), ("map", peaks)):
        tops, purity = loop(activity, LABELS, among)
        assert scores.per_layer[layer]["top9_purity"] == pytest.approx(purity)
        store = FeatureStore(tmp_path, encoder, "", torch.device("cpu"), Reporter(quiet=True))
        seen, found = top_pictures(encoder, Evaluation(dataset, store).read_test(), (layer,))
        assert seen.tolist() == among
        assert found[layer].positions.T.tolist() == tops
    assert scores.metrics["dead_units"] == pytest.approx(100 / 6)


def test_constant_features_score_0_and_leaked_labels_100(tmp_path: Path) -> None:
    dataset = data(FEW, FEW, LABELS)
    leak = torch.nn.functional.one_hot(LABELS, CLASSES).float()
    for features, purity, dead in ((torch.ones(TEST, 3), 0, 100), (leak, 100, 0)):
        metrics = measure(Units, Given(padded(features)), dataset, tmp_path, shown=2).metrics
        assert metrics["top9_purity"] == purity
        assert metrics["dead_units"] == dead


def test_units_that_ignore_the_class_score_chance(tmp_path: Path) -> None:
    many = torch.arange(600) % CLASSES
    features = torch.cat([torch.zeros(FIRST, 400), draw(600, 400)])
    metrics = measure(Units, Given(features), data(FEW, FEW, many), tmp_path, shown=1).metrics
    assert metrics["top9_purity"] == pytest.approx(metrics["top9_chance"], abs=1.5)
    # The expected greatest count of nine balls in five boxes, by another draw.
    drawn = np.random.default_rng(0).multinomial(9, [0.2] * 5, size=40_000).max(1).mean() / 9
    assert metrics["top9_chance"] == pytest.approx(100 * drawn, abs=0.5)


class Looks(Encoder):
    """Unit 0 sees the sum of one pixel's channels, unit 1 all pixels, unit 2 hates the pixel."""

    dim = 3

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.at = (row, column)

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :, self.at[0], self.at[1]].sum(1)
        return torch.stack([seen, x.sum((1, 2, 3)), -seen], 1)


@pytest.mark.parametrize(("occluder", "stride"), [(0.25, 3 / 11), (0.3, 0.9), (1.0, 1.0)])
def test_occlusion_is_a_loops(occluder: float, stride: float) -> None:
    size = 12
    x, encoder = draw(3, size, size).abs(), Looks(7, 3)
    side = round(occluder * size)
    step = max(1, round(stride * side))
    corners = sorted({*range(0, size - side + 1, step), size - side})
    for unit in range(3):
        lost, count = torch.zeros(size, size), torch.zeros(size, size)
        for i in corners:
            for j in corners:
                hidden = x.clone()
                hidden[:, i : i + side, j : j + side] = 0
                drop = encoder(x[None])[0, unit] - encoder(hidden[None])[0, unit]
                lost[i : i + side, j : j + side] += drop
                count[i : i + side, j : j + side] += 1
        expected = (lost / count).clamp_min(0)
        found = occlusion(encoder, x, unit, occluder, stride)
        assert torch.allclose(found, expected, atol=1e-4)
    assert not occlusion(encoder, x, 2, occluder, stride).any()


def test_occlusion_points_at_what_the_unit_looks_at() -> None:
    heat = occlusion(Looks(9, 2), torch.ones(3, 12, 12), 0)
    assert heat.argmax() == 9 * 12 + 2 or heat[9, 2] == heat.max()
    assert heat[:5].max() == 0 and heat[:, 7:].max() == 0
    tile = overlay(torch.zeros(3, 12, 12), heat)
    assert tile.shape == (3, 12, 12) and tile.sum(0)[9, 2] == tile.sum(0).max()
    assert torch.isfinite(overlay(torch.ones(3, 4, 4), torch.zeros(4, 4))).all()


def test_the_purest_units_are_of_different_classes_first() -> None:
    purity = torch.tensor([0.9, 1.0, 1.0, 0.3, 0.9])
    own = torch.tensor([0, 1, 1, 2, 0])
    assert _purest(purity, own, 3) == [1, 0, 3]
    assert _purest(purity, own, 9) == [1, 0, 3, 2, 4]


def test_the_figure_is_the_same_in_a_repeat(tmp_path: Path) -> None:
    encoder, dataset = Given(padded(draw(TEST, 12))), data(FEW, FEW, LABELS)
    one, two = (measure(Units, encoder, dataset, tmp_path) for _ in range(2))
    assert one.figure is not None and one.figure == two.figure
    assert len(one.selected["units"]) == 8
    pixels = image.imread(BytesIO(one.figure))
    assert pixels.shape[1] > 1000 and np.ptp(pixels[..., :3]) > 0.9


def test_too_few_pictures_and_broken_features_are_refused(tmp_path: Path) -> None:
    few = data(FEW, FEW, torch.arange(8) % CLASSES)
    with pytest.raises(BenchError, match=r"shows 9 pictures of each unit and .* has 8; use more"):
        measure(Units, Given(torch.ones(18, 2)), few, tmp_path)
    with pytest.raises(BenchError, match="NaN or infinity"):
        broken = Given(torch.full((FIRST + TEST, 2), float("nan")))
        measure(Units, broken, data(FEW, FEW, LABELS), tmp_path)
