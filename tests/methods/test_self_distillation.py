"""What DINO and its descendants share, and DINO itself, against the official code's formulas."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss
from torch import Tensor, nn
from torch.nn import functional as F

from bench import backbones, conformance, engine, rng
from bench.api import Step
from bench.errors import BenchError
from bench.nn.attention import class_attention
from bench.nn.momentum import cosine
from bench.nn.prototypes import PrototypeHead
from bench.nn.self_distillation import clip_each
from bench.progress import Reporter
from bench.resolve import method_config
from methods.dino import DINO

TOY = {"epochs": 2, "batch_size": 16, "prototypes": 32, "hidden": 32, "bottleneck": 16}
SIZE = conformance.SIZE


def build(backbone: str = DINO.default_backbone, **settings: Any) -> DINO:
    cfg = method_config(DINO, "dino", "small", TOY | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DINO(cfg, backbones.build(backbone, SIZE), conformance.toy_info())


def in_double(method: DINO) -> tuple[DINO, Any]:
    batch = conformance.memorised(method)
    batch.views = {name: [x.double() for x in views] for name, views in batch.views.items()}
    return method.double().train(), batch


def at_epoch(epoch: int) -> Step:
    draw = rng.generator("self distillation", epoch)
    return Step(phase="main", epoch=epoch, epochs=100, index=epoch, total=100, rng=draw)


@pytest.mark.parametrize("local_crops", [0, 3])
def test_loss_and_gradients_are_lightlys_on_the_same_crops(local_crops: int) -> None:
    # Temperatures that float32 holds exactly: lightly keeps the teacher's there.
    method, batch = in_double(
        build(local_crops=local_crops, global_size=1.0, teacher_temperature=0.0625)
    )
    theirs = DINOLoss(TOY["prototypes"], 0.0625, 0.0625, 0, student_temp=0.1).double()
    shared = batch.views["global"] + batch.views["solarized"]
    for step in range(2):  # the second time the centre is no longer 0
        method.zero_grad()
        loss = method.loss(batch, conformance.step_at("main", step))
        loss.backward()
        got = [p.grad.clone() for p in method.parameters() if p.grad is not None]
        method.zero_grad()
        crops = shared + batch.views.get("local", [])
        student = [method.head(method.backbone(crop)) for crop in crops]
        with torch.no_grad():
            teacher = [method.teacher_head(method.teacher(crop)) for crop in shared]
        expected = theirs(teacher, student)
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-13)
        wanted = [p.grad for p in method.parameters() if p.grad is not None]
        assert len(got) == len(wanted) > 20
        # timm resizes position embeddings for local crops in float32.
        rounding = {"rtol": 1e-4, "atol": 1e-7} if local_crops else {"rtol": 1e-9, "atol": 1e-13}
        torch.testing.assert_close(got, wanted, **rounding)
        assert theirs.center.abs().max() > 0


def test_no_gradient_reaches_the_teacher() -> None:
    method = build().requires_grad_()  # even where its parameters would take one
    method.loss(conformance.memorised(method), at_epoch(0)).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("teacher"), name


@pytest.mark.parametrize(("warmup", "epochs"), [(30, 100), (1, 4), (0, 3)])
def test_the_teachers_temperature_is_the_official_schedule(warmup: int, epochs: int) -> None:
    method = build(warmup_temperature=0.04, teacher_temperature=0.07, temperature_epochs=warmup)
    expected = [*np.linspace(0.04, 0.07, warmup), *np.full(epochs - warmup, 0.07)]
    got = [method.temperature(at_epoch(epoch)) for epoch in range(epochs)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_teacher_is_a_moving_average_whose_momentum_grows_to_one() -> None:
    method = build(momentum=0.9)
    with torch.no_grad():
        for parameter in (*method.backbone.parameters(), *method.head.parameters()):
            parameter.add_(1.0)
    for epoch in (0, 50, 99):
        momentum = 1 - 0.1 * (np.cos(np.pi * epoch / 100) + 1) / 2
        before = copy.deepcopy(method)
        method.after_step(at_epoch(epoch))
        for name, old in before.named_parameters():
            student = name.replace("teacher_head", "head").replace("teacher", "backbone")
            expected = momentum * old + (1 - momentum) * before.get_parameter(student)
            if name == student:
                expected = old
            torch.testing.assert_close(method.get_parameter(name), expected, rtol=1e-5, atol=1e-6)
    assert cosine(0.9, 1.0, 1.0) == 1.0


@pytest.mark.parametrize("freeze_epochs", [0, 1])
def test_prototypes_do_not_move_in_the_first_epochs(tmp_path: Path, freeze_epochs: int) -> None:
    """Not even by AdamW's weight decay; 64 pictures in batches of 16 are 4 steps an epoch."""
    method = build(freeze_epochs=freeze_epochs, weight_decay=0.5)
    first = copy.deepcopy(method.head)
    fit(method, tmp_path, 4)
    assert torch.equal(method.head.prototypes, first.prototypes) == (freeze_epochs == 1)
    assert not torch.equal(method.head.mlp[0].weight, first.mlp[0].weight)
    fit(method, tmp_path, 1)
    assert not torch.equal(method.head.prototypes, first.prototypes)


def fit(method: DINO, folder: Path, steps: int) -> dict[str, float]:
    cfg = engine.EngineConfig(device="cpu", precision="32")
    quiet, split = Reporter(quiet=True), conformance.toy_split()
    done = engine.fit(method, split, cfg, seed=0, folder=folder, reporter=quiet, stop_after=steps)
    return done.history[-1] if done.history else {}


def test_each_parameter_is_clipped_on_its_own() -> None:
    draw = rng.generator("clip")
    parameters = [nn.Parameter(torch.zeros(4, 3)) for _ in range(3)]
    gradients = [torch.randn(4, 3, generator=draw) * scale for scale in (5.0, 0.01, 50.0)]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    clip_each([*parameters, nn.Parameter(torch.zeros(2))], 3.0)
    assert parameters[1].grad is not None and torch.equal(parameters[1].grad, gradients[1])
    for place in (0, 2):
        expected = gradients[place] * 3.0 / gradients[place].norm()
        torch.testing.assert_close(parameters[place].grad, expected)


def test_sinkhorn_targets_share_the_prototypes_and_leave_the_centre() -> None:
    method = build(targets="sinkhorn")
    draw = rng.generator("targets")
    logits = torch.randn(2, 64, TOY["prototypes"], generator=draw) / 10 + torch.linspace(0, 1, 32)
    targets = method.assign(logits, at_epoch(0)).probabilities()
    torch.testing.assert_close(targets.sum(-1), torch.ones(2, 64))
    uses = targets.sum((0, 1))
    assert uses.max() / uses.min() < 3
    torch.testing.assert_close(method.center.mean, torch.zeros(TOY["prototypes"]))
    # The centre is still 0.
    alone = build().assign(logits, at_epoch(0)).probabilities().sum((0, 1))
    assert alone.max() / alone.min() > 1000


def test_both_collapses_are_seen_and_told_apart(tmp_path: Path) -> None:
    """Without centring all choose one prototype, without sharpening all choose all (Figure 7)."""
    settings = {"epochs": 8, "local_crops": 0, "lr": 3e-3, "momentum": 0.9}
    settings |= {"warmup_epochs": 0, "freeze_epochs": 0}
    healthy = fit(build("small", **settings), tmp_path / "both", 32)
    sharp = fit(build("small", **settings, center_momentum=0.99999), tmp_path / "sharp", 32)
    flat = {"teacher_temperature": 0.3, "warmup_temperature": 0.3}
    centred = fit(build("small", **settings | flat), tmp_path / "centred", 32)
    assert healthy["target_information"] > 0.05
    assert sharp["target_information"] < 0.01 and sharp["teacher_entropy"] < 0.05
    most = math.log(TOY["prototypes"])
    assert centred["target_information"] < 0.01 and centred["teacher_entropy"] > 0.98 * most


def test_the_head_is_the_official_one_with_its_gain_fixed() -> None:
    head = PrototypeHead(12, 9, hidden=10, bottleneck=6)
    last = nn.utils.parametrizations.weight_norm(nn.Linear(6, 9, bias=False))
    with torch.no_grad():
        last.parametrizations.weight.original0.fill_(1.0)
        last.parametrizations.weight.original1.copy_(head.prototypes)
    x = torch.randn(5, 12, generator=rng.generator("head"))
    torch.testing.assert_close(head(x), last(F.normalize(head.mlp(x), dim=-1)))


@pytest.mark.parametrize("side", [4, 3])
def test_the_attention_is_what_timm_computes_unfused(side: int) -> None:
    network = build().teacher.eval()
    x = torch.randn(2, 3, 8 * side, 8 * side, generator=rng.generator("attention"))
    last: Any = network.model.blocks[-1].attn
    last.fused_attn = False
    seen: list[Tensor] = []
    with last.attn_drop.register_forward_hook(lambda _, inputs, output: seen.append(output)):
        network(x)
    expected = seen[0][:, :, 0, 1:].transpose(0, 1).unflatten(2, (side, side))
    torch.testing.assert_close(class_attention(network, x), expected)


def test_it_trains_a_network_without_tokens_and_shows_its_views(tmp_path: Path) -> None:
    method = build("small", local_crops=2)
    before = copy.deepcopy(method.teacher.state_dict())
    last = fit(method, tmp_path, 8)
    assert np.isfinite(list(last.values())).all()
    after = method.teacher.state_dict()
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert any("running_mean" in key for key in moved), "its batch norms keep statistics"
    assert any(key.endswith("weight") for key in moved)
    panels = method.eval().picture(conformance.memorised(method), at_epoch(0))
    assert [panel.title for panel in panels] == ["global", "solarized", "local 1", "local 2"]


@pytest.mark.parametrize(("share", "side"), [(0.5, 16), (0.3, 8), (0.01, 8), (1.0, 32)])
def test_crops_are_whole_patches(share: float, side: int) -> None:
    views = {view.name: view for view in build(local_size=share, global_size=share).views()}
    assert [views[name].size for name in ("global", "solarized", "local")] == [side] * 3


def test_more_prototypes_than_memory_allows_is_one_line() -> None:
    with pytest.raises(BenchError, match="set fewer prototypes or a smaller batch") as error:
        build(prototypes=10**10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bad", [{"local_crops": -1}, {"clip": 0.0}, {"targets": "none"}, {"teacher_temperature": 0.0}]
)
def test_settings_without_meaning_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BenchError):
        build(**bad)
