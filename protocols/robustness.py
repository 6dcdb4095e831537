"""Robustness: a linear classifier of clean pictures on shifted, re-collected, re-labelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from bench.api import Encoder, EvalData, EvalSplit, Metric, Protocol, Scores, View
from bench.errors import BenchError
from bench.eval.linear_heads import LinearHeads, Standardizer, fit_probe
from bench.eval.retest import decoded, recollected, relabelled_top1, valid_labels
from bench.eval.scoring import class_labels, edges, require_finite
from bench.eval.shifts import shifts


class Robustness(Protocol):
    """Mean top-1 accuracy under eight shifts that leave labels what they are (arXiv:1903.12261).

    A linear classifier is chosen on val (layer, learning rate, weight decay) and fitted again on
    train + val as linear@1 does it, all on clean pictures, then read on test: clean (`top1`), and
    with noise, blur, more and less light, low contrast, no colour, coarse pixels or a hidden
    square. `relative` is the share of the clean accuracy that is left. Of pictures collected anew
    (`folder`; ImageNet-V2, arXiv:1902.10811) `folder_top1` is told beside it; of labels given anew
    (`relabel`; ReaL, arXiv:2006.07159) `relabel_top1`, where any valid label counts as right.
    """

    metric = Metric("robust_top1")
    toy = {"lrs": (0.1, 1.0), "weight_decays": (1e-3,), "min_steps": 100, "head_seeds": 1}

    class Config(Protocol.Config):
        """The constants of linear@1, and what else to test on."""

        folder: str | None = None  # pictures of the same classes, in class folders
        relabel: str | None = None  # a file with the valid classes of each test picture
        epochs: PositiveInt = 20
        min_steps: PositiveInt = 500
        batch_size: PositiveInt = 256
        lrs: tuple[PositiveFloat, ...] = Field((0.003, 0.01, 0.03, 0.1, 0.3, 1.0), min_length=1)
        weight_decays: tuple[NonNegativeFloat, ...] = Field((1e-2, 1e-3, 1e-4), min_length=1)
        head_seeds: PositiveInt = 3
        max_dim: PositiveInt = 512

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: labels are missing, features are not finite, or `folder` or `relabel` does
                not fit the data.
        """
        info = data.info
        folder = recollected(Path(cfg.folder), data.train) if cfg.folder else None
        valid = valid_labels(Path(cfg.relabel), info.classes) if cfg.relabel else None
        grid = list(product(cfg.lrs, cfg.weight_decays))

        def features(
            split: EvalSplit, layers: Sequence[str], view: View | None = None
        ) -> dict[str, Tensor]:
            return require_finite(split.features(encoder, layers, max_dim=cfg.max_dim, view=view))

        def fit(
            x: Tensor, labels: Tensor, pairs: Sequence[tuple[float, float]]
        ) -> tuple[Standardizer, LinearHeads]:
            return fit_probe(x, labels, pairs, classes=info.num_classes, cfg=cfg, seed=seed)

        layers = (*encoder.layers, "output")
        train, val = features(data.train, layers), features(data.val, layers)
        train_labels = class_labels(data.train)
        val_labels = class_labels(data.val, known=train_labels)
        best, pick, val_top1 = layers[0], grid[0], -1.0
        for layer in layers:
            scale, heads = fit(train[layer], train_labels, grid)
            hits = heads.hits(scale(val[layer]), val_labels).double().mean(0)  # over head seeds
            top1 = 100 * hits.max().item() / len(val_labels)
            if top1 > val_top1:
                best, pick, val_top1 = layer, grid[int(hits.argmax())], top1
        both = torch.cat([train[best], val[best]])
        scale, heads = fit(both, torch.cat([train_labels, val_labels]), [pick])

        def predict(split: EvalSplit, view: View | None = None) -> Tensor:
            """The class of each picture by each head seed, `[S, N]`."""
            x = scale(features(split, [best], view)[best])
            return heads.logits(x)[..., 0].argmax(2)

        def top1_of(predicted: Tensor, labels: Tensor) -> float:
            return 100 * (predicted == labels).double().mean().item()

        test = data.read_test()
        if valid is not None and len(valid) != len(test.split):
            raise BenchError(
                f"{cfg.relabel} has {len(valid)} entries for the {len(test.split)} test pictures "
                f"of {info.name}; one is needed for each, in their order"
            )
        clean = predict(test)
        labels = class_labels(test, known=train_labels)
        top1 = top1_of(clean, labels)
        shifted = {
            name: top1_of(predict(test, view), labels) for name, view in shifts(info).items()
        }
        robust = sum(shifted.values()) / len(shifted)
        metrics = {"robust_top1": robust, "top1": top1}
        if top1:
            metrics["relative"] = 100 * robust / top1
        if folder is not None:
            found = predict(folder)
            metrics["folder_top1"] = top1_of(found, class_labels(folder, known=train_labels))
        if valid is not None:
            metrics["relabel_top1"] = relabelled_top1(clean, valid[decoded(test)].to(test.device))
        chosen = {"lr": pick[0], "weight_decay": pick[1]}
        return Scores(
            metrics=metrics,
            per_layer={name: {"top1": value} for name, value in {"clean": top1, **shifted}.items()},
            selected={
                "layer": best,
                **chosen,
                "val_top1": val_top1,
                "selected_on": "val",
                "edge": edges(chosen, lr=cfg.lrs, weight_decay=cfg.weight_decays),
                "grid": {"lr": list(cfg.lrs), "weight_decay": list(cfg.weight_decays)},
            },
        )
