"""k-nearest-neighbour classifier on frozen features: nothing is trained."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from bench.api import Encoder, EvalData, EvalSplit, Metric, Protocol, Scores
from bench.errors import BenchError
from bench.eval.scoring import (
    class_labels,
    classification_metrics,
    edges,
    require_finite,
    top_k_accuracy,
)

DEFAULT_K, DEFAULT_TEMPERATURE = 20, 0.07  # what DINO reports (arXiv:2104.14294)
QUERIES, BANK = 1024, 8192  # a tile of similarities and its sort keys: 32 + 64 MiB
LOW, SIGNLESS = 2**32 - 1, 2**31 - 1  # masks: the lower half of an int64, an int32 but its sign


class Knn(Protocol):
    """Top-1 accuracy of the vote of the k most cosine-similar pictures, weighted by exp(s / T).

    k and T are chosen on val with train as the bank; test is then read once, with train + val as
    the bank. `top1_default` is the accuracy at k = 20 and T = 0.07, wherever the bank holds 20.
    Wu et al., arXiv:1805.01978.
    """

    metric = Metric("top1")

    class Config(Protocol.Config):
        """The grid."""

        ks: tuple[PositiveInt, ...] = Field((10, 20, 100, 200), min_length=1)  # DINO's four
        # 0.07 is Wu's and DINO's, 0.1 lightly's; the others let the choice lie inside the grid.
        temperatures: tuple[PositiveFloat, ...] = Field((0.02, 0.04, 0.07, 0.1, 0.2), min_length=1)

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused, as nothing is random.

        Raises:
            BenchError: labels are missing, every k exceeds the bank, or features are not finite.
        """
        classes = data.info.num_classes

        def features(split: EvalSplit) -> Tensor:
            return normalize(require_finite(split.features(encoder))["output"])

        train, val = features(data.train), features(data.val)
        train_labels = class_labels(data.train)
        val_labels = class_labels(data.val, known=train_labels)
        ks = [k for k in cfg.ks if k <= len(train)]
        if not ks:
            raise BenchError(
                f"the smallest k is {min(cfg.ks)} but {data.info.name} has {len(train)} train "
                "pictures; set a smaller protocol.ks or use more pictures"
            )
        near, index = neighbors(val, train, max(ks))
        chosen, val_top1 = (0, 0.0), -1.0
        for k, temperature in product(ks, cfg.temperatures):
            votes = vote(near[:, :k], train_labels[index[:, :k]], temperature, classes)
            top1 = top_k_accuracy(votes, val_labels, 1)
            if top1 > val_top1:
                chosen, val_top1 = (k, temperature), top1

        test_split = data.read_test()
        test, bank = features(test_split), torch.cat([train, val])
        test_labels = class_labels(test_split, known=train_labels)
        near, index = neighbors(test, bank, min(max(chosen[0], DEFAULT_K), len(bank)))
        voters = torch.cat([train_labels, val_labels])[index]

        def votes_of(k: int, temperature: float) -> Tensor:
            return vote(near[:, :k], voters[:, :k], temperature, classes)

        votes = votes_of(*chosen)
        metrics = classification_metrics(votes, test_labels)
        if len(bank) >= DEFAULT_K:
            default = votes_of(DEFAULT_K, DEFAULT_TEMPERATURE)
            metrics["top1_default"] = top_k_accuracy(default, test_labels, 1)
        pick = dict(zip(("k", "temperature"), chosen, strict=True))
        return Scores(
            metrics=metrics,
            selected={
                **pick,
                "val_top1": val_top1,
                "selected_on": "val",
                "edge": edges(pick, k=ks, temperature=cfg.temperatures),
                "grid": {"k": ks, "temperature": list(cfg.temperatures)},
            },
            predictions=votes.argmax(1),
            labels=test_labels,
        )


def neighbors(
    queries: Tensor, bank: Tensor, k: int, tile: tuple[int, int] = (QUERIES, BANK)
) -> tuple[Tensor, Tensor]:
    """The `k` rows of `bank` most similar to each query; of equals, the earlier rows first.

    Args:
        queries: `[N, D]` float32 rows of unit norm (or zero).
        bank: `[M, D]` likewise, with M >= k.
        k: How many to find.
        tile: How many queries and rows of the bank meet at once; memory does not grow beyond.

    Returns:
        Cosine similarities, greatest first, and positions in the bank, `[N, k]` each.
    """
    found = []
    for some in queries.split(tile[0]):
        best = torch.empty(len(some), 0, dtype=torch.int64, device=bank.device)
        for start in range(0, len(bank), tile[1]):
            part = bank[start : start + tile[1]]
            position = torch.arange(start, start + len(part), device=bank.device)
            keys = torch.cat([best, _sort_keys(some @ part.T, position)], dim=1)
            best = keys.topk(min(k, keys.shape[1])).values
        found.append(best)
    keys = torch.cat(found)
    bits = (keys >> 32).int()
    return (bits ^ (bits >> 31 & SIGNLESS)).view(torch.float32), LOW - (keys & LOW)


def _sort_keys(similarity: Tensor, position: Tensor) -> Tensor:
    """Unique int64 keys, so that top-k has one answer: by similarity, then by lower position.

    The bits of a float32 order as an int32 does once those of negative numbers are inverted.
    """
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0 makes -0 and 0 the same
    return ((bits ^ (bits >> 31 & SIGNLESS)).long() << 32) | (LOW - position)


def vote(near: Tensor, voters: Tensor, temperature: float, classes: int) -> Tensor:
    """The share of each class in the neighbours' vote, `[N, C]`, weighted by exp(s / T).

    Args:
        near: `[N, k]` similarities s, greatest first.
        voters: `[N, k]` class of each neighbour.
        temperature: T.
        classes: The number of classes C.
    """
    weight = (near / temperature).softmax(1)
    return weight.new_zeros(len(near), classes).scatter_add_(1, voters, weight)
