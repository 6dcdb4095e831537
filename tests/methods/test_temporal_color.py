"""Temporal colour: copying and its loss by loops, what the network may see, the colours."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from bench import conformance, registry, rng
from bench.data.color import rgb_to_lab
from bench.errors import BenchError
from bench.loader import Loader
from bench.nn import channels
from bench.resolve import method_config
from methods.temporal_color import FLOOR, TemporalColor


def build(**settings: object) -> TemporalColor:
    cfg = method_config(TemporalColor, "temporal_color", "small", {"batch_size": 16, **settings})
    plain = conformance.build(TemporalColor, "temporal_color")
    return registry.method("temporal_color")(cfg, plain.backbone, conformance.toy_info())


def lab_of(method: TemporalColor) -> tuple[Tensor, Tensor]:
    batch = conformance.memorised(method)
    return rgb_to_lab(batch.view("reference")), rgb_to_lab(batch.view("target"))


def test_the_loss_is_minus_the_log_of_what_is_copied_of_the_true_colour() -> None:
    method = build(stride=8, colors=5).double().eval()  # 4 x 4 places
    batch = conformance.memorised(method)
    batch.views = {name: [x.double() for x in views] for name, views in batch.views.items()}
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    lab = [rgb_to_lab(batch.view(name)) for name in ("reference", "target")]
    gray = torch.cat([channels.lightness_input(x) for x in lab])
    z = method.embed(method.backbone.maps(gray)).flatten(2).tolist()
    colors = [_classes(x, method.centers) for x in lab]
    total, hits, stayed = 0.0, 0, 0
    for i in range(16):
        source, query = z[i], z[16 + i]
        for place in range(16):
            scores = [
                sum(query[k][place] * source[k][j] for k in range(len(source))) for j in range(16)
            ]
            top = max(scores)
            weights = [math.exp(score - top) for score in scores]
            copied = [0.0] * 5
            for j in range(16):
                copied[colors[0][i][j]] += weights[j] / sum(weights)
            true = colors[1][i][place]
            total -= math.log(copied[true] + FLOOR)
            hits += copied.index(max(copied)) == true
            stayed += colors[0][i][place] == true
    assert loss.item() == pytest.approx(total / 256, rel=1e-5)  # in float32 from the embedding on
    assert step.logged["pretext_top1"].item() == pytest.approx(100 * hits / 256)
    assert step.logged["same_place_top1"].item() == pytest.approx(100 * stayed / 256)


def _classes(lab: Tensor, centers: Tensor) -> list[list[int]]:
    """The nearest centre of the pixel in the middle of each 8 x 8 place."""
    found = []
    for picture in lab:
        places = [(row, col) for row in range(4, 32, 8) for col in range(4, 32, 8)]
        points = [picture[1:, row, col] for row, col in places]
        found.append([int((centers - point).square().sum(1).argmin()) for point in points])
    return found


def test_pointing_does_not_see_colour() -> None:
    method = build().eval()
    reference, target = (lab.requires_grad_() for lab in lab_of(method))
    colors = torch.rand(16, method.side**2, 3, generator=rng.generator("colours"))
    method.copy_colors(reference, target, colors).square().sum().backward()
    for lab in (reference, target):
        assert lab.grad is not None
        assert lab.grad[:, 0].abs().max() > 0
        assert (lab.grad[:, 1:] == 0).all()


def test_the_encoder_sees_lightness_as_in_training() -> None:
    method = build().eval()
    batch = conformance.memorised(method)
    rgb = batch.view("target")
    gray = channels.lightness_input(rgb_to_lab(rgb))
    encoder = method.encoder().eval()
    expected = method.backbone(gray)
    torch.testing.assert_close(encoder(method.data.normalize(rgb)), expected, rtol=1e-3, atol=1e-3)


def test_only_colours_of_the_reference_can_be_copied() -> None:
    method = build(colors=6).eval()
    reference, target = lab_of(method)
    one = torch.zeros(16, method.side**2, 6)
    one[:, :, 2] = 1.0
    torch.testing.assert_close(
        method.copy_colors(reference, target, one),
        one,
    )


def test_a_place_that_is_found_again_gives_its_colour() -> None:
    """With embeddings that are nothing but the place's own, copying follows the shift."""
    method = build(stride=8, embedding=16).eval()
    shifted = torch.eye(16).roll(5, 0)
    embeddings = torch.stack([torch.eye(16), shifted]).unflatten(2, (4, 4)) * 100
    method.embed = _Fixed(embeddings)
    lab = torch.zeros(1, 3, 32, 32)
    colors = torch.rand(1, 16, 2, generator=rng.generator("colours"))
    copied = method.copy_colors(lab, lab, colors)
    for place in range(16):
        source = int(shifted[:, place].argmax())
        assert torch.equal(copied[0, place], colors[0, source])


class _Fixed(torch.nn.Module):
    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        return self.out


def test_colours_are_as_good_as_scikit_learns_clusters() -> None:
    method = build(stride=2, colors=8)
    pictures = Loader(method, conformance.toy_split(), 0, torch.device("cpu")).pictures()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method.initialize(pictures)
        sample = method.data.rgb(pictures.sample(64))
    ab = rgb_to_lab(sample)[:, 1:, 1::2, 1::2].movedim(1, -1).flatten(0, 2)
    inertia = torch.cdist(ab, method.centers).amin(1).square().sum().item()
    best = KMeans(8, n_init=3, random_state=0).fit(ab.numpy()).inertia_
    assert inertia < 1.1 * best


def test_pictures_smaller_than_the_grid_are_told() -> None:
    with pytest.raises(BenchError, match=r"no 2 x 2 places of 20 px.*method\.stride"):
        build(stride=20)
