"""iBOT and DINOv2: their losses against loops and lightly's, what is seen, what is shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from torch import Tensor

from bench import backbones, conformance, rng
from bench.api import Batch
from bench.errors import BenchError
from bench.kernels import Teacher
from bench.nn.masked_distillation import MaskedDistillation
from bench.optim import peak_lr
from bench.resolve import method_config
from methods.dinov2 import DINOv2
from methods.ibot import IBOT

BOTH = pytest.mark.parametrize("cls", [IBOT, DINOv2])


def build(cls: type[MaskedDistillation], backbone: str = "vit_nano_patch8", **changes: Any) -> Any:
    crops = {"global_size": 1.0, "local_crops": 2, "local_size": 0.5}
    budget = {"epochs": 2, "batch_size": conformance.BATCH, **crops, **changes}
    cfg = method_config(cls, cls.__name__.lower(), "small", budget)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("ibot"))
        return cls(cfg, backbones.build(backbone, 32), conformance.toy_info())


def exact(method: Any) -> Batch:
    """A batch in float64, with gradients down to the pixels; the method becomes float64 too."""
    batch = conformance.memorised(method)
    method.double()
    batch.views = {
        name: [view.double().requires_grad_() for view in views]
        for name, views in batch.views.items()
    }
    return batch


def masks(method: Any) -> Tensor:
    """Those that `loss` draws in `conformance.step_at`."""
    n = 2 * conformance.BATCH
    drawn: Tensor = method.masks(n, conformance.step_at("main", 0).rng)
    return drawn


def outputs(method: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Logits by DINO's and iBOT's words: student and teacher, class tokens and patches."""
    views = torch.cat(batch.views["global"] + batch.views["solarized"])
    mask = masks(method)
    seen = method.backbone.tokens(views, mask=mask, mask_token=method.mask_token)
    whole = method.teacher.tokens(views).detach()
    local = [method.head(method.backbone.tokens(view)[:, 0]) for view in batch.views["local"]]
    classes = [*method.head(seen[:, 0]).chunk(2), *local]
    teacher_head, head = method.patch_heads()
    patches = head(seen[:, 1:]), teacher_head(whole[:, 1:]).detach()
    return torch.stack(classes), method.teacher_head(whole[:, 0]).detach(), *patches, mask


def test_ibots_loss_is_the_official_double_loop() -> None:
    """iBOTLoss.forward of main_ibot.py, with its two sums."""
    method = build(IBOT, targets="center")
    batch = exact(method)
    for center in (method.center, method.patch_center):
        center.mean.normal_(0, 0.05, generator=rng.generator("center"))
    student, teacher, patches, truth, mask = outputs(method, batch)
    hot = method.temperature(conformance.step_at("main", 0))
    targets = ((teacher - method.center.mean) / hot).softmax(-1).chunk(2)
    patch_targets = ((truth - method.patch_center.mean) / hot).softmax(-1).chunk(2)
    class_terms, patch_terms = [], []
    for q in range(2):
        for v, logits in enumerate(student):
            if v != q:
                class_terms.append(-(targets[q] * (logits / 0.1).log_softmax(1)).sum(1).mean())
                continue
            logs = (patches.chunk(2)[v] / 0.1).log_softmax(2)
            cross = -(patch_targets[q] * logs).sum(2)
            hidden = mask.chunk(2)[v]
            patch_terms.append(((cross * hidden).sum(1) / hidden.sum(1).clamp(min=1)).mean())
    expected = sum(class_terms) / len(class_terms) + sum(patch_terms) / 2
    step = conformance.step_at("main", 0)
    # Targets are float32 in the method, hence the tolerance.
    torch.testing.assert_close(method.loss(batch, step), expected, rtol=1e-5, atol=0)
    patch_loss = torch.stack(patch_terms).mean().item()
    assert step.logged["patch_loss"].item() == pytest.approx(patch_loss, rel=1e-5)
    agreed = (patches.argmax(2) == torch.cat(patch_targets).argmax(2))[mask]
    assert step.logged["patch_top1"].item() == pytest.approx(100 * agreed.double().mean().item())


@pytest.mark.parametrize("targets", ["center", "sinkhorn"])
def test_dinov2s_loss_is_lightlys_three(targets: str) -> None:
    """DINO on class tokens, iBOT on masked patches, KoLeo on each view's class tokens; gradients.

    Sinkhorn's targets are taken from the method; they have a test of their own.
    """
    method = build(DINOv2, targets=targets)
    batch = exact(method)
    student, teacher, patches, truth, mask = outputs(method, batch)
    hot = method.temperature(conformance.step_at("main", 0))
    seen: list[Teacher] = []
    assign = method.assign

    def spy(*args: Any) -> Teacher:
        seen.append(assign(*args))
        return seen[-1]

    method.assign = spy
    loss = method.loss(batch, conformance.step_at("main", 0))
    first = torch.autograd.grad(loss, batch.views["global"][0], retain_graph=True)[0]
    if targets == "sinkhorn":
        # Theirs takes logits: the logarithm of targets is one, at temperature 1.
        hot, teacher = 1.0, seen[0].probabilities().flatten(0, 1).log()
        count = int(mask.sum())
        masked_truth = seen[1].rows(count).probabilities().log()
    else:
        masked_truth = truth[mask]
    one = DINOLoss(teacher.shape[1], teacher_temp=hot, warmup_teacher_temp=hot).double()
    two = IBOTPatchLoss(teacher.shape[1], teacher_temp=hot)
    views = torch.cat(batch.views["global"] + batch.views["solarized"])
    tokens = method.backbone.tokens(views, mask=mask, mask_token=method.mask_token)[:, 0]
    expected = (
        one(list(teacher.chunk(2)), list(student))
        + two(masked_truth, patches[mask], mask.view(-1, 4, 4))
        + 0.1 * sum(KoLeoLoss()(classes) for classes in tokens.chunk(2))
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    theirs = torch.autograd.grad(expected, batch.views["global"][0])[0]
    torch.testing.assert_close(first, theirs, rtol=1e-3, atol=1e-6 * theirs.abs().max().item())


@BOTH
def test_the_student_sees_no_masked_pixel_and_the_teacher_gets_no_gradient(cls: Any) -> None:
    method = build(cls)
    batch = exact(method)
    method.loss(batch, conformance.step_at("main", 0)).backward()
    views = torch.cat([batch.views[name][0].grad for name in ("global", "solarized")])  # type: ignore[misc]
    patches = views.abs().unfold(2, 8, 8).unfold(3, 8, 8).amax((1, 4, 5)).flatten(1)
    mask = masks(method)
    assert mask.any() and (patches[mask] == 0).all()
    assert (patches[~mask] > 0).all()
    assert method.mask_token.grad.abs().sum() > 0
    for name, parameter in method.named_parameters():
        assert not name.startswith("teacher") or parameter.grad is None


@BOTH
def test_every_part_of_the_teacher_follows_its_own_part_of_the_student(cls: Any) -> None:
    method = build(cls)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.startswith("teacher"):
                parameter += 1
        method.after_step(conformance.step_at("main", 0))
    theirs = [key for key, _ in method.named_parameters() if key.startswith("teacher")]
    assert any(key.startswith("teacher_patch_head") for key in theirs) == (cls is DINOv2)
    for key in theirs:
        moved = method.state_dict()[key] - before[key]
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-3, atol=1e-6)


def test_untied_heads_learn_from_their_own_tokens_and_a_shared_one_from_both() -> None:
    method = build(DINOv2, patch_weight=0.0, koleo_weight=0.0)
    method.loss(conformance.memorised(method), conformance.step_at("main", 0)).backward()
    assert all((p.grad == 0).all() for p in method.patch_head.parameters())
    assert method.head.prototypes.grad.abs().sum() > 0
    gradients = []
    for weight in (0.0, 1.0):
        shared = build(IBOT, patch_weight=weight)
        shared.loss(conformance.memorised(shared), conformance.step_at("main", 0)).backward()
        gradients.append(shared.head.prototypes.grad)
    assert not torch.allclose(*gradients)


def test_the_centres_of_class_tokens_and_patches_are_two() -> None:
    method = build(IBOT, targets="center")
    batch = exact(method)
    _, teacher, _, truth, mask = outputs(method, batch)
    method.loss(batch, conformance.step_at("main", 0))
    torch.testing.assert_close(method.center.mean, 0.1 * teacher.mean(0), rtol=1e-5, atol=1e-8)
    rows = mask.flatten().to(torch.uint8).argsort(descending=True, stable=True)
    chosen = truth.flatten(0, 1)[rows[: method.most_masked(len(mask))]]
    assert len(chosen) >= mask.sum()
    expected = 0.1 * chosen.mean(0)
    torch.testing.assert_close(method.patch_center.mean, expected, rtol=1e-5, atol=1e-8)


@BOTH
def test_global_views_of_another_size_have_masks_of_their_grid(cls: Any) -> None:
    method = build(cls, global_size=0.75)
    batch = conformance.memorised(method)
    assert [views[0].shape[-1] for views in batch.views.values()] == [24, 24, 16]
    assert masks(method).shape == (2 * conformance.BATCH, 9)
    assert method.loss(batch, conformance.step_at("main", 0)).isfinite()
    panels = method.picture(batch, conformance.step_at("main", 0))
    assert {panel.tiles.shape[1:] for panel in panels} == {(3, 24, 24)}


@BOTH
@pytest.mark.parametrize("n", [2, 7, 128])
def test_no_mask_is_larger_than_foreseen(cls: Any, n: int) -> None:
    method = build(cls)
    source = rng.generator("foreseen", n)
    drawn = [int(method.masks(n, source).sum()) for _ in range(40)]
    assert max(drawn) <= method.most_masked(n) < n * 16
    assert len(set(drawn)) > 1


@BOTH
def test_the_guard_sees_a_head_that_says_the_same_of_all(cls: Any) -> None:
    told = []
    for scale in (1.0, 0.0):
        method = build(cls, targets="center")
        with torch.no_grad():
            method.teacher_head.mlp[-1].weight *= scale
            method.teacher_head.mlp[-1].bias.normal_(0, 1e-3, generator=rng.generator("bias"))
        step = conformance.step_at("main", 0)
        method.loss(conformance.memorised(method), step)
        told.append(step.logged["target_information"].item())
    assert told[0] > 0.01
    assert told[1] == pytest.approx(0, abs=1e-5)


def test_dinov2s_rate_grows_with_the_root_of_the_batch() -> None:
    method = build(DINOv2, lr=4e-3)
    assert peak_lr(method.optim("main"), 256) == pytest.approx(2e-3)
    assert method.optim("main").weight_decay_end == 0.4


@BOTH
def test_other_networks_and_settings_that_cannot_be_are_refused_in_one_line(cls: Any) -> None:
    with pytest.raises(BenchError, match="vision transformer with a class token"):
        build(cls, "small")
    with pytest.raises(BenchError, match="set fewer prototypes"):
        build(cls, prototypes=2**40)


@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (IBOT, {"mask_ratios": (0.0,)}),
        (IBOT, {"mask_ratios": (0.0, 0.1)}),
        (IBOT, {"mask_ratios": (0.0, 0.0), "mask_spreads": (0.0, 0.0)}),
        (DINOv2, {"mask_ratio": (0.5, 0.1)}),
        (DINOv2, {"mask_ratio": (0.0, 1.0)}),
    ],
)
def test_ratios_that_mask_nothing_or_all_are_refused(cls: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="mask_"):
        build(cls, **changes)


@BOTH
def test_a_batch_of_one_is_refused(cls: Any) -> None:
    with pytest.raises(BenchError, match="at least 2"):
        build(cls, batch_size=1)
