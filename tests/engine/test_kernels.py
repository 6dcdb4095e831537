"""A run tells which implementations of its losses ran, in every sitting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import conformance, engine, pretraining, registry
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.kernels import dispatch
from bench.progress import Reporter
from bench.resolve import Resolved, resolve

CPU = EngineConfig(device="cpu", precision="32")


def fit(folder: Path, cfg: EngineConfig = CPU, stop_after: int | None = None) -> engine.Trained:
    method = conformance.build(registry.method("simclr"), "simclr")
    quiet, split = Reporter(quiet=True), conformance.toy_split()
    return engine.fit(
        method, split, cfg, seed=0, folder=folder, reporter=quiet, stop_after=stop_after
    )


def resolved(**settings: str) -> Resolved:
    overrides = {"method": {}, "protocol": {}, "backbone": {}, "data": {}, "engine": settings}
    names = {"method": "simclr", "protocol": "knn", "data": "scenes", "backbone": "small"}
    return resolve(**names, size=32, seed=0, recipe="small", overrides=overrides)


def test_training_tells_what_ran(tmp_path: Path) -> None:
    assert fit(tmp_path).kernels == {"ntxent": "reference"}


def test_earlier_sittings_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, stop_after=1)
    monkeypatch.setattr(dispatch, "_decide", lambda op, *_: dispatch.note(op, "other") or False)
    assert fit(tmp_path).kernels == {"ntxent": "other+reference"}


def test_a_choice_ends_with_the_training(tmp_path: Path) -> None:
    with dispatch.using("auto") as ran:
        fit(tmp_path, CPU.model_copy(update={"kernels": "reference"}))
    assert ran == {"ntxent": "reference"}


def test_the_choice_is_part_of_what_weights_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU `auto` is the reference: records made before there was a choice stay their own."""
    split = conformance.toy_split()
    method = conformance.build(registry.method("simclr"), "simclr")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    plain, auto, fused = (
        pretraining.identity(resolved(device="cpu", kernels=choice), split, method)
        for choice in ("reference", "auto", "triton")
    )
    assert plain == auto and "kernels" not in plain
    assert fused == {**plain, "kernels": "triton"}


def test_triton_where_there_is_none_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchError, match="--kernels triton: no Triton kernel runs on a cpu"):
        EngineConfig(kernels="triton").resolved()
