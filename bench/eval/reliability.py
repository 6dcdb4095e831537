"""The reliability diagram: accuracy against confidence, and how often each confidence is had."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.eval.scoring import BINS, expected_calibration_error

ACCURACY, GAP, PLAIN = "#0969da", "#cf222e", "#444444"
DPI = 110
PANEL, HEIGHT = 3.1, 3.9  # inches


def reliability(probabilities: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Share of rows, mean confidence and accuracy in each of 15 equal-width bins, `[3, 15]`.

    The last two are NaN in an empty bin.

    Args:
        probabilities: `[N, C]`, rows sum to 1.
        labels: `[N]`.
    """
    confidence, predicted = probabilities.double().max(1)
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    right = (predicted == labels).double()
    count, sure, hits = (
        right.new_zeros(BINS).index_add(0, bins, x)
        for x in (torch.ones_like(right), confidence, right)
    )
    return torch.stack([count / len(labels), sure / count, hits / count]).cpu().numpy()


def reliability_diagram(parts: Mapping[str, Tensor], labels: Tensor) -> bytes:
    """A PNG with a panel for each of `parts`: accuracy by bin, its gap to confidence, and shares.

    The same input gives the same bytes.

    Args:
        parts: probabilities `[N, C]` by the panel's title.
        labels: `[N]`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL * len(parts) + 0.3, HEIGHT), dpi=DPI, facecolor="white")
    axes = figure.subplots(
        2, len(parts), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1]
    )
    edges, width = np.arange(BINS) / BINS, 1 / BINS
    for column, (title, probabilities) in enumerate(parts.items()):
        share, confidence, accuracy = reliability(probabilities, labels)
        main, below = axes[:, column]
        bars = {"x": edges, "width": width, "align": "edge", "linewidth": 0.5}
        main.bar(height=accuracy, color=ACCURACY, edgecolor="white", label="accuracy", **bars)
        main.bar(
            height=confidence - accuracy,
            bottom=accuracy,
            color=GAP,
            alpha=0.35,
            edgecolor=GAP,
            label="gap to confidence",
            **bars,
        )
        main.plot([0, 1], [0, 1], color=PLAIN, linewidth=0.8, linestyle="--")
        error = expected_calibration_error(probabilities, labels)
        main.set_title(f"{title}: ECE {error:.1f} %", fontsize=9)
        main.set(xlim=(0, 1), ylim=(0, 1))
        below.bar(height=100 * share, color=PLAIN, **bars)
        below.set_xlabel("confidence", fontsize=8)
        for axis in (main, below):
            axis.tick_params(labelsize=7, color=PLAIN)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy", fontsize=8)
    axes[1, 0].set_ylabel("pictures, %", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False, loc="upper left")
    figure.tight_layout()
    out = io.BytesIO()
    # Without the library's version in it, the same numbers give the same bytes.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
