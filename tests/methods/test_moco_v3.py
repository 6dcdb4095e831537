"""MoCo v3: its loss as Algorithm 1 has it, pair by pair; the momentum encoder; transformers."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import backbones, conformance, rng
from bench.api import Batch
from bench.errors import BenchError
from bench.resolve import method_config
from methods.moco_v3 import MoCoV3


def fresh(backbone: str = "small", recipe: str = "small", **changes: Any) -> MoCoV3:
    cfg = method_config(MoCoV3, "moco_v3", recipe, {"batch_size": 16, "epochs": 2, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("moco_v3"))
        network = backbones.build(backbone, conformance.SIZE)
        return MoCoV3(cfg, network, conformance.toy_info())


def doubled(batch: Batch) -> Batch:
    batch.views = {key: [view.double() for view in views] for key, views in batch.views.items()}
    return batch


def test_value_and_gradients_are_those_of_the_papers_algorithm() -> None:
    """Algorithm 1: ctr(q1, k2) + ctr(q2, k1), 2 tau times a cross-entropy with labels 0..N-1."""
    method = fresh(temperature=0.3).double().train()
    batch = doubled(conformance.memorised(method))
    base = copy.deepcopy(nn.Sequential(method.backbone, method.projector, method.predictor))
    keys = copy.deepcopy(method.key_encoder)
    loss = method.loss(batch, conformance.step_at("main", 0))

    def ctr(queries: Tensor, targets: Tensor) -> Tensor:
        total = queries.new_zeros(())
        for number, query in enumerate(queries):
            terms = [(F.cosine_similarity(query, key, dim=0) / 0.3).exp() for key in targets]
            total = total - (terms[number] / torch.stack(terms).sum()).log()
        return 2 * 0.3 * total / len(queries)

    x1, x2 = batch.view("one"), batch.view("two")
    expected = ctr(base(x1), keys(x2)) + ctr(base(x2), keys(x1))
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    loss.backward()
    expected.backward()
    ours = [*method.backbone.parameters(), *method.projector.parameters()]
    ours += method.predictor.parameters()
    for mine, theirs in zip(ours, base.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-10)
    assert all(parameter.grad is None for parameter in method.key_encoder.parameters())


def test_the_momentum_encoder_follows_along_a_cosine_and_has_no_predictor() -> None:
    method = fresh(teacher_momentum=0.9)
    for index, momentum in ((0, 0.9), (4, 0.95), (8, 1.0)):
        before = [value.clone() for value in method.key_encoder.parameters()]
        online = [*method.backbone.parameters(), *method.projector.parameters()]
        with torch.no_grad():
            for value in online:
                value.add_(1)
        method.after_step(conformance.step_at("main", index, total=8))
        for old, new, now in zip(before, method.key_encoder.parameters(), online, strict=True):
            torch.testing.assert_close(new, momentum * old + (1 - momentum) * now)


def test_a_transformer_keeps_its_patch_embedding_and_positions() -> None:
    method = fresh("vit_nano_patch8", "vit", hidden=32, projection=8, warmup_epochs=0, lr=0.1)
    before = {name: value.clone() for name, value in method.backbone.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        conformance.fit(method, conformance.toy_split(), 3, Path(folder))
    same = {n for n, value in method.backbone.named_parameters() if torch.equal(before[n], value)}
    frozen = {n for n in before if "patch_embed" in n or n.endswith("pos_embed")}
    assert same == frozen and len(frozen) > 1


def test_the_patch_embedding_is_trained_where_the_setting_says_so() -> None:
    method = fresh("vit_nano_patch8", freeze_patches=False)
    fixed = [name for name, value in method.backbone.named_parameters() if not value.requires_grad]
    assert [name.rpartition(".")[2] for name in fixed] == ["pos_embed"]


def test_with_a_transformer_it_resumes_exactly_and_reaches_every_parameter() -> None:
    split = conformance.toy_split()
    whole = fresh("vit_nano_patch8", hidden=32)
    with tempfile.TemporaryDirectory() as folder:
        conformance.fit(whole, split, 3, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        for steps in (2, 1):
            parts = fresh("vit_nano_patch8", hidden=32)
            conformance.fit(parts, split, steps, Path(folder))
    assert not conformance.differing(whole, parts)
    loss = whole.loss(conformance.memorised(whole), conformance.step_at("main", 0))
    loss.backward()
    assert all(value.grad is not None for value in whole.parameters() if value.requires_grad)


def test_heads_are_the_official_ones() -> None:
    def layers(module: nn.Module) -> list[str]:
        return [type(layer).__name__ for layer in module.children()]

    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    resnet, vit = fresh(), fresh("vit_nano_patch8", "vit", hidden=32, projection=8)
    assert layers(resnet.projector) == [*hidden, "Linear", "BatchNorm1d"]
    assert layers(resnet.predictor) == [*hidden, "Linear"]
    assert layers(vit.projector) == [*hidden, *hidden, "Linear", "BatchNorm1d"]
    assert layers(vit.predictor) == [*hidden, "Linear", "BatchNorm1d"]
    every = [*vit.projector, *vit.predictor, *resnet.projector, *resnet.predictor]
    assert all(layer.bias is None for layer in every if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(("optimizer", "decays"), [("lars", False), ("adamw", True)])
def test_lars_leaves_biases_and_norms_out_and_adamw_does_not(optimizer: str, decays: bool) -> None:
    spec = fresh(optimizer=optimizer).optim("main")
    assert (spec.name, spec.decay_bias_and_norm) == (optimizer, decays)


def test_a_batch_of_one_is_refused_in_one_line() -> None:
    with pytest.raises(BenchError, match="greater than or equal to 2") as error:
        fresh(batch_size=1)
    assert "\n" not in str(error.value)
