"""How alike the methods' representations are: dissimilarity matrices and CKA, method by method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.leaderboard.groups import Entry, Group
from bench.leaderboard.tables import markdown
from bench.record import read_arrays

# Protocol -> the array that its records keep (above the diagonal), and how two are compared.
KEPT = {
    "rdm": ("rdm", "Spearman correlation of dissimilarities"),
    "cka": ("gram", "linear CKA, unbiased"),
}
PICTURES = "positions"  # of those that an array is of

Arrays = dict[str, NDArray[Any]]


def likeness(group: Group, results: Path) -> Iterator[tuple[str, str]]:
    """(what it is, table) of how alike the rows of a group are, by the first good seed of each.

    Args:
        group: rows of one protocol that keeps arrays; any other gives nothing.
        results: the results folder.
    """
    if group.setting.protocol not in KEPT:
        return
    name, title = KEPT[group.setting.protocol]
    kept = {row.label: _kept(row.ok, results) for row in group.rows}
    kept = {label: arrays for label, arrays in kept.items() if name in arrays}
    labels = sorted(kept)
    if len(labels) < 2 or not _same(kept.values()):
        return
    rows = [_unit(kept[label][name], ranked=name == "rdm") for label in labels]
    alike = np.array([[float(one @ other) for other in rows] for one in rows])
    # The most alike to all others first: groups of methods stand together.
    order = np.argsort(-alike.sum(1), kind="stable")
    names = [f"`{labels[i]}`" for i in order]
    cells = [
        {"": names[i], **{names[j]: f"{alike[order[i], order[j]]:.2f}" for j in range(i)}}
        for i in range(1, len(order))
    ]
    yield title, markdown(cells, right=set(names))


def _kept(entries: Iterable[Entry], results: Path) -> Arrays:
    for path, record in entries:
        if record.arrays:
            return read_arrays(results / path, record)
    return {}


def _same(kept: Iterable[Arrays]) -> bool:
    """Whether all arrays are of the same pictures."""
    first, *others = (arrays[PICTURES] for arrays in kept)
    return all(np.array_equal(first, other) for other in others)


def _unit(values: NDArray[Any], ranked: bool) -> NDArray[np.float64]:
    """A vector whose inner products are correlations of ranks, or cosines."""
    vector = values.astype(np.float64)
    if ranked:
        vector = rankdata(vector)
        vector -= vector.mean()
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
