"""The method's own classifier: scored as it is, and refused where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from torch import Tensor, nn

from bench import backbones, conformance, runner
from bench.api import Batches, Encoder, Scores
from bench.data.dataset import DataSet, MemoryImages, Split
from bench.data.views import eval_view, render
from bench.errors import BenchError
from bench.eval.predicting import predict
from bench.features import Evaluation, FeatureStore
from bench.nn.classifier import WithHead
from bench.progress import Reporter
from bench.resolve import parse_sets, resolve
from bench.rng import generator
from protocols.classifier import Classifier

CLASSES = 7


class Uneven(MemoryImages):
    """The third picture of each batch cannot be decoded."""

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        for index, x in super().stream(batches):
            keep = torch.arange(len(index)) != 2
            yield index[keep], x[keep]


def data(images: type[MemoryImages] = MemoryImages) -> DataSet:
    rng = generator("pictures")
    pixels = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.randint(CLASSES, (300,), generator=rng)
    test = Split("test", images(pixels), "test", labels=labels)
    info = replace(conformance.toy_info(), classes=tuple("abcdefg"))
    train = conformance.toy_split()
    return DataSet(info, train, train, train, test)


def trained(classes: int = CLASSES) -> WithHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = backbones.build("small", 32)
        return WithHead(backbone, nn.Linear(backbone.dim, classes))


def run(used: DataSet, encoder: Encoder, folder: Path) -> tuple[Scores, Evaluation]:
    encoder = encoder.requires_grad_(False).eval()
    store = FeatureStore(folder, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    evaluation = Evaluation(used, store)
    del evaluation.train, evaluation.val  # neither is looked at
    return Classifier().run(encoder, evaluation, Classifier.Config(), 0), evaluation


def test_it_scores_what_the_head_says(tmp_path: Path) -> None:
    used, network = data(), trained()
    scores, _ = run(used, network, tmp_path)
    assert isinstance(used.test.images, MemoryImages)
    (x,) = render(eval_view(used.info), used.test.images.pixels, generator("unused"))
    logits = network.head(network.network(x))
    labels = used.test.labels
    assert labels is not None
    assert scores.predictions is not None
    assert torch.equal(scores.predictions, logits.argmax(1))
    expected = 100 * accuracy_score(labels, logits.argmax(1))
    assert scores.metrics["top1"] == pytest.approx(expected)
    top5 = 100 * top_k_accuracy_score(labels, logits, k=5, labels=range(CLASSES))
    assert scores.metrics["top5"] == pytest.approx(top5)


def test_pictures_that_cannot_be_decoded_have_no_prediction(tmp_path: Path) -> None:
    scores, _ = run(data(Uneven), trained(), tmp_path)
    keep = torch.ones(300, dtype=torch.bool)
    keep[[2, 258]] = False  # of batches of 256
    labels = data().test.labels
    assert labels is not None
    assert scores.labels is not None
    assert torch.equal(scores.labels, labels[keep])
    everything, _ = run(data(), trained(), tmp_path)
    assert scores.predictions is not None
    assert everything.predictions is not None
    assert torch.equal(scores.predictions, everything.predictions[keep])


def test_outputs_of_any_shape_come_with_their_labels(tmp_path: Path) -> None:
    _, evaluation = run(data(), trained(), tmp_path)
    evaluation.test_was_read = False
    means, labels = predict(evaluation.read_test(), lambda x: x.double().mean(3))
    assert means.shape == (300, 3, 32)
    assert means.dtype == torch.float32
    assert torch.equal(labels, evaluation._test.labels)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="knows 4 classes, and toy has 7; evaluate it on the data"):
        run(data(), trained(4), tmp_path)


def test_a_diverged_head_and_missing_labels_are_told(tmp_path: Path) -> None:
    network = trained()
    nn.init.constant_(network.head.weight, torch.inf)  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="NaN or infinity"):
        run(data(), network, tmp_path)
    bare = data()
    with pytest.raises(BenchError, match="test split of toy has no labels"):
        run(replace(bare, test=replace(bare.test, labels=None)), trained(), tmp_path)


@pytest.mark.parametrize(("method", "fits"), [("rotnet", False), ("supervised", True)])
def test_a_method_without_a_classifier_is_refused_before_it_trains(method: str, fits: bool) -> None:
    resolved = resolve(
        method=method,
        protocol="classifier",
        data="toy",
        size=32,
        backbone=None,
        seed=0,
        recipe="auto",
        overrides=parse_sets([]),
    )
    if fits:
        assert runner.plan(resolved, data()).method is not None
        return
    with pytest.raises(BenchError, match=r"needs a method that trains a classifier.*rotnet is not"):
        runner.plan(resolved, data())
