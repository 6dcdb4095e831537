"""DeepCluster's features, clusters, sampling and loss against scikit-learn and loops."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from bench import backbones, conformance
from bench.api import TrainSet
from bench.data.dataset import MemoryImages, Split
from bench.errors import BenchError
from bench.loader import Loader
from bench.resolve import method_config
from methods import deepcluster
from methods.deepcluster import DeepCluster


def build() -> DeepCluster:
    method = conformance.build(DeepCluster, "deepcluster")
    assert isinstance(method, DeepCluster)
    return method


def pictures(method: DeepCluster, split: Split | None = None) -> TrainSet:
    split = split or conformance.toy_split()
    return Loader(method, split, 0, torch.device("cpu")).pictures()


def test_what_is_clustered_is_whitened_by_scikit_learns_pca_and_has_norm_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor, k: int, iterations: int, init: str) -> tuple[Tensor, Tensor]:
        seen.append(x)
        return x[:k], torch.arange(len(x)) % k

    monkeypatch.setattr(deepcluster, "kmeans", spy)
    method = build()
    object.__setattr__(method, "cfg", method.cfg.model_copy(update={"pca": 10}))
    train = pictures(method)
    method.before_epoch(0, train)
    features = train.features(method.encoder()).double().numpy()
    expected = torch.from_numpy(PCA(10, whiten=True, svd_solver="full").fit_transform(features))
    expected = torch.nn.functional.normalize(expected, dim=1)
    # Signs of components are arbitrary, so inner products are compared.
    torch.testing.assert_close(
        seen[0] @ seen[0].T, (expected @ expected.T).float(), rtol=0, atol=1e-3
    )


def test_each_epoch_has_a_new_head_new_clusters_and_their_agreement() -> None:
    method = build()
    train = pictures(method)
    method.before_epoch(0, train)
    first, head = method.cluster.clone(), method.head.weight.clone()
    method.head.bias.data += 1
    method.before_epoch(1, train)
    assert method.nmi.item() == pytest.approx(
        normalized_mutual_info_score(first.numpy(), method.cluster.numpy()), abs=1e-6
    )
    assert not torch.equal(head, method.head.weight)
    assert method.head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (method.head.bias == 0).all()
    assert method.sizes.tolist() == [(method.cluster == k).sum() for k in range(8)]


def test_every_cluster_is_drawn_equally_often() -> None:
    method = build()
    method.before_epoch(0, pictures(method))
    weights = method.sample_weights()
    assert len(set(method.sizes.tolist())) > 1
    for cluster in range(8):
        assert weights[method.cluster == cluster].sum().item() == pytest.approx(1)


def test_the_loss_is_cross_entropy_to_the_clusters() -> None:
    method = build().double().eval()
    batch = conformance.memorised(method.float())
    method.double()
    batch.views = {"crop": [batch.view("crop").double()]}
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    logits = method.head(method.backbone(method.inputs(batch.view("crop")))).tolist()
    total = 0.0
    for row, cluster in zip(logits, method.cluster[batch.index].tolist(), strict=True):
        total += math.log(sum(math.exp(v) for v in row)) - row[cluster]
    assert loss.item() == pytest.approx(total / len(batch), rel=1e-12)
    assert step.logged["largest_cluster"] == method.sizes.max()
    assert step.logged["empty_clusters"] == 0


def test_fewer_different_pictures_than_clusters_leave_empty_ones_and_train() -> None:
    method = build()
    split = conformance.toy_split()
    assert isinstance(split.images, MemoryImages)
    split.images.pixels[:] = split.images.pixels[:3].repeat(22, 1, 1, 1)[:64]
    method.before_epoch(0, pictures(method, split))
    step = conformance.step_at("main", 0)
    loss = method.loss(conformance.memorised(build()), step)
    assert loss.isfinite()
    assert step.logged["empty_clusters"] == 5 and step.logged["smallest_cluster"] == 0
    assert method.sample_weights().isfinite().all()


def test_more_clusters_than_pictures_is_one_clear_line() -> None:
    cfg = method_config(DeepCluster, "deepcluster", "paper", {})
    with pytest.raises(BenchError, match="10,000 clusters of 64 training pictures"):
        DeepCluster(cfg, backbones.build("small", 32), conformance.toy_info())
