"""Retrieval precision, against scikit-learn and torchmetrics, and its contact sheet."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import made
from matplotlib import image
from pictured import Given, data, measure
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics.retrieval import RetrievalPrecision

from bench.data.dataset import DataSet
from bench.errors import BenchError
from protocols.neighbors import Neighbors

CLASSES, TRAIN, VAL, TEST = 6, 90, 30, 66


def labels() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.arange(n)[torch.randperm(n, generator=rng)] % CLASSES for n in (90, 30, 66))  # type: ignore[return-value]


def noisy() -> tuple[DataSet, Tensor]:
    """Data, and features that tell the class now and then."""
    some = labels()
    rng = torch.Generator().manual_seed(1)
    every = torch.cat(some)
    features = torch.randn(len(every), 8, generator=rng)
    features[torch.arange(len(every)), every] += 1.5
    return data(*some), features


def test_agrees_with_scikit_learn_and_torchmetrics(tmp_path: Path) -> None:
    dataset, features = noisy()
    scores = measure(Neighbors, Given(features), dataset, tmp_path)
    every, x = torch.cat(labels()), features.double().numpy()
    gallery, truth = every[: TRAIN + VAL].numpy(), every[TRAIN + VAL :].numpy()
    search = NearestNeighbors(metric="cosine", algorithm="brute").fit(x[: TRAIN + VAL])
    index = search.kneighbors(x[TRAIN + VAL :], 10, return_distance=False)
    right = gallery[index] == truth[:, None]
    similarity = torch.nn.functional.normalize(features.double())
    similarity = similarity[TRAIN + VAL :] @ similarity[: TRAIN + VAL].T
    queries = torch.arange(TEST)[:, None].expand_as(similarity)
    relevant = torch.from_numpy(gallery == truth[:, None])
    for k in (1, 5, 10):
        found = scores.metrics[f"precision_at_{k}"]
        assert found == pytest.approx(100 * right[:, :k].mean(), abs=1e-9)
        oracle = RetrievalPrecision(top_k=k)
        oracle.update(similarity.flatten(), relevant.flatten(), indexes=queries.flatten())
        assert found == pytest.approx(100 * float(oracle.compute()), abs=1e-3)
    assert 20 < scores.metrics["precision_at_10"] < 60


def test_constant_features_score_chance_and_leaked_labels_all(tmp_path: Path) -> None:
    some = labels()
    every = torch.cat(some)
    leak = torch.nn.functional.one_hot(every, CLASSES).float()
    for features, expected in ((torch.ones(len(every), 4), 100 / CLASSES), (leak, 100.0)):
        scores = measure(Neighbors, Given(features), data(*some), tmp_path)
        for k in (1, 5, 10):
            assert scores.metrics[f"precision_at_{k}"] == pytest.approx(expected)


def test_every_layer_is_measured_and_the_output_counts(tmp_path: Path) -> None:
    dataset, features = noisy()
    leak = torch.nn.functional.one_hot(torch.cat(labels()), CLASSES).float()
    encoder = Given(features, maps=leak[:, :, None, None].expand(-1, -1, 2, 2).contiguous())
    scores = measure(Neighbors, encoder, dataset, tmp_path)
    assert scores.per_layer["map"]["precision_at_10"] == 100
    assert scores.per_layer["output"] == scores.metrics


def test_the_sheet_shows_the_same_queries_for_every_encoder(tmp_path: Path) -> None:
    dataset, features = noisy()
    one = measure(Neighbors, Given(features), dataset, tmp_path)
    again = measure(Neighbors, Given(features), dataset, tmp_path)
    other = measure(Neighbors, Given(features.flip(0)), dataset, tmp_path)
    assert one.selected == other.selected
    assert len(set(one.selected["queries"])) == 8
    assert one.figure is not None and one.figure == again.figure
    assert one.figure != other.figure


def test_right_neighbours_are_framed_green_and_wrong_ones_red(tmp_path: Path) -> None:
    some = labels()
    leak = torch.nn.functional.one_hot(torch.cat(some), CLASSES).float()
    wrong = leak.clone()
    wrong[TRAIN + VAL :] = leak[TRAIN + VAL :].roll(1, 1)  # every query is nearest to another class
    area = 8 * 8 * 4 * 4 * (96 - 4)  # of the frames: queries, neighbours, sides, their width
    for features, seen in ((leak, (1, 0)), (wrong, (0, 1))):
        figure = measure(Neighbors, Given(features), data(*some), tmp_path).figure
        assert figure is not None
        pixels = (255 * image.imread(BytesIO(figure))[..., :3]).astype(int)
        for color, share in zip(((0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E)), seen, strict=True):
            count = (np.abs(pixels - color) <= 3).all(2).sum()
            assert abs(count / area - share) < 0.1


def test_pictures_that_cannot_be_decoded_are_passed_over(tmp_path: Path) -> None:
    some = labels()
    leak = torch.nn.functional.one_hot(torch.cat(some), CLASSES).float()
    scores = measure(Neighbors, Given(leak), data(*some, gaps=True), tmp_path)
    assert scores.metrics["precision_at_10"] == 100


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    few = torch.arange(4) % 2
    with pytest.raises(BenchError, match="looks for 10 neighbours but numbered has 8"):
        measure(Neighbors, Given(torch.ones(12, 2)), data(few, few, few), tmp_path)
    unseen = data(torch.zeros(9).long(), torch.zeros(9).long(), few)
    with pytest.raises(BenchError, match="class 'class1', of which the train split has no"):
        measure(Neighbors, Given(torch.ones(22, 2)), unseen, tmp_path)
    broken = made((30, 10, 10), 5, "constant")
    broken.train._features["output"][0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(BenchError, match="NaN or infinity"):
        Neighbors().run(Given(torch.ones(1, 1)), broken, Neighbors.Config(), 0)
