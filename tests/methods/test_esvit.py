"""EsViT's view and region tasks against the official DDINOLoss, written as loops, in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import backbones, conformance, engine, rng
from bench.errors import BenchError
from bench.kernels import Teacher
from bench.nn.bottleneck import last_map
from bench.nn.regions import region_shape, regions
from bench.progress import Reporter
from bench.resolve import method_config
from methods.esvit import EsViT, match, region_loss

TOY = {"epochs": 2, "batch_size": 16, "prototypes": 12, "hidden": 16, "bottleneck": 8}
SIZE = conformance.SIZE


def build(backbone: str = EsViT.default_backbone, **settings: Any) -> EsViT:
    cfg = method_config(EsViT, "esvit", "small", TOY | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EsViT(cfg, backbones.build(backbone, SIZE), conformance.toy_info())


def log_softmax(values: list[float], temperature: float) -> list[float]:
    scaled = [value / temperature for value in values]
    log_sum = max(scaled) + math.log(sum(math.exp(value - max(scaled)) for value in scaled))
    return [value - log_sum for value in scaled]


def cross_entropy(target: Tensor, logits: Tensor, temperature: float) -> float:
    logs = log_softmax(logits.tolist(), temperature)
    return -sum(share * log for share, log in zip(target.tolist(), logs, strict=True))


def cosine(one: Tensor, two: Tensor) -> float:
    return ((one @ two) / (one.norm() * two.norm())).item()


@pytest.mark.parametrize("backbone", ["vit_nano_patch8", "small"])
@pytest.mark.parametrize("local_crops", [0, 1])
def test_the_loss_is_the_official_one_in_loops(backbone: str, local_crops: int) -> None:
    method = build(backbone, local_crops=local_crops, batch_size=3, teacher_temperature=0.05)
    method = method.double().eval()  # batch norm would see other batches in loops
    batch = conformance.memorised(method)
    batch.views = {k: [x[:3].double() for x in views] for k, views in batch.views.items()}
    shared = batch.views["global"] + batch.views["solarized"]
    crops = shared + batch.views.get("local", [])
    with torch.no_grad():
        method.center.mean.copy_(torch.linspace(-0.2, 0.2, 12))
        method.region_center.mean.copy_(torch.linspace(0.3, -0.1, 12))
        seen = [regions(method.backbone, crop) for crop in crops]
        known = [regions(method.teacher, crop) for crop in shared]
        view_targets = [
            ((method.teacher_head(view) - method.center.mean) / 0.05).softmax(1)
            for view, _ in known
        ]
        region_targets = [
            ((method.region_teacher_head(found) - method.region_center.mean) / 0.05).softmax(2)
            for _, found in known
        ]
        total, terms = 0.0, 0
        for given in range(2):
            for crop in range(len(crops)):
                if crop == given:
                    continue
                terms += 1
                view, found = seen[crop]
                view_logits, region_logits = method.head(view), method.region_head(found)
                for row in range(3):
                    whole = cross_entropy(view_targets[given][row], view_logits[row], 0.1)
                    parts = 0.0
                    for place, feature in enumerate(found[row]):
                        alike = [cosine(feature, other) for other in known[given][1][row]]
                        target = region_targets[given][row][alike.index(max(alike))]
                        parts += cross_entropy(target, region_logits[row, place], 0.1)
                    total += (0.5 * whole + 0.5 * parts / found.shape[1]) / 3
    loss = method.loss(batch, conformance.step_at("main", 0))
    assert loss.item() == pytest.approx(total / terms, rel=1e-6 if local_crops else 1e-11)


def test_region_gradients_are_right_and_leave_the_teacher_alone() -> None:
    draw = rng.generator("esvit")
    student = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 5, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 4, 4], [1, 0, 2]])
    assert torch.autograd.gradcheck(lambda x: region_loss(x, Teacher(logits), index, 0.2), student)
    region_loss(student, Teacher(logits), index, 0.2).backward()
    assert student.grad is not None and logits.grad is None
    # d/dlogits = (softmax - target) / (temperature * regions).
    chosen = torch.stack([logits[b].softmax(-1)[index[b]] for b in range(2)])
    expected = ((student / 0.2).softmax(-1) - chosen) / (0.2 * 6)
    torch.testing.assert_close(student.grad, expected.detach())


def test_a_shuffled_picture_is_matched_with_itself() -> None:
    draw = rng.generator("shuffled")
    features = torch.randn(4, 9, 6, generator=draw)
    order = torch.stack([torch.randperm(9, generator=draw) for _ in range(4)])
    lengths = torch.rand(4, 9, 1, generator=draw) + 0.1  # cosines do not see them
    shuffled = (features * lengths).gather(1, order[..., None].expand(-1, -1, 6))
    assert torch.equal(match(features, shuffled), order.argsort(1))


def test_region_prototypes_are_frozen_and_their_teacher_follows(tmp_path: Path) -> None:
    method = build(freeze_epochs=1)
    first = {key: value.clone() for key, value in method.state_dict().items()}
    cfg = engine.EngineConfig(device="cpu", precision="32")
    for steps, frozen in ((4, True), (1, False)):  # 64 pictures in batches of 16 an epoch
        quiet, split = Reporter(quiet=True), conformance.toy_split()
        engine.fit(method, split, cfg, seed=0, folder=tmp_path, reporter=quiet, stop_after=steps)
        after = method.state_dict()
        for name in ("head.prototypes", "region_head.prototypes"):
            assert torch.equal(after[name], first[name]) == frozen
    for name in ("region_teacher_head.mlp.0.weight", "region_center.mean"):
        assert not torch.equal(after[name], first[name])


def test_regions_are_tokens_or_the_last_map() -> None:
    x = torch.randn(2, 3, SIZE, SIZE, generator=rng.generator("regions"))
    vit = backbones.build("vit_nano_patch8", SIZE).eval()
    view, found = regions(vit, x)
    torch.testing.assert_close(view, vit(x))
    torch.testing.assert_close(found.mT.unflatten(2, (4, 4)), last_map(vit, x))
    cnn = backbones.build("small", SIZE).eval()
    view, found = regions(cnn, x)
    torch.testing.assert_close(view, cnn(x))
    torch.testing.assert_close(found.mT.unflatten(2, (2, 2)), last_map(cnn, x))
    assert (region_shape(vit, SIZE), region_shape(cnn, SIZE)) == ((16, 96), (4, 256))


def test_a_backbone_without_regions_is_refused() -> None:
    network = backbones.build("small", SIZE)
    network.layers = ()
    with pytest.raises(BenchError, match="no regions") as error:
        region_shape(network, SIZE)
    assert "\n" not in str(error.value)


def test_the_picture_lays_the_first_view_out_with_regions_of_the_second() -> None:
    method = build().eval()
    batch = conformance.memorised(method)
    batch.views["solarized"] = [batch.views["global"][0].clone()]
    with torch.no_grad():
        one, _, laid = method.picture(batch, conformance.step_at("main", 0))
    torch.testing.assert_close(laid.tiles, one.tiles)  # each region matches itself
