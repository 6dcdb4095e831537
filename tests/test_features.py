"""Features: pooling, caching under all they depend on, and a test split that is read once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import conformance, features
from bench.api import Batches, Encoder, View
from bench.data.dataset import DataSet, Images, MemoryImages, Split
from bench.data.ops import Normalize, RandomCrop
from bench.data.views import eval_view
from bench.features import Evaluation, FeatureStore, weights_digest
from bench.progress import Reporter

CPU = torch.device("cpu")


class Tiny(Encoder):
    """One convolution; counts how often it runs."""

    dim, layers = 6, ("conv",)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 6, 3, stride=4)
        self.runs = 0

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        self.runs += 1
        return {"conv": self.conv(x).relu()}

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)["conv"].mean((2, 3))


def store(folder: Path, encoder: Encoder, identity: str = "tiny") -> FeatureStore:
    return FeatureStore(folder, encoder, identity, CPU, Reporter(quiet=True))


def get(
    made: FeatureStore,
    encoder: Encoder,
    split: Split,
    layers: tuple[str, ...] = ("output", "conv"),
    view: View | None = None,
    copies: int = 1,
    max_dim: int = 24,
) -> tuple[dict[str, Tensor], Tensor]:
    info = conformance.toy_info()
    return made.get(encoder, split, layers, max_dim, view or eval_view(info), copies)


def test_features_are_the_encoders_on_the_normalised_pictures(tmp_path: Path) -> None:
    encoder, split = Tiny().eval(), conformance.toy_split()
    got, index = get(store(tmp_path, encoder), encoder, split)
    assert isinstance(split.images, MemoryImages)
    x = (split.images.pixels.double() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = encoder.double()(x).float()
        pooled = F.adaptive_avg_pool2d(encoder.maps(x)["conv"], 2).flatten(1).float()
    assert index.tolist() == list(range(len(split)))
    torch.testing.assert_close(got["output"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got["conv"], pooled, rtol=1e-4, atol=1e-5)  # 6 * 2 * 2 <= 24


@pytest.mark.parametrize(
    ("channels", "side", "max_dim", "expected"),
    [(6, 8, 24, 2), (6, 8, 23, 1), (6, 8, 10_000, 8), (64, 4, 32, 1), (3, 7, 3 * 49, 7)],
)
def test_pooling_takes_the_largest_grid_that_fits(
    channels: int, side: int, max_dim: int, expected: int
) -> None:
    pooled = features.pool(torch.rand(2, channels, side, side), max_dim)
    assert pooled.shape == (2, channels * expected**2)


def test_a_second_request_extracts_nothing_and_a_new_layer_only_itself(tmp_path: Path) -> None:
    encoder, split = Tiny(), conformance.toy_split()
    first = store(tmp_path, encoder)
    one, _ = get(first, encoder, split, ("output",))
    runs = encoder.runs
    second = store(tmp_path, encoder)
    again, _ = get(second, encoder, split, ("output",))
    assert (second.extracted, second.reused) == (0, 1)
    assert encoder.runs == runs
    assert torch.equal(one["output"], again["output"])
    get(second, encoder, split, ("output", "conv"))
    assert (second.extracted, second.reused) == (1, 2)


def test_whatever_features_depend_on_is_in_their_key(tmp_path: Path) -> None:
    encoder, split = Tiny(), conformance.toy_split()
    info = conformance.toy_info()
    get(store(tmp_path, encoder), encoder, split, ("conv",))
    crop = View("crop", (RandomCrop(padding=4), Normalize(mean=info.mean, std=info.std)))
    other_split = split.take(torch.arange(10))
    changed = Tiny()
    with torch.no_grad():
        changed.conv.bias += 1e-6
    for made, arguments in (
        (store(tmp_path, encoder, "another method"), {}),
        (store(tmp_path, changed), {}),
        (store(tmp_path, encoder), {"max_dim": 6}),
        (store(tmp_path, encoder), {"view": crop}),
        (store(tmp_path, encoder), {"view": crop, "copies": 2}),
        (store(tmp_path, encoder), {"split": other_split}),
    ):
        get(made, encoder, **{"split": split, "layers": ("conv",), **arguments})
        assert made.extracted == 1, arguments


def test_copies_differ_and_come_one_after_the_other(tmp_path: Path) -> None:
    encoder, split = Tiny(), conformance.toy_split()
    info = conformance.toy_info()
    crop = View("crop", (RandomCrop(padding=8), Normalize(mean=info.mean, std=info.std)))
    got, index = get(store(tmp_path, encoder), encoder, split, ("output",), crop, copies=3)
    rows = got["output"].view(3, len(split), -1)
    assert index.tolist() == list(range(len(split)))
    assert not torch.equal(rows[0], rows[1])
    again, _ = get(store(tmp_path / "b", encoder), encoder, split, ("output",), crop, copies=3)
    assert torch.equal(got["output"], again["output"])


def test_a_damaged_feature_file_is_made_again(tmp_path: Path) -> None:
    encoder, split = Tiny(), conformance.toy_split()
    one, _ = get(store(tmp_path, encoder), encoder, split, ("output",))
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    made = store(tmp_path, encoder)
    again, _ = get(made, encoder, split, ("output",))
    assert made.extracted == 1
    assert torch.equal(one["output"], again["output"])


def test_the_oldest_features_go_when_the_store_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, split = Tiny(), conformance.toy_split()
    get(store(tmp_path, encoder, "old"), encoder, split, ("output",))
    (old,) = tmp_path.glob("*.safetensors")
    monkeypatch.setattr(features, "KEEP_BYTES", old.stat().st_size * 3 // 2)
    get(store(tmp_path, encoder, "new"), encoder, split, ("output",))
    (left,) = tmp_path.glob("*.safetensors")
    assert left != old


def test_the_digest_sees_every_bit_of_the_weights() -> None:
    one, other = Tiny(), Tiny()
    assert weights_digest(one) == weights_digest(other)
    with torch.no_grad():
        other.conv.weight.view(-1)[0] = torch.nextafter(
            other.conv.weight.view(-1)[0], torch.tensor(9.0)
        )
    assert weights_digest(one) != weights_digest(other)


class Broken(Images):
    """Pictures of which number 3 cannot be decoded."""

    def __init__(self, images: MemoryImages) -> None:
        self.inner, self.size = images, images.size

    def __len__(self) -> int:
        return len(self.inner)

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        return self.inner.stream(index[index != 3] for index in batches)

    def take(self, index: Tensor) -> Images:
        raise NotImplementedError


def test_labels_follow_the_pictures_that_could_be_decoded(tmp_path: Path) -> None:
    encoder, split = Tiny(), conformance.toy_split()
    assert isinstance(split.images, MemoryImages)
    broken = Split("train", Broken(split.images), "broken", labels=split.labels)
    data = DataSet(conformance.toy_info(), broken, broken, broken, broken)
    evaluation = Evaluation(data, store(tmp_path, encoder))
    rows = evaluation.train.features(encoder)["output"]
    assert split.labels is not None
    assert len(rows) == len(split) - 1
    expected = torch.cat([split.labels[:3], split.labels[4:]])
    assert torch.equal(evaluation.train.labels, expected)


def test_the_test_split_is_read_once(tmp_path: Path) -> None:
    split, encoder = conformance.toy_split(), Tiny()
    data = DataSet(conformance.toy_info(), split, split, split, split)
    evaluation = Evaluation(data, store(tmp_path, encoder))
    evaluation.read_test()
    with pytest.raises(RuntimeError, match="may be read once"):
        evaluation.read_test()


def test_an_unknown_layer_is_named(tmp_path: Path) -> None:
    encoder = Tiny()
    with pytest.raises(Exception, match="no layer conv9; it has conv"):
        get(store(tmp_path, encoder), encoder, conformance.toy_split(), ("conv9",))
