"""Robustness: shifts against torchvision, what survives them, and test sets made anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import FakeEncoder, digits
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms.v2 import functional as F

from bench import conformance
from bench.api import Batches, Encoder, Scores
from bench.data.dataset import DataSet, MemoryImages, Split
from bench.data.ops.corrupt import GaussianNoise, Pixelate
from bench.data.views import eval_view, render
from bench.errors import BenchError
from bench.eval.retest import relabelled_top1, valid_labels
from bench.eval.shifts import shifts
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter
from bench.rng import generator
from protocols.linear import Linear
from protocols.robustness import Robustness

CLASSES, SIZE, STEP = conformance.CLASSES, conformance.SIZE, 60  # of red between two classes
COUNTS = {"train": 160, "val": 40, "test": 200}
INFO = conformance.toy_info()


def split(name: str) -> Split:
    """Green and blue noise; red is 60 times the class in the left half, else 0."""
    labels = torch.arange(COUNTS[name]) % CLASSES
    pixels = torch.randint(0, 256, (COUNTS[name], 3, SIZE, SIZE), generator=generator(name))
    pixels[:, 0] = 0
    pixels[:, 0, :, : SIZE // 2] = (STEP * labels)[:, None, None]
    return Split(name, MemoryImages(pixels.to(torch.uint8)), f"shift-{name}", labels=labels)


def data() -> DataSet:
    train = split("train")
    return DataSet(INFO, train, train, split("val"), split("test"))


def read(red: Tensor) -> Tensor:
    """The class that a value of red in [0, 1] stands for, as one-hot rows."""
    return one_hot((red * 255 / STEP).round().long().clamp(0, CLASSES - 1), CLASSES).float()


class Constant(Encoder):
    """The same numbers for every picture."""

    dim = CLASSES

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), self.dim), 0.3)


class Half(Constant):
    """The median red of the left half: what blurs or speckles it changes little."""

    def forward(self, x: Tensor) -> Tensor:
        return read(INFO.rgb(x)[:, 0, :, : SIZE // 2].flatten(1).median(1).values)


class Contrast(Constant):
    """Whether red differs from left to right, as a share of the class's step: 0 to 3."""

    def forward(self, x: Tensor) -> Tensor:
        red = INFO.rgb(x)[:, 0, SIZE // 2]
        return read(red[:, 2] - red[:, -2])


def run(encoder: Encoder, kept: Path, used: DataSet | None = None, **settings: object) -> Scores:
    cfg = Robustness.Config(**{**Robustness.toy, **settings})  # type: ignore[arg-type]
    store = FeatureStore(kept, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    evaluation = Evaluation(used or data(), store)
    return Robustness().run(encoder.eval(), evaluation, cfg, 0)


def by_shift(scores: Scores) -> dict[str, float]:
    return {name: values["top1"] for name, values in scores.per_layer.items()}


def test_a_constant_encoder_scores_chance_everywhere(tmp_path: Path) -> None:
    scores = run(Constant(), tmp_path)
    assert set(by_shift(scores).values()) == {100 / CLASSES}
    assert scores.metrics == {"robust_top1": 25.0, "top1": 25.0, "relative": 100.0}


def test_a_leaking_encoder_loses_what_a_shift_takes(tmp_path: Path) -> None:
    found = by_shift(run(Half(), tmp_path))
    assert found.pop("clean") == 100
    # The median stays where it was, or the classes below a half of the step are lost.
    assert all(found[name] == 100 for name in ("noise", "blur", "pixelate"))
    assert found["grey"] < 60, "red cannot be told from green and blue"
    labels = torch.arange(CLASSES)
    for name, factor in (("dark", 0.5), ("bright", 1.5)):
        seen = read((STEP / 255 * labels * factor).clamp(0, 1)).argmax(1)
        assert found[name] == pytest.approx(100 * (seen == labels).double().mean().item())


def test_numbers_are_means_of_the_shifts(tmp_path: Path) -> None:
    scores = run(Contrast(), tmp_path)
    found = by_shift(scores)
    assert scores.metrics["top1"] == found.pop("clean") == 100
    assert list(found) == list(shifts(INFO))
    assert scores.metrics["robust_top1"] == pytest.approx(sum(found.values()) / len(found))
    assert scores.metrics["relative"] == pytest.approx(scores.metrics["robust_top1"])
    assert 25 <= scores.metrics["robust_top1"] < 90


def test_shuffled_test_labels_are_seen_and_move_no_choice(tmp_path: Path) -> None:
    honest = data()
    assert honest.test.labels is not None
    test = replace(honest.test, labels=honest.test.labels.roll(1), digest="rolled")
    scores = run(Half(), tmp_path, replace(honest, test=test))
    assert scores.selected == run(Half(), tmp_path).selected
    assert scores.metrics["top1"] == 0
    assert "relative" not in scores.metrics, "a share of nothing"


def test_clean_accuracy_is_that_of_the_linear_probe() -> None:
    scores = Robustness().run(FakeEncoder(), digits()[0], Robustness.Config(), seed=1)
    expected = Linear().run(FakeEncoder(), digits()[0], Linear.Config(), seed=1)
    assert scores.metrics["top1"] == pytest.approx(expected.metrics["top1"])
    chosen = {key: expected.selected[key] for key in ("layer", "lr", "weight_decay", "val_top1")}
    assert {key: scores.selected[key] for key in chosen} == chosen


# -------------------------------------------------------------------------------------- the shifts
def test_shifts_are_torchvisions() -> None:
    pixels = split("test").images.pixels[:16]  # type: ignore[attr-defined]
    x = pixels / 255

    def rendered(name: str) -> Tensor:
        (out,) = render(shifts(INFO)[name], pixels, generator("shift"))
        return INFO.rgb(out)

    side = SIZE // 2
    coarse = F.resize(x, [side, side], F.InterpolationMode.BILINEAR, antialias=False)
    expected = {
        "bright": F.adjust_brightness(x, 1.5),
        "dark": F.adjust_brightness(x, 0.5),
        "contrast": F.adjust_contrast(x, 0.3),
        "grey": F.rgb_to_grayscale(x, 3),
        "blur": F.gaussian_blur(x, [9, 9], [SIZE / 32, SIZE / 32]),
        # Halved, bilinear without antialias is the mean of two pixels by two.
        "pixelate": coarse.repeat_interleave(2, -1).repeat_interleave(2, -2),
    }
    for name, reference in expected.items():
        torch.testing.assert_close(rendered(name), reference, atol=2e-4, rtol=0, msg=name)


def test_noise_is_normal_and_within_range() -> None:
    x = torch.full((50, 3, 16, 16), 0.5)
    op = GaussianNoise(std=0.1)
    noisy = op.apply(x.clone(), op.sample(50, generator("noise"), (16, 16), None)) - x
    assert noisy.mean().abs() < 2e-3 and (noisy.std() - 0.1).abs() < 2e-3
    kurtosis = ((noisy / noisy.std()) ** 4).mean()
    assert (kurtosis - 3).abs() < 0.15
    strong = GaussianNoise(std=2.0)
    out = strong.apply(x.clone(), strong.sample(50, generator("noise"), (16, 16), None))
    assert out.min() == 0 and out.max() == 1
    one, other = (op.sample(2, generator("noise", n), (16, 16), None)["noise"] for n in (0, 1))
    assert not one.equal(other) and not one[0].equal(one[1])


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_pixelation_is_pillows_box(fraction: float) -> None:
    x = torch.randint(0, 256, (3, 24, 32), generator=generator("box")).to(torch.uint8)
    small = F.to_pil_image(x).resize((int(32 * fraction), int(24 * fraction)), Image.Resampling.BOX)
    expected = F.pil_to_tensor(small.resize((32, 24), Image.Resampling.BOX))
    found = Pixelate(fraction=fraction).apply((x / 255)[None], {})[0] * 255
    assert (found - expected).abs().max() <= 1 + 1e-3  # Pillow rounds rows, then columns


def test_occlusion_hides_squares_of_the_mean_colour() -> None:
    pixels = torch.full((64, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    (out,) = render(shifts(INFO)["occlusion"], pixels, generator("hide"))
    hidden = (out == 0).all(1)
    assert hidden.flatten(1).any(1).all()
    assert hidden.sum((1, 2)).max() == (SIZE // 2) ** 2
    assert INFO.rgb(out)[~hidden[:, None].expand(out.shape)].eq(1).all()
    assert len(hidden.flatten(1).unique(dim=0)) > 32


def test_shifts_fit_large_and_tiny_pictures() -> None:
    for size in (4, 256):
        info = replace(INFO, size=size)
        pixels = torch.randint(0, 256, (2, 3, size, size), generator=generator("size"))
        for view in shifts(info).values():
            (out,) = render(view, pixels.to(torch.uint8), generator("size"), torch.ones(2))
            assert out.shape[-1] == eval_view(info).size
            assert out.isfinite().all()


# ----------------------------------------------------------------------------- test sets made anew
def write(folder: Path, names: tuple[str, ...]) -> Path:
    """The test pictures in class folders, losslessly."""
    test = split("test")
    assert test.labels is not None
    for at, (index, picture) in enumerate(
        test.images.stream(torch.arange(COUNTS["test"]).split(1))
    ):
        path = folder / names[int(test.labels[index])] / f"{at:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        F.to_pil_image(picture[0]).save(path)
    return folder


@pytest.mark.parametrize("numbered", [False, True])
def test_pictures_of_a_folder_are_measured(numbered: bool, tmp_path: Path) -> None:
    names = tuple("0123"[:CLASSES]) if numbered else INFO.classes
    folder = write(tmp_path / "again", names)
    scores = run(Half(), tmp_path / "features", folder=str(folder))
    assert scores.metrics["folder_top1"] == 100
    (folder / names[0]).rename(folder / "spare")
    (folder / names[1]).rename(folder / names[0])
    (folder / "spare").rename(folder / names[1])  # two of four classes change places
    scores = run(Half(), tmp_path / "features", folder=str(folder))
    assert scores.metrics["folder_top1"] == 50
    assert scores.metrics["top1"] == 100


def test_a_folder_that_does_not_fit_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    folder = write(tmp_path / "again", INFO.classes)
    (folder / INFO.classes[0]).rename(folder / "dragon")
    with pytest.raises(BenchError, match="has the class folder 'dragon'"):
        run(Half(), tmp_path, folder=str(folder))
    with pytest.raises(BenchError, match="nowhere is not a folder"):
        run(Half(), tmp_path, folder=str(tmp_path / "nowhere"))


def test_labels_made_anew_are_read_from_text_and_json(tmp_path: Path) -> None:
    classes = ("cat", "dog", "10")
    text, listed = tmp_path / "labels.txt", tmp_path / "labels.json"
    text.write_text("0\n\n1, 2\ncat dog\n10\n")
    listed.write_text(json.dumps([[0], [], [1, 2], ["cat", "dog"], "10"]))
    expected = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]]).bool()
    for path in (text, listed):
        assert valid_labels(path, classes).equal(expected)


def test_any_valid_class_is_right_and_pictures_without_one_do_not_count() -> None:
    rng = generator("real")
    valid = torch.rand(50, 6, generator=rng) < 0.25
    predicted = torch.randint(6, (3, 50), generator=rng)
    answers = [
        bool(valid[n, predicted[s, n]]) for s in range(3) for n in range(50) if valid[n].any()
    ]
    assert len(answers) < 150
    assert relabelled_top1(predicted, valid) == pytest.approx(100 * sum(answers) / len(answers))


class OneBroken(MemoryImages):
    """One picture of which cannot be decoded."""

    def stream(self, batches: object) -> Batches:
        for index in batches:  # type: ignore[attr-defined]
            kept = index[index != 2]
            yield kept, self.pixels[kept]


@pytest.mark.parametrize("broken", [False, True])
def test_relabelled_pictures_are_measured_in_their_order(broken: bool, tmp_path: Path) -> None:
    used = data()
    labels = used.test.labels
    assert labels is not None and isinstance(used.test.images, MemoryImages)
    if broken:
        test = replace(used.test, images=OneBroken(used.test.images.pixels), digest="broken")
        used = replace(used, test=test)
    path = tmp_path / "real.json"
    rows = [[label] for label in labels.tolist()]
    rows[5], rows[6] = [], [(labels[6].item() + 1) % CLASSES]  # one to skip, one wrong
    path.write_text(json.dumps(rows))
    scores = run(Half(), tmp_path, used, relabel=str(path))
    assert scores.metrics["top1"] == 100
    count = COUNTS["test"] - 1 - broken
    assert scores.metrics["relabel_top1"] == pytest.approx(100 * (count - 1) / count)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n1\n", "has 2 entries for the 200 test pictures"),
        ("0\n4\n", r"entry 1 has '4', which is neither a class nor its number \(0 to 3\)"),
        ("\n\n", "no test picture has a label"),
        ("", "expected a list with an entry for each"),
        (None, "cannot be read"),
    ],
)
def test_labels_that_do_not_fit_are_told(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchError, match=message):
        run(Half(), tmp_path, relabel=str(path))
    broken = tmp_path / "labels.json"
    broken.write_text("[[0]")
    with pytest.raises(BenchError, match="cannot be read"):
        run(Half(), tmp_path, relabel=str(broken))
