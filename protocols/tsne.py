"""t-SNE: the test pictures as points in the plane, and how far that plane can be trusted."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import one_hot

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.errors import BenchError
from bench.eval.figures import scatters
from bench.eval.sampling import balanced
from bench.eval.scoring import class_labels, require_finite
from bench.nn.whiten import principal_components
from bench.rng import generator

SPREAD = 1e-4  # of t-SNE's first map (van der Maaten's code, and scikit-learn's)
JITTER = 0.01  # of that: equal pictures would stay on one another


class Tsne(Protocol):
    """Trustworthiness of a two-dimensional map of the output: are near points near pictures?

    The first 50 principal components, then t-SNE of perplexity 30 (van der Maaten and Hinton 2008,
    JMLR 9:2579) from the first two, or UMAP (arXiv:1802.03426). Trustworthiness (Venna and Kaski
    2001) counts, with ranks in all dimensions, intruders among the 10 nearest points of the map; a
    map at random has about 50 %. `top1_2d` is the accuracy of a vote of those 10. The map is to be
    looked at: distances between clusters and their sizes mean nothing.
    """

    metric = Metric("trustworthiness")

    toy = {"pictures": 120, "steps": 300}

    class Config(Protocol.Config):
        """The constants."""

        method: Literal["tsne", "umap"] = "tsne"
        pictures: PositiveInt = 2000  # of test, class-balanced; usual are 2,000 to 5,000
        components: PositiveInt = 50  # van der Maaten and Hinton's 30, scikit-learn's advice 50
        perplexity: PositiveFloat = 30.0  # of t-SNE, scikit-learn's; the paper: 5 to 50
        steps: int = Field(1000, ge=250)  # of t-SNE, the paper's
        neighbors: PositiveInt = 15  # of UMAP, its default
        min_dist: PositiveFloat = 0.1  # of UMAP, its default
        k: PositiveInt = 10  # of the two numbers
        max_dim: PositiveInt = 512  # numbers of the first layer after pooling, as in linear@1

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused: the map begins at principal components.

        Raises:
            BenchError: labels are missing, there are too few pictures, features are not finite, or
                UMAP is not installed.
        """
        layers = tuple(dict.fromkeys((*encoder.layers[:1], "output")))
        test = data.read_test()
        features = require_finite(test.features(encoder, layers, max_dim=cfg.max_dim))
        labels = class_labels(test)
        rows = balanced(labels, cfg.pictures, "tsne")
        # Class by class, the order would tell the class wherever distances are equal.
        rows = rows[torch.randperm(len(rows), generator=generator("tsne", "order")).to(rows.device)]
        labels, fewest = labels[rows], int(max(3 * cfg.perplexity, 2 * cfg.k, cfg.neighbors)) + 1
        if len(rows) < fewest:
            raise BenchError(
                f"a map takes {fewest} pictures and the test split of {data.info.name} has "
                f"{len(rows)}; use more, or a smaller protocol.perplexity and protocol.k"
            )
        per_layer, maps = {}, []
        for layer in layers:
            x = features[layer][rows].cpu().double()
            place = plane(x, cfg)
            trust = trustworthiness(x, place, cfg.k)
            found = {
                "trustworthiness": trust,
                "top1_2d": vote_of_others(place, labels.cpu(), cfg.k),
            }
            per_layer[layer] = found
            maps.append(
                (f"{layer}: trustworthiness {trust:.1f} %, top1_2d {found['top1_2d']:.1f} %", place)
            )
        name = {"tsne": "t-SNE", "umap": "UMAP"}[cfg.method]
        setting = {
            "tsne": f"perplexity {cfg.perplexity:g}",
            "umap": f"{cfg.neighbors} neighbours, min_dist {cfg.min_dist:g}",
        }[cfg.method]
        return Scores(
            metrics=per_layer["output"],
            per_layer=per_layer,
            selected={"pictures": len(rows)},
            figure=scatters(
                maps,
                labels,
                data.info.classes,
                f"{name} of {len(rows):,} test pictures · {data.info.name}",
                note=f"{cfg.components} principal components, {setting}",
            ),
        )


def plane(x: Tensor, cfg: Any) -> Tensor:
    """The rows of `x` `[N, D]`, float64 on the CPU, as points `[N, 2]`; all maps begin alike.

    Raises:
        BenchError: UMAP is asked for and not installed.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    principal = principal_components(x, cfg.components)
    x = (x - principal.mean) @ principal.axes.T
    # In one thread: sums over several come in any order, and the map is chaotic.
    with threadpool_limits(1):
        if cfg.method == "umap":
            try:
                umap = importlib.import_module("umap")
            except ImportError as error:
                raise BenchError(
                    "UMAP is not installed; pip install umap-learn, or use protocol.method=tsne"
                ) from error
            reducer = umap.UMAP(
                n_neighbors=cfg.neighbors, min_dist=cfg.min_dist, random_state=0, n_jobs=1
            )
            return torch.as_tensor(reducer.fit_transform(x.numpy()))
        start = torch.randn(len(x), 2, generator=generator("tsne", "start")) * JITTER
        start[:, : x.shape[1]] += x[:, :2] / x[:, 0].std().clamp_min(1e-12)
        reducer = TSNE(
            perplexity=cfg.perplexity,
            max_iter=cfg.steps,
            init=(SPREAD * start).float().numpy(),
            random_state=0,
            n_jobs=1,
        )
        return torch.from_numpy(reducer.fit_transform(x.float().numpy()))


def trustworthiness(x: Tensor, place: Tensor, k: int) -> float:
    """The share of the `k` nearest points of a map that are nearest in `x` too, in percent.

    Those that are not weigh by their rank in `x` (Venna and Kaski 2001). As scikit-learn's, but
    equal distances share the mean of their ranks: where every row is the same, it is about 50 %.

    Args:
        x: `[N, D]`, N above 2 k.
        place: `[N, 2]` of the same pictures.
        k: how many neighbours to look at.
    """
    n, exact = len(x), "donot_use_mm_for_euclid_dist"  # or equal rows would not be at distance 0
    truth = torch.cdist(x, x, compute_mode=exact).fill_diagonal_(torch.inf)
    index = _distances(place).topk(k, largest=False).indices
    ordered, near = truth.sort(1).values, truth.gather(1, index)
    first, last = (torch.searchsorted(ordered, near, right=right) for right in (False, True))
    beyond = ((first + last + 1) / 2 - k).clamp_min(0).double().sum().item()
    return 100 * (1 - beyond * 2 / (n * k * (2 * n - 3 * k - 1)))


def vote_of_others(place: Tensor, labels: Tensor, k: int) -> float:
    """The share of points whose `k` nearest other points have their class in the majority, in %.

    Args:
        place: `[N, 2]`, N above k.
        labels: `[N]`; of classes with as many votes the first wins.
        k: voters.
    """
    votes = one_hot(labels[_distances(place).topk(k, largest=False).indices]).sum(1)
    return 100 * (votes.argmax(1) == labels).double().mean().item()


def _distances(place: Tensor) -> Tensor:
    """Between every two points `[N, 2]`, infinite of a point to itself, `[N, N]` float64."""
    return torch.cdist(place.double(), place.double()).fill_diagonal_(torch.inf)
