"""RDM: which pictures an encoder holds for alike, as a matrix that encoders are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.eval.figures import HeatMap, heat_maps
from bench.eval.sampling import compared, of_same_pictures
from bench.eval.similarity import category_rdm, mantel, ranks, rdm, spearman, upper


class Rdm(Protocol):
    """Spearman correlation of the dissimilarities of test pictures with "another class or not".

    Dissimilarity is 1 - Pearson between two pictures' features, over a fixed class-balanced sample
    (Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008); the p value is of 1,000 permutations
    of the pictures. As the model of classes has two values only, a matrix without ties that puts
    every pair of one class before all others reaches sqrt(3 q (1 - q)), q being the share of such
    pairs: 0.47 for 20 pictures of each of 12 classes. `category_auc` is the same on a scale to
    100 %: how often a pair of one class is less dissimilar than a pair of two.
    """

    metric = Metric("category_spearman", unit="rho")

    toy = {"pictures": 40, "permutations": 99}

    class Config(Protocol.Config):
        """The constants."""

        pictures: PositiveInt = 240  # 20 of each class of scenes; 28,680 pairs are kept
        permutations: PositiveInt = 1000
        max_dim: PositiveInt = 512  # numbers per layer after pooling, as in linear@1

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused: all encoders see the same pictures.

        Raises:
            BenchError: labels are missing or of one class only, too few pictures, or features are
                not finite.
        """
        layers = (*encoder.layers, "output")
        sample = compared(data.read_test(), encoder, layers, cfg.pictures, cfg.max_dim)
        labels, model = sample.labels, category_rdm(sample.labels)
        matrices = {layer: rdm(x) for layer, x in sample.features.items()}
        per_layer = {}
        for layer, matrix in matrices.items():
            found, p = mantel(matrix, model, cfg.permutations, "rdm")
            auc = category_auc(upper(matrix), upper(model))
            per_layer[layer] = {"category_spearman": found, "category_auc": auc, "p": p}
        output = per_layer["output"]
        return Scores(
            metrics=output,
            per_layer=per_layer,
            selected={"pictures": len(labels)},
            arrays=sample.arrays("rdm", upper(matrices["output"])),
            figure=heat_maps(
                _heat_maps(matrices, labels, data.info.classes),
                f"Dissimilarity of {len(labels)} test pictures · {data.info.name}",
                "1 - Pearson, percentile of the pairs",
                (0.0, 100.0),
                note=f"output: Spearman with the classes {output['category_spearman']:.3f} "
                f"(p = {output['p']:.3f}), same class before another "
                f"{output['category_auc']:.1f} %",
            ),
        )

    @staticmethod
    def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """Spearman correlation of two encoders' dissimilarities, from their `Scores.arrays`.

        Raises:
            BenchError: they are of other pictures.
        """
        return spearman(*of_same_pictures("rdm", one, other))


def category_auc(dissimilarity: Tensor, model: Tensor) -> float:
    """How often a pair of two classes is more dissimilar than one of the same class, in percent.

    The area under the ROC curve; a tie counts half.

    Args:
        dissimilarity: `[P]` of each pair.
        model: `[P]` 1 for pairs of two classes, 0 for the others; there are both.
    """
    across = model > 0.5
    many, few = int(across.sum()), int((~across).sum())
    rank_sum = float(ranks(dissimilarity)[across].sum())
    return 100 * (rank_sum - many * (many + 1) / 2) / (many * few)


def _heat_maps(
    matrices: Mapping[str, Tensor], labels: Tensor, classes: tuple[str, ...]
) -> list[HeatMap]:
    """The first layer and the output, picture by picture, and the output class by class."""
    present, counts = labels.unique_consecutive(return_counts=True)
    names, ends = [classes[c] for c in present.tolist()], counts.cumsum(0).tolist()
    shown = {layer: percentiles(matrices[layer]) for layer in (next(iter(matrices)), "output")}
    maps = [HeatMap(layer, matrix, names, ends) for layer, matrix in shown.items()]
    member = (labels == present[:, None]).double()
    pairs = counts.outer(counts) - counts.diag()
    means = member @ shown["output"] @ member.T / pairs.clamp_min(1)
    return [*maps, HeatMap("output, mean of the pairs of two classes", means, names)]


def percentiles(matrix: Tensor) -> Tensor:
    """A symmetric matrix's entries by rank, from 0 to 100, so that layers share one scale.

    The diagonal is 0.
    """
    n = len(matrix)
    row, column = torch.triu_indices(n, n, 1, device=matrix.device)
    place = ranks(matrix[row, column])
    out = torch.zeros_like(matrix)
    out[row, column] = out[column, row] = 100 * (place - 1) / max(1, len(place) - 1)
    return out
