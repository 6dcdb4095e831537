"""Supervised training on all labels and on few, and the classifier that it leaves."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from bench import conformance
from bench.api import Backbone, Classifier
from bench.data.few_labels import few_labels
from bench.loader import Loader
from bench.nn.classifier import WithHead
from methods.supervised import Supervised
from methods.supervised_few_labels import SupervisedFewLabels


def pictures(count: int = 5) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, conformance.SIZE, conformance.SIZE, generator=rng)


def test_the_encoder_is_the_backbone_bit_for_bit() -> None:
    method = conformance.build(Supervised, "supervised").eval()
    assert isinstance(method, Supervised)
    encoder, x = method.encoder(), pictures()
    with torch.no_grad():
        assert torch.equal(encoder(x), method.backbone(x))
        out, maps = encoder.tap(x)
        expected, theirs = method.backbone.tap(x)
        assert torch.equal(out, expected)
        assert list(maps) == list(theirs) == list(encoder.layers) == list(encoder.maps(x))
        assert all(torch.equal(maps[name], theirs[name]) for name in maps)
    assert encoder.dim == method.backbone.dim


def test_what_was_trained_before_there_was_a_classifier_can_be_loaded() -> None:
    """The weights are a backbone's and a linear layer's, whatever wraps them."""
    method = conformance.build(Supervised, "supervised")
    head = nn.Linear(method.backbone.dim, conformance.CLASSES)
    keys = {f"backbone.{key}" for key in method.backbone.state_dict()}
    assert set(method.state_dict()) == keys | {f"head.{key}" for key in head.state_dict()}
    method.encoder()
    assert set(method.state_dict()) == keys | {f"head.{key}" for key in head.state_dict()}


@pytest.mark.parametrize("cls", [Supervised, SupervisedFewLabels])
def test_it_classifies_by_its_own_head(cls: type[Supervised]) -> None:
    method = conformance.build(cls, cls.__module__.partition(".")[2]).eval()
    encoder, x = method.encoder(), pictures()
    assert isinstance(encoder, Classifier)
    with torch.no_grad():
        logits = method.backbone(x) @ method.head.weight.T + method.head.bias  # type: ignore[union-attr]
        torch.testing.assert_close(encoder.classify(x), logits)


def test_a_wrapped_network_shares_its_modules() -> None:
    class Mean(Backbone):
        dim = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    network, head = Mean(), nn.Linear(3, 2)
    wrapped = WithHead(network, head)
    nn.init.zeros_(head.weight)
    assert (wrapped.classify(pictures()) == head.bias).all()
    assert wrapped.layers == ()
    assert wrapped.maps(pictures()) == {}


def test_few_labels_are_all_that_is_seen() -> None:
    method = conformance.build(SupervisedFewLabels, "supervised_few_labels")
    split = conformance.toy_split()
    loader = Loader(method, split, 5, torch.device("cpu"))
    batch = next(loader.batches(0, 0, 1))
    assert batch.views == {}
    assert batch.label is None
    assert batch.labeled is not None
    assert len(batch.labeled) == method.cfg.labeled_batch_size
    chosen = few_labels(split, method.cfg.labels, 5)
    assert torch.isin(batch.labeled.index, chosen).all()
    seen = torch.cat(
        [b.labeled.index for b in loader.batches(0, 0, 4) if b.labeled is not None]
    ).unique()
    assert torch.equal(seen, chosen)


def test_its_loss_is_scikit_learns_log_loss_on_the_labelled_pictures() -> None:
    method = conformance.build(SupervisedFewLabels, "supervised_few_labels").eval()
    batch = conformance.memorised(method)
    assert batch.labeled is not None
    assert batch.labeled.label is not None
    with torch.no_grad():
        found = method.loss(batch, conformance.step_at("main", 0))
        logits = method.head(method.backbone(batch.labeled.view("labeled")))  # type: ignore[operator]
    expected = log_loss(
        batch.labeled.label, logits.double().softmax(1), labels=range(conformance.CLASSES)
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)
