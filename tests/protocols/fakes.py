"""Evaluation data over given features, which record what a protocol asks for, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from bench.api import DataInfo, Encoder, EvalData, EvalSplit, View
from bench.data.dataset import MemoryImages, Split

Arrays = tuple[np.ndarray[Any, Any], ...]


class FakeEncoder(Encoder):
    """Names its layers; its features lie in the data."""

    def __init__(self, layers: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.layers = layers
        self.dim = 1

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("a protocol asks the split for features")


class FakeSplit(EvalSplit):
    """A split with its features by layer; with a view, `copies` noisy renderings of them."""

    def __init__(
        self,
        name: str,
        features: Mapping[str, Tensor],
        labels: Tensor | None,
        info: DataInfo,
        asked: list[tuple[str, View | None, int]],
    ) -> None:
        n = len(next(iter(features.values())))
        images = MemoryImages(torch.zeros(n, 3, 1, 1, dtype=torch.uint8))
        self.split = Split(name, images, digest=name, labels=labels)
        self.info, self.device = info, torch.device("cpu")
        self._features, self._asked = features, asked

    @property
    def labels(self) -> Tensor:
        assert self.split.labels is not None
        return self.split.labels

    def features(
        self,
        encoder: Encoder,
        layers: Sequence[str] = ("output",),
        *,
        max_dim: int = 2048,
        view: View | None = None,
        copies: int = 1,
    ) -> dict[str, Tensor]:
        self._asked.append((self.split.name, view, copies))
        plain = {layer: self._features[layer] for layer in layers}
        if view is None:
            return plain
        rng = torch.Generator().manual_seed(0)
        return {
            layer: x.repeat(copies, 1)
            + 0.1 * torch.randn(copies * len(x), x.shape[1], generator=rng)
            for layer, x in plain.items()
        }

    def batches(
        self, order: Iterable[Tensor], view: View | None = None, *name: str | int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("these splits have features, and no pictures")


class FakeData(EvalData):
    """Three splits over given (features by layer, labels); `asked` is the order of requests."""

    def __init__(
        self,
        train: tuple[Mapping[str, Tensor], Tensor | None],
        val: tuple[Mapping[str, Tensor], Tensor | None],
        test: tuple[Mapping[str, Tensor], Tensor | None],
        classes: int,
        size: int = 32,
    ) -> None:
        self.asked: list[tuple[str, View | None, int]] = []
        self.info = DataInfo(
            name="fake",
            digest="0",
            size=size,
            classes=tuple(f"class{c}" for c in range(classes)),
            n_train=len(next(iter(train[0].values()))),
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            has=frozenset({"labels"}),
        )
        self.train = FakeSplit("train", *train, self.info, self.asked)
        self.val = FakeSplit("val", *val, self.info, self.asked)
        both = {k: torch.cat([x, val[0][k]]) for k, x in train[0].items()}
        labels = None
        if train[1] is not None and val[1] is not None:
            labels = torch.cat([train[1], val[1]])
        self.full = FakeSplit("full", both, labels, self.info, self.asked)
        self._test: FakeSplit | None = FakeSplit("test", *test, self.info, self.asked)

    def read_test(self) -> EvalSplit:
        if self._test is None:
            raise RuntimeError("test was read before")
        self.asked.append(("read_test", None, 1))
        test, self._test = self._test, None
        return test


def digits() -> tuple[FakeData, Arrays]:
    """scikit-learn's digits: real pictures of 8 x 8, and the arrays (x, y) of the three splits."""
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    x_fit, x_test, y_fit, y_test = train_test_split(x, y, test_size=0.4, random_state=0, stratify=y)
    x_train, x_val, y_train, y_val = train_test_split(
        x_fit, y_fit, test_size=0.25, random_state=0, stratify=y_fit
    )
    arrays = (x_train, y_train, x_val, y_val, x_test, y_test)
    splits = [
        ({"output": torch.from_numpy(a)}, torch.from_numpy(b))
        for a, b in zip(arrays[::2], arrays[1::2], strict=True)
    ]
    return FakeData(*splits, classes=10), arrays


def made(n: tuple[int, int, int], classes: int, kind: str, seed: int = 0) -> FakeData:
    """Balanced splits whose features are the label ("leak") or all the same ("constant")."""
    splits = []
    rng = torch.Generator().manual_seed(seed)
    for count in n:
        labels = torch.arange(count)[torch.randperm(count, generator=rng)] % classes
        leak = torch.nn.functional.one_hot(labels, classes).float()
        features = leak if kind == "leak" else torch.full((count, 7), 0.3)
        splits.append(({"output": features}, labels))
    return FakeData(*splits, classes=classes)
