"""Sample records, made up, for the tests of the record and the leaderboard."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.record import Beside, Record, run_id
from bench.record import write as store

PUBLISHED = Path(__file__).parents[2] / "results" / "reference" / "published.csv"
FOUR = [0, 90, 180, 270]
ENVIRONMENT = {
    "device": "cpu",
    "cpu": "Two-core CPU",
    "threads": 2,
    "platform": "Linux",
    "python": "3.11.0",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "timm": "1.0.20",
    "bench": "0.1.0",
}


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping; an empty one replaces."""
    merged = dict(base)
    for key, value in change.items():
        deeper = isinstance(value, Mapping) and value and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if deeper else value
    return merged


def sample(
    method: str = "rotnet",
    seed: int = 0,
    top1: float = 60.0,
    *,
    config: Mapping[str, Any] | None = None,
    epochs: int = 20,
    data: str = "scenes",
    backbone: str = "small",
    parts: Mapping[str, Any] | None = None,
    **change: Any,
) -> Record:
    """A record; `parts` and `change` override any part of it, mapping by mapping."""
    untrained = method in ("pixels", "random_init")
    epochs = 0 if untrained else epochs
    if config is None:
        config = {"angles": FOUR} if method == "rotnet" else {}
    config = {"epochs": epochs, "batch_size": 128, **config}
    raw: dict[str, Any] = {
        "run_id": "0" * 12,
        "created": "2026-01-02T03:04:05Z",
        "status": "ok",
        "seed": seed,
        "method": {
            "name": method,
            "version": 1,
            "config": config,
            "labels_used": method == "supervised",
        },
        "backbone": backbone,
        "pretraining": {
            "id": f"{method}-{seed}",
            "data": data,
            "data_digest": "d" * 16,
            "split": "full",
            "pictures": 10_000,
            "epochs": epochs,
            "images_seen": epochs * 10_000,
            "batch_size": 128,
            "precision": "fp32",
        },
        "data": {
            "name": data,
            "digest": "d" * 16,
            "splits": {
                "train": {"digest": "a" * 16, "size": 9_000},
                "val": {"digest": "b" * 16, "size": 1_000},
                "test": {"digest": "c" * 16, "size": 2_000},
            },
        },
        "protocol": {
            "name": "linear",
            "version": 1,
            "config": {"epochs": 100},
            "selection": {"layer": "conv2"},
        },
        "metric": {"name": "top1", "unit": "%", "higher_is_better": True},
        "metrics": {"top1": top1, "top5": top1 + 20, "ece": 3.5},
        "per_layer": {
            "conv1": {"top1": top1 - 5},
            "conv2": {"top1": top1},
            "conv3": {"top1": top1 - 1},
        },
        "cost": {
            "pretrain_seconds": None if untrained else 90.0 + seed,
            "pretrain_images_per_second": None if untrained else 2_200.0,
            "eval_seconds": 12.0,
            "peak_memory_bytes": 10**9,
            "warmup_excluded": True,
            "reused_pretraining": False,
        },
        "environment": ENVIRONMENT,
        "log": {"loss": 0.5, "pretext_accuracy": 80.0},
    }
    raw = merge(merge(raw, parts or {}), change)
    if "run_id" not in change:
        raw["run_id"] = run_id(raw)
    return Record.model_validate(raw)


@pytest.fixture(name="sample")
def _sample() -> Callable[..., Record]:
    return sample


@pytest.fixture(name="results")
def _results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "reference").mkdir(parents=True)
    shutil.copy(PUBLISHED, folder / "reference")
    return folder


@pytest.fixture(name="put")
def _put(results: Path, sample: Callable[..., Record]) -> Callable[..., Path]:
    """Store a sample record; with `correct` `[N]`, also predictions that are right there."""

    def put(*args: Any, correct: np.ndarray | None = None, **kwargs: Any) -> Path:
        predictions = None
        if correct is not None:
            label = np.arange(len(correct)) % 10
            predictions = np.where(correct, label, label + 1), label
        return store(results, sample(*args, **kwargs), Beside(predictions))

    return put
