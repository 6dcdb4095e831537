"""Every registered protocol, on the real feature store and toy data that can be cheated on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from bench import backbones, conformance, registry, rng
from bench.api import Classifier, Encoder, ImageTextEncoder, Protocol, Scores
from bench.data.dataset import Boxes, DataSet, MemoryImages, Split, part
from bench.data.text import tokenize
from bench.features import Evaluation, FeatureStore, weights_digest
from bench.nn.classifier import WithHead
from bench.progress import Reporter

PROTOCOLS = list(registry.names("protocols"))
# Protocols of other labels, or without any, are held against theirs in tests of their own.
CLASSIFIERS = [name for name in PROTOCOLS if registry.protocol(name).metric.name == "top1"]
CLASSES, SIZE = conformance.CLASSES, conformance.SIZE
COUNTS = {"full": 200, "test": 400}


def split(name: str) -> Split:
    """Noise, but for the top left pixel's red, which is 60 times the label."""
    count = COUNTS[name]
    pixels = torch.randint(
        0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=rng.generator("noise", name)
    )
    labels = torch.arange(count) % CLASSES
    pixels[:, 0, 0, 0] = (60 * labels).to(torch.uint8)
    semantic = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    semantic[:, 8:24, 8:24] = (labels + 1)[:, None, None].to(torch.uint8)
    box, easy = torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([False])
    return Split(
        name,
        MemoryImages(pixels),
        f"toy-{name}",
        labels=labels,
        multilabel=one_hot(labels, CLASSES).to(torch.int8),
        boxes=tuple(Boxes(box, label[None], easy) for label in labels),
        semantic=semantic,
    )


def data() -> DataSet:
    full, info = split("full"), conformance.toy_info()
    info = replace(info, has=info.has | {"multilabel", "boxes", "masks"})
    train, val = part(full, torch.arange(0, COUNTS["full"], 5))
    return DataSet(info, full, train, val, split("test"))


class Constant(Encoder):
    """The same numbers for every picture."""

    dim, layers = 8, ("map",)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), self.dim)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": torch.ones(len(x), 2, 4, 4)}


class Leak(Encoder):
    """Reads the label off the picture."""

    dim = CLASSES

    def forward(self, x: Tensor) -> Tensor:
        mean, std = conformance.toy_info().mean[0], conformance.toy_info().std[0]
        label = ((x[:, 0, 0, 0] * std + mean) * 255 / 60).round().long()
        return one_hot(label, CLASSES).float()


class Captioned(ImageTextEncoder):
    """Another encoder, with the axis of the class that is named as a prompt's embedding."""

    scale = 10.0

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.dim, self.layers = encoder, encoder.dim, encoder.layers
        self.names = tokenize(conformance.toy_info().classes)[:, 1]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x)
        return out

    def embed_image(self, x: Tensor) -> Tensor:
        return self(x)

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Templates hold the word "a", the first class's name: of two names it gives way."""
        named = (tokens[:, :, None] == self.names).any(1)
        return one_hot((named * torch.arange(CLASSES)).argmax(1), self.dim).float()


class FirstValues(nn.Module):
    """The first values of the features as logits, which are another encoder's classes."""

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :CLASSES]


def run(name: str, encoder: Encoder, folder: Path, used: DataSet | None = None) -> Scores:
    cls = registry.protocol(name)
    encoder = Captioned(encoder) if cls.takes is ImageTextEncoder else encoder
    encoder = WithHead(encoder, FirstValues()) if cls.takes is Classifier else encoder
    store = FeatureStore(folder, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    evaluation = Evaluation(used or data(), store)
    scores = cls().run(encoder.eval(), evaluation, cls.Config(**cls.toy), 0)
    # One that requires no kind of label looks at the encoder's weights alone.
    assert evaluation.test_was_read or not cls.requires, "a protocol reports on test"
    return scores


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_constant_encoder_scores_chance(name: str, tmp_path: Path) -> None:
    scores = run(name, Constant(), tmp_path)
    metric = registry.protocol(name).metric.name
    assert scores.metrics[metric] == pytest.approx(100 / CLASSES)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_leaking_encoder_scores_everything(name: str, tmp_path: Path) -> None:
    scores = run(name, Leak(), tmp_path)
    assert scores.metrics[registry.protocol(name).metric.name] == 100
    assert scores.predictions is not None
    assert scores.labels is not None
    assert torch.equal(scores.predictions, scores.labels)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_noise_in_the_test_labels_is_seen_and_moves_no_choice(name: str, tmp_path: Path) -> None:
    """With test labels shuffled the same things are chosen, and the score falls to chance."""
    honest = data()
    assert honest.test.labels is not None
    shuffle = torch.randperm(COUNTS["test"], generator=rng.generator("shuffled"))
    test = replace(honest.test, labels=honest.test.labels[shuffle], digest="shuffled")
    scores = run(name, Leak(), tmp_path, replace(honest, test=test))
    assert scores.selected == run(name, Leak(), tmp_path).selected
    assert scores.metrics[registry.protocol(name).metric.name] < 40


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_encoder_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = backbones.build("small", SIZE).requires_grad_(False)
    before = weights_digest(encoder)
    first = run(name, encoder, tmp_path)
    assert weights_digest(encoder) == before
    assert run(name, encoder, tmp_path).metrics == first.metrics, "a protocol repeats itself"


@pytest.mark.parametrize("name", sorted({*PROTOCOLS} - {*CLASSIFIERS}))
def test_a_protocol_of_other_labels_has_tests_of_its_own(name: str) -> None:
    assert (Path(__file__).parents[1] / "protocols" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_describes_itself(name: str) -> None:
    cls: type[Protocol] = registry.protocol(name)
    assert cls.version >= 1
    assert cls.metric.unit
    assert registry.names("protocols")[name]
