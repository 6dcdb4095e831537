"""Zero-shot classification from prompts: against a loop, and on embeddings that are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import FakeData, FakeEncoder
from open_clip import SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from bench import registry, resolve, rng, runner
from bench.api import ImageTextEncoder
from bench.data import catalog
from bench.data.dataset import DataOptions
from bench.data.text import detokenize, tokenize
from bench.errors import BenchError
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter
from bench.resolve import validated
from protocols.zeroshot import (
    EMBEDDING,
    OWN_TEMPLATES,
    TEMPLATES,
    ZeroShot,
    class_embeddings,
    templates_for,
)

CLASSES = 8


class Reader(ImageTextEncoder):
    """Embeds a prompt as the axis of the class it names, bent a little by its other words."""

    dim = 3

    def __init__(self, learnt: bool = True, classes: int = CLASSES) -> None:
        super().__init__()
        self.learnt, self.classes = learnt, classes
        self.asked: list[str] = []

    @property
    def scale(self) -> float:
        return 20.0

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.dim)

    def embed_image(self, x: Tensor) -> Tensor:
        return 1 + x.flatten(1)[:, : self.classes]

    def embed_text(self, tokens: Tensor) -> Tensor:
        prompts = detokenize(tokens)
        self.asked += prompts
        if not self.learnt:
            return torch.ones(len(prompts), self.classes)
        rows = []
        for prompt in prompts:
            (number,) = [c for c in range(self.classes) if f"class {c}" in prompt]
            bent = torch.randn(self.classes, generator=rng.generator("prompt", prompt.count(" ")))
            rows.append(5 * one_hot(torch.tensor(number), self.classes) + bent)
        return torch.stack(rows)


def data(test: Tensor, labels: Tensor | None) -> FakeData:
    """Test embeddings `[N, D]`; training and validation pictures are of no account."""
    other = ({EMBEDDING: torch.full((2, 3), torch.nan)}, torch.zeros(2, dtype=torch.long))
    made = FakeData(other, other, ({EMBEDDING: test}, labels), classes=CLASSES)
    object.__setattr__(made.info, "classes", tuple(f"class_{c}" for c in range(CLASSES)))
    return made


LABELS = torch.arange(40) % CLASSES


def test_embeddings_on_their_prompts_score_all_and_constant_ones_chance() -> None:
    cfg, leak = ZeroShot.Config(), one_hot(LABELS, CLASSES).float()
    made = data(leak, LABELS)
    scores = ZeroShot().run(Reader(), made, cfg, seed=0)
    assert (scores.metrics["top1"], scores.metrics["top5"]) == (100, 100)
    assert [name for name, _, _ in made.asked] == ["read_test", "test"], "nothing is chosen"
    for pictures, learnt in ((torch.ones_like(leak), True), (leak, False)):
        scores = ZeroShot().run(Reader(learnt), data(pictures, LABELS), cfg, seed=0)
        assert scores.metrics["top1"] == 100 / CLASSES


def test_is_a_loop_over_pictures_classes_and_templates() -> None:
    draw = rng.generator("pictures")
    test = one_hot(LABELS, CLASSES) + torch.randn(40, CLASSES, generator=draw)
    templates = ("a {}.", "one picture of the {} seen", "{}")
    encoder, cfg = Reader(), ZeroShot.Config(templates=templates)
    scores = ZeroShot().run(encoder, data(test, LABELS), cfg, seed=0)
    assert "a class 3 ." in encoder.asked, "underscores are spaces"

    total = []
    for c in range(CLASSES):
        mean = torch.zeros(CLASSES, dtype=torch.float64)
        for template in templates:
            prompt = template.replace("{}", f"class {c}")
            (row,) = Reader().embed_text(tokenize([prompt])).double()
            mean += row / math.sqrt(sum(v * v for v in row.tolist())) / len(templates)
        total.append(mean / math.sqrt(sum(v * v for v in mean.tolist())))
    hits, guesses, confidences = 0, [], []
    for row, label in zip(test.double(), LABELS.tolist(), strict=True):
        cosines = [float(row @ mean) / math.sqrt(float(row @ row)) for mean in total]
        guesses.append(cosines.index(max(cosines)))
        confidences.append(math.exp(20 * max(cosines)) / sum(math.exp(20 * s) for s in cosines))
        hits += guesses[-1] == label
    assert 0 < hits < 40
    assert scores.metrics["top1"] == pytest.approx(100 * hits / 40)
    assert scores.predictions is not None and scores.predictions.tolist() == guesses
    over = sum(confidences) / 40 - hits / 40
    assert scores.metrics["ece"] >= abs(100 * over) - 1e-4, "the gap of the whole is the least"
    assert scores.selected == {"templates": list(templates), "scale": 20.0}


def test_class_embeddings_are_unit_and_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    names, templates = [f"class {c}" for c in range(CLASSES)], ("a {}.", "the {} in red")
    whole = class_embeddings(Reader(), names, templates, torch.device("cpu"))
    monkeypatch.setattr("protocols.zeroshot.PROMPTS", 3)
    torch.testing.assert_close(
        class_embeddings(Reader(), names, templates, torch.device("cpu")), whole
    )
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(CLASSES))


def test_the_default_templates_have_clips_seven() -> None:
    seven = {template("{}") for template in SIMPLE_IMAGENET_TEMPLATES}
    assert {*seven, "a photo of a {}."} <= set(TEMPLATES)


def test_templates_of_scenes_are_whole_captions_of_a_single_thing() -> None:
    assert "a red {}." in OWN_TEMPLATES["scenes"] and "an orange {}." in OWN_TEMPLATES["scenes"]
    assert len(set(OWN_TEMPLATES["scenes"])) == 12
    for name in ("scenes", "scenes64", "scenes-limit5000"):
        assert templates_for(name) == OWN_TEMPLATES["scenes"]
    assert templates_for("cifar10_jpeg75") == templates_for("imagenet") == TEMPLATES


def test_cached_embeddings_are_not_the_representation(tmp_path: Path) -> None:
    """The same weights, pictures and cache: "output" and embeddings must not be mixed up."""
    used, encoder = catalog.load("digits", DataOptions(limit=100)), Reader(classes=10)
    used = replace(used, info=replace(used.info, classes=tuple(f"class_{c}" for c in range(10))))
    top1 = []
    for _ in range(2):
        store = FeatureStore(tmp_path, encoder, "x", torch.device("cpu"), Reporter(quiet=True))
        evaluation = Evaluation(used, store)
        scores = ZeroShot().run(encoder, evaluation, ZeroShot.Config(), seed=0)
        top1.append(scores.metrics["top1"])
        plain = Evaluation(used, store).read_test().features(encoder)["output"]
        assert plain.shape == (len(used.test), encoder.dim)
        assert not plain.any()
    assert top1[0] == top1[1]
    assert (store.extracted, store.reused) == (0, 2), "the second time all is there"


def test_an_encoder_without_text_is_refused_before_training(results: Path) -> None:
    message = "protocol zeroshot needs a method that learns from text such as clip; "
    with pytest.raises(BenchError, match=f"{message}FakeEncoder has no text side"):
        ZeroShot().run(FakeEncoder(), data(torch.ones(2, 3), None), ZeroShot.Config(), seed=0)
    loaded = catalog.load("digits")
    resolved = resolve.resolve(
        method="rotnet",
        protocol="zeroshot",
        data="digits",
        size=8,
        backbone=None,
        seed=0,
        recipe="auto",
        overrides=resolve.parse_sets(["method.epochs=1000"]),
    )
    with pytest.raises(BenchError, match=f"{message}rotnet is not one"):
        runner.run(resolved, loaded, results, Reporter(quiet=True))


def test_bad_input_is_one_line() -> None:
    cls = registry.protocol("zeroshot")
    with pytest.raises(BenchError, match=r"no \{\} for the name of a class"):
        validated(cls.Config, {"templates": ["a photo"]}, "protocol zeroshot")
    with pytest.raises(BenchError, match="at least 1 item"):
        validated(cls.Config, {"templates": []}, "protocol zeroshot")
    with pytest.raises(BenchError, match="has no labels"):
        ZeroShot().run(Reader(), data(torch.ones(2, CLASSES), None), cls.Config(), seed=0)
    broken = torch.full((2, CLASSES), torch.inf)
    with pytest.raises(BenchError, match="NaN or infinity"):
        ZeroShot().run(Reader(), data(broken, LABELS[:2]), cls.Config(), seed=0)


def test_unit_embeddings_are_compared() -> None:
    test = one_hot(LABELS, CLASSES) * torch.arange(1.0, 41)[:, None]
    scores = [
        ZeroShot().run(Reader(), data(rows, LABELS), ZeroShot.Config(), seed=0).metrics
        for rows in (test, normalize(test))
    ]
    assert scores[0] == pytest.approx(scores[1])
