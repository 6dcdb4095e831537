"""Nearest neighbours: how many of a picture's nearest ones show the same, and a contact sheet."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from bench.api import Encoder, EvalData, EvalSplit, Metric, Panel, Protocol, Scores
from bench.errors import BenchError
from bench.eval.figures import contact_sheet
from bench.eval.sampling import balanced, kept, pictures
from bench.eval.scoring import class_labels, require_finite
from bench.kernels import knn_topk

K = 10  # the primary metric's
SHOWN = 8  # neighbours of a query in the contact sheet


class Neighbors(Protocol):
    """Precision among the 10 training pictures nearest to each test picture, by cosine.

    Every test picture is a query and train + val is the gallery, as in Doersch et al.,
    arXiv:1505.05192, section 4.2 (patches there). precision@k is the share of the k nearest with
    the query's class, averaged over queries: no vote hides the wrong neighbours, and nothing is
    chosen. It is measured on every layer; the row's number is the output's.
    """

    metric = Metric("precision_at_10")

    class Config(Protocol.Config):
        """The constants."""

        ks: tuple[PositiveInt, ...] = Field((1, 5, 10), min_length=1)  # retrieval's usual ones
        queries: PositiveInt = 8  # in the contact sheet, the same for every encoder
        max_dim: PositiveInt = 512  # numbers per layer after pooling, as in linear@1

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused, as nothing depends on it.

        Raises:
            BenchError: labels are missing, the gallery is too small, or features are not finite.
        """
        layers, ks = (*encoder.layers, "output"), sorted({*cfg.ks, K})

        def features(split: EvalSplit) -> dict[str, Tensor]:
            return require_finite(split.features(encoder, layers, max_dim=cfg.max_dim))

        train, val = features(data.train), features(data.val)
        gallery_labels = torch.cat([class_labels(data.train), class_labels(data.val)])
        if len(gallery_labels) < ks[-1]:
            raise BenchError(
                f"protocol neighbors looks for {ks[-1]} neighbours but {data.info.name} has "
                f"{len(gallery_labels)} training pictures; use more pictures"
            )
        test_split = data.read_test()
        test = features(test_split)
        labels = class_labels(test_split, known=gallery_labels)

        per_layer: dict[str, dict[str, float]] = {}
        for layer in layers:
            bank = normalize(torch.cat([train[layer], val[layer]]))
            index = knn_topk(normalize(test[layer]), bank, ks[-1])[1]
            right = (gallery_labels[index] == labels[:, None]).double()
            per_layer[layer] = {
                f"precision_at_{k}": 100 * right[:, :k].mean().item() for k in reversed(ks)
            }
        queries = balanced(labels, cfg.queries, "neighbors")
        rows = _rows(data, test_split, queries, labels, index[queries, :SHOWN], gallery_labels)
        found = per_layer["output"]
        shown = (f"precision@{k} {found[f'precision_at_{k}']:.1f} %" for k in ks)
        return Scores(
            metrics=found,
            per_layer=per_layer,
            selected={"queries": queries.tolist()},
            figure=contact_sheet(
                rows,
                f"Nearest of {len(gallery_labels):,} training pictures · {data.info.name}",
                ("test picture", "nearest by cosine of the output: same class green, another red"),
                note=" · ".join(shown),
            ),
        )


def _rows(
    data: EvalData,
    test: EvalSplit,
    queries: Tensor,
    labels: Tensor,
    index: Tensor,
    gallery_labels: Tensor,
) -> list[Panel]:
    """A row for each query: the picture, then those at `index` `[q, SHOWN]` in the gallery."""
    classes, train_rows = data.info.classes, len(data.train.labels)
    asked = pictures(test, kept(test, len(labels))[queries.cpu()])
    places = [
        kept(split, rows)
        for split, rows in ((data.train, train_rows), (data.val, len(gallery_labels) - train_rows))
    ]
    rows = []
    for query, tile, near in zip(queries.tolist(), asked, index.cpu(), strict=True):
        among_train = near < train_rows
        tiles = torch.empty(len(near), *tile.shape)
        if among_train.any():
            tiles[among_train] = pictures(data.train, places[0][near[among_train]])
        if not among_train.all():
            tiles[~among_train] = pictures(data.val, places[1][near[~among_train] - train_rows])
        truth, found = int(labels[query]), gallery_labels[near.to(labels.device)].tolist()
        right = tuple(c == truth for c in found)
        rows.append(
            Panel(
                f"{classes[truth]}\n{sum(right)} of {len(right)}",
                torch.cat([tile[None], tiles]),
                (classes[truth], *(classes[c] for c in found)),
                right,
            )
        )
    return rows
