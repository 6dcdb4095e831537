"""SimCLR: its loss against lightly's parts, its settings against the paper's, collapse."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn

from bench import conformance, optim, registry, rng
from bench.api import Method
from bench.errors import BenchError
from bench.nn.view_pairs import match_top1
from bench.resolve import method_config
from methods.simclr import SimCLR


def build(recipe: str = "paper", **settings: object) -> Method:
    cfg = method_config(SimCLR, "simclr", recipe, {"batch_size": 16, **settings})
    return SimCLR(cfg, conformance.build(SimCLR, "simclr").backbone, conformance.toy_info())


def loss_and_gradients(method: Method) -> tuple[Tensor, tuple[Tensor, ...]]:
    batch = conformance.memorised(method)
    batch.views = {name: [v.double() for v in views] for name, views in batch.views.items()}
    loss = method.loss(batch, conformance.step_at("main", 0))
    return loss, torch.autograd.grad(loss, list(method.backbone.parameters()))


def test_loss_and_gradients_are_those_of_lightlys_head_and_loss() -> None:
    """The same projector weights in lightly's module, both views through it at once."""
    method = build("small").double()
    loss, gradients = loss_and_gradients(method)
    head = SimCLRProjectionHead(256, 256, 128).double()
    ours = method.projector.state_dict().values()
    head.load_state_dict(dict(zip(head.state_dict(), ours, strict=True)))
    views = conformance.memorised(method).views["view"]
    one, two = head(method.backbone(torch.cat(views).double())).chunk(2)
    expected = NTXentLoss(method.cfg.temperature)(one, two)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    wanted = torch.autograd.grad(expected, list(method.backbone.parameters()))
    torch.testing.assert_close(gradients, wanted, rtol=1e-7, atol=1e-12)


def test_match_top1_counts_views_that_find_their_pair() -> None:
    one = torch.eye(4)
    assert match_top1(one, 3 * one).item() == 100
    # The first two pictures' second views are exchanged: four of the eight views go astray.
    assert match_top1(one, one[[1, 0, 2, 3]]).item() == 50
    draw = rng.generator("chance")
    unrelated = torch.randn(2, 512, 16, generator=draw)
    assert match_top1(*unrelated).item() < 2  # chance is 0.1


def test_the_papers_learning_rates() -> None:
    """Appendix B.1: 0.3 * batch / 256 = 4.8 = 0.075 * sqrt(batch) at a batch of 4096."""
    linear = build().optim("main")
    root = build(scaling="sqrt", lr=1.2).optim("main")
    assert optim.peak_lr(linear, 4096) == pytest.approx(4.8)
    assert optim.peak_lr(root, 4096) == pytest.approx(4.8)
    assert optim.peak_lr(root, 256) == pytest.approx(0.075 * 16)


def test_the_papers_projector_has_batch_norm_throughout_and_no_last_shift() -> None:
    projector = build(hidden=64).projector
    kinds = [type(layer) for layer in projector]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert [layer.out_features for layer in projector if isinstance(layer, nn.Linear)] == [64, 128]
    assert projector[1].bias.requires_grad and not projector[4].bias.requires_grad
    assert all(layer.bias is None for layer in projector if isinstance(layer, nn.Linear))


def test_the_cifar10_recipe_is_the_repositorys() -> None:
    """dkobak/simclr-cifar10: a head of 512-1024-128 with biases and without batch norm."""
    method = SimCLR(
        method_config(SimCLR, "simclr", "cifar10", {}),
        conformance.build(SimCLR, "simclr").backbone,
        conformance.toy_info(),
    )
    first, _, last = method.projector
    assert isinstance(method.projector[1], nn.ReLU)
    assert (first.out_features, last.out_features) == (1024, 128)
    assert first.bias is not None and last.bias is not None
    spec = method.optim("main")
    assert (spec.name, spec.momentum, spec.nesterov) == ("sgd", 0.9, False)
    assert (spec.weight_decay, spec.decay_bias_and_norm) == (5e-4, True)
    per_epoch = 97
    rates = [optim.lr_at(spec, step, per_epoch, 100 * per_epoch, 512) for step in (0, 4850, 9699)]
    assert rates == pytest.approx([0.12, 0.06, 0.0], abs=1e-6)
    (view,) = method.views()
    crop, flip, jitter, gray, _ = view.ops
    assert view.count == 2 and crop.scale == (0.2, 1.0) and flip.p == 0.5 and gray.p == 0.1
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.p) == (
        *(0.4, 0.4, 0.4, 0.1),
        0.8,
    )


def test_attraction_alone_collapses_and_is_seen() -> None:
    """Without the other views to repel, `embedding_std` falls towards 0; with them it does not."""
    spread = {}
    for repel in (True, False):
        method = build("small").train()
        # Batch norm without a shift could not collapse onto one point.
        method.projector = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 32))
        optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
        batch = conformance.memorised(method)
        for index in range(40):
            step = conformance.step_at("main", index)
            one, two = method.embeddings(batch, step)
            attract = -nn.functional.cosine_similarity(one, two).mean()
            loss = method.loss(batch, step) if repel else attract
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spread[repel] = step.logged["embedding_std"].item()
    assert spread[False] < 0.3 < 0.6 < spread[True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"batch_size": 1}, "batch_size: .*or equal to 2"),
        ({"projector_layers": 0}, "projector_layers"),
        ({"optimizer": "lasr"}, "optimizer"),
        ({"temperatur": 0.1}, "temperature"),
    ],
)
def test_bad_settings_are_one_clear_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        method_config(registry.method("simclr"), "simclr", "paper", settings)
