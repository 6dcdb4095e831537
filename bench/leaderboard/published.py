"""Published numbers beside measured ones: which correspond, and why they may not be compared."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import BenchError
from bench.record import Record

COLUMNS = {
    *("method", "backbone", "pretrain_data", "protocol", "dataset", "metric", "value"),
    *("source", "variant", "label_fraction", "status", "note"),
}


class Counterpart(NamedTuple):
    """A name in the published table for one of our methods in a certain configuration."""

    ours: str
    theirs: str
    config: Mapping[str, list[float]] = {}
    variant: str = ""  # "": any


class Dataset(NamedTuple):
    """A published data set and its number of training pictures."""

    name: str
    pictures: int


# Other names go by the same one, but for case and punctuation.
COUNTERPARTS = (
    Counterpart("rotnet", "RotNet", {"angles": [0, 90, 180, 270]}),
    Counterpart("rotnet", "RotNet-4rot", {"angles": [0, 90, 180, 270]}),
    Counterpart("rotnet", "RotNet + non-linear", {"angles": [0, 90, 180, 270]}),
    Counterpart("rotnet", "RotNet-8rot", {"angles": [0, 45, 90, 135, 180, 225, 270, 315]}),
    Counterpart("rotnet", "RotNet-2rot", {"angles": [0, 180]}, "rotations=0;180"),
    Counterpart("rotnet", "RotNet-2rot", {"angles": [90, 270]}, "rotations=90;270"),
    Counterpart("moco_v2", "Moco"),  # lightly's, with the second version's head
    Counterpart("moco_v2", "Moco*"),
    Counterpart("moco_v2", "MoCo V2+"),
    Counterpart("supervised", "Supervised"),
    Counterpart("supervised", "Supervised NIN"),
)
DATASETS = {
    "cifar10": Dataset("CIFAR-10", 50_000),
    "cifar100": Dataset("CIFAR-100", 50_000),
    "imagenet": Dataset("ImageNet-1k", 1_281_167),
    "imagenette": Dataset("Imagenette", 9_469),
}
# What follows the data set's name in ours, and what that means.
PICTURES = {"jpeg75": "JPEG q75 pictures", "96": "96 px pictures", "lossless": ""}
BACKBONES = {"nin3": "nin3blocks", "nin4": "nin4blocks", "nin5": "nin5blocks"}
# Our protocol -> theirs -> why the two are not the same ("": they are).
PROTOCOLS = {
    "linear": {
        "linear": "",
        "linear_offline": "",
        "linear_best_layer": "",
        "linear_online": "frozen probe not one trained along",
        "frozen_nonlinear_3fc": "linear not non-linear head",
        "supervised_from_scratch": "linear probe not the whole network",
    },
    "knn": {"knn": ""},
}


class Comparison(NamedTuple):
    """The published number that comes closest, and what stands against comparing with it."""

    name: str  # method, backbone, protocol and variant, as published
    value: float
    source: str
    conflict: bool  # sources disagree on the number
    reasons: tuple[str, ...]  # none: comparable


def read_published(file: Path) -> pd.DataFrame:
    """The published table, all columns text but `value`; empty where there is no file.

    Raises:
        BenchError: it is not a table with the columns that are needed.
    """
    if not file.exists():
        return pd.DataFrame(columns=sorted(COLUMNS))
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise BenchError(f"{file} is not a readable CSV table: {error}") from error
    if missing := sorted(COLUMNS - set(table.columns)):
        raise BenchError(f"{file} lacks the column {missing[0]!r}; restore it from git")
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    return table.dropna(subset="value")


def data_title(name: str) -> str:
    """A data set's heading: where it is a version of a published set, in which way it differs."""
    found = _dataset(name)
    if found is None or not found[1]:
        return name
    dataset, pictures = found
    return f"{name}: {dataset.name} ({pictures})"


def closest(record: Record, table: pd.DataFrame) -> Comparison | None:
    """The published number with the fewest reasons against it, and among those the best."""
    if (found := _dataset(record.data.name)) is None:
        return None
    dataset, pictures = found
    origin = dataset.name if record.pretraining.epochs else "none"
    same = table[
        (table["dataset"] == dataset.name)
        & (table["metric"] == record.metric.name)
        & (table["label_fraction"] == "100%")
        & table["pretrain_data"].str.startswith(origin)
        & table["protocol"].isin(list(PROTOCOLS.get(record.protocol.name, ())))
    ]
    sign = -1 if record.metric.higher_is_better else 1
    candidates = []
    for position, row in enumerate(same.to_dict("records")):
        if counterpart := _counterpart(record, row):
            reasons = _reasons(record, row, counterpart, dataset, pictures)
            candidates.append((len(reasons), sign * float(row["value"]), position, row, reasons))
    if not candidates:
        return None
    *_, row, reasons = min(candidates, key=lambda candidate: candidate[:3])
    parts = (row["method"], row["backbone"], row["protocol"], row["variant"])
    return Comparison(
        ", ".join(part for part in parts if part),
        float(row["value"]),
        row["source"],
        "conflict" in row["status"],
        reasons,
    )


def _reasons(
    record: Record,
    row: Mapping[Hashable, Any],
    counterpart: Counterpart,
    dataset: Dataset,
    pictures: str,
) -> tuple[str, ...]:
    sizes = [split.size for name, split in record.data.splits.items() if name != "test"]
    seen = min(sum(sizes), record.pretraining.pictures or sum(sizes))
    epochs = re.search(r"(?<=epochs=)\d+|\d+(?= ep)", row["variant"])
    backbone = re.sub(r" \(\w+ features\)$", "", row["backbone"])
    ours = _plain(record.backbone)
    reasons = [
        pictures,
        f"{seen:,} of {dataset.pictures:,} training pictures" if seen < dataset.pictures else "",
        "" if BACKBONES.get(ours, ours) == _plain(backbone) else f"{record.backbone} backbone",
        PROTOCOLS[record.protocol.name][row["protocol"]],
        f"{record.pretraining.epochs} epochs"
        if epochs and int(epochs[0]) != record.pretraining.epochs
        else "",
        _departure(record, counterpart),
        "published one selected on test" if "selection bias" in row["note"] else "",
    ]
    return tuple(reason for reason in reasons if reason)


def _counterpart(record: Record, row: Mapping[Hashable, Any]) -> Counterpart | None:
    """What makes the record's method that of the published row; None where it is not."""
    listed = [c for c in COUNTERPARTS if c.ours == record.method.name]
    named = _plain(row["method"])
    if named == _plain(record.method.name) and named not in {_plain(c.theirs) for c in listed}:
        return Counterpart(record.method.name, row["method"])
    for c in listed:
        same = all(record.method.config.get(key) == value for key, value in c.config.items())
        if same and c.theirs == row["method"] and c.variant in ("", row["variant"]):
            return c
    return None


def _departure(record: Record, counterpart: Counterpart) -> str:
    """How the run departs from the paper, beyond the settings that the row was published for."""
    if record.method.recipe != "paper":
        return f"`{record.method.recipe}` recipe"
    told = [d for d in record.method.deviations if d.split(" = ")[0] not in counterpart.config]
    return ", ".join(told)


def _dataset(name: str) -> tuple[Dataset, str] | None:
    """The published data set that `name` is a version of, and how its pictures differ."""
    ours = _plain(name.partition(":")[0])
    for key in sorted(DATASETS, key=len, reverse=True):
        if ours.startswith(key):
            suffix = ours.removeprefix(key)
            return DATASETS[key], PICTURES.get(suffix, f"`{name}` pictures") if suffix else ""
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
