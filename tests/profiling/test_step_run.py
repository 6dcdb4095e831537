"""`bench profile step` on a few small pictures: rows, reasons, and what a killed one leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from bench import pretraining
from bench.errors import BenchError
from bench.profiling import memory, step, step_roof, step_run, step_table
from bench.profiling.step import Asked
from bench.profiling.stepper import STAGES, Stepper
from bench.record import profiles
from bench.record.profile import RoofRecord, StepProfile, StepRow

OPTIONS = {"data": "digits", "limit": 256, "batch_size": 16, "device": "cpu", "precision": "32"}
ROOF = RoofRecord(flops={"float32": 1e12, "float32 convolution": 2e12}, bytes_per_second=1e9)


@pytest.fixture(autouse=True)
def _roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_roof, "measure", lambda device: ROOF)


def run(
    root: Path, *methods: str, peer: str | None = None, told: list[str] | None = None, **more: Any
) -> StepProfile:
    tell = (told if told is not None else []).append
    asked = Asked(seconds=0.0, peer=peer)
    profile, path = step_run.run(methods, OPTIONS | more, asked, root, tell)
    assert profiles.load(root) == ([(path, profile)], [])
    return profile


def printed(profile: StepProfile) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(step_table.table(profile))
    return captured.get()


def check_measured(row: StepRow) -> None:
    assert row.reason is None
    assert row.step is not None
    assert row.step.clock == "wall"
    assert row.step.rounds >= 3
    assert list(row.stages) == list(STAGES)
    assert all(stage.p90 >= stage.median >= stage.p10 >= 0 for stage in row.stages.values())
    assert row.images_per_second == pytest.approx(16e3 / row.step.median)
    assert row.flops is not None
    assert row.share == pytest.approx(row.flops / (row.step.median / 1e3) / 2e12)
    assert row.memory.peak is not None
    assert row.memory.saved is not None
    assert row.memory.peak > row.memory.saved > 0


def test_rows_of_several_methods(results: Path) -> None:
    told: list[str] = []
    profile = run(results, "simclr", "pca", "mpl", told=told)
    assert profile.complete
    simclr, pca, *mpl = profile.rows
    check_measured(simclr)
    assert simclr.kernels == {"ntxent": "reference"}
    assert simclr.phases == ()
    assert pca.reason == "method pca has no training step"
    assert [row.phases for row in mpl] == [("student", "teacher"), ("finetune",)]
    for row in mpl:
        check_measured(row)
    assert any(line.startswith("pca: not measured") for line in told)
    text = printed(profile)
    assert "mpl (student, teacher)" in text
    assert "pca: method pca has no training step" in text


def test_a_loss_that_takes_gradients_itself(results: Path) -> None:
    (row,) = run(results, "contractive_autoencoder").rows
    check_measured(row)


def test_one_method_that_has_no_step_is_one_line(results: Path) -> None:
    with pytest.raises(BenchError, match="pca has no training step"):
        run(results, "pca")


def test_a_peer_takes_turns_where_there_is_one(results: Path) -> None:
    profile = run(results, "simclr", "rotnet", peer="lightly")
    assert [(row.method, row.provider) for row in profile.rows] == [
        ("simclr", "bench"),
        ("simclr", "lightly"),
        ("rotnet", "bench"),
    ]
    for row in profile.rows:
        check_measured(row)
    assert not profile.rows[0].notes
    assert profile.rows[1].notes
    assert profile.rows[1].notes[0] in printed(profile)


def test_a_method_that_fails_is_a_row(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pretraining.build

    def fails(resolved: Any, info: Any) -> Any:
        if resolved.method_name == "rotnet":
            raise ValueError("does not fit\nat all")
        return build(resolved, info)

    monkeypatch.setattr(pretraining, "build", fails)
    rotnet, simclr = run(results, "rotnet", "simclr").rows
    assert rotnet.reason == "ValueError: does not fit"
    assert rotnet.step is None
    check_measured(simclr)


def test_out_of_memory_is_a_row(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Stepper, count: int = 1) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Stepper, "advance", fails)
    profile = run(results, "simclr")
    assert profile.rows[0].reason == "out of memory: could not allocate 2.00 GiB"
    assert "not measured" in printed(profile)


def test_what_memory_runs_out_for_is_told(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Stepper) -> int:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(Stepper, "flops", fails)
    monkeypatch.setattr(Stepper, "saved", fails)
    monkeypatch.setattr(Stepper, "peak", lambda self: memory.Peak(None, failed="out of memory"))
    (row,) = run(results, "simclr").rows
    assert row.step is not None
    assert (row.flops, row.memory.peak, row.memory.saved) == (None, None, None)
    assert row.reason is not None
    for what in ("FLOPs", "bytes saved", "peak"):
        assert f"{what} not measured: out of memory" in row.reason
    assert "FLOPs not measured" in printed(profiles.load(results)[0][0][1])


def test_a_method_that_calls_parts_of_the_backbone_is_not_compiled(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: method(self, backend="eager"))
    monkeypatch.setattr("bench.engine.shutil.which", lambda name: name if "++" in name else None)
    (row,) = run(results, "mae", compile=True).rows
    assert not row.compiled
    assert row.notes == (step.PARTS,)
    assert row.stages["forward"].median > row.stages["loss"].median


def test_a_killed_profile_goes_on(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, asked = step.profile, []

    def killed(resolved: Any, *rest: Any) -> Any:
        asked.append(resolved.method_name)
        if asked == ["simclr", "rotnet"]:
            raise KeyboardInterrupt
        yield from measure(resolved, *rest)

    monkeypatch.setattr(step, "profile", killed)
    with pytest.raises(KeyboardInterrupt):
        run(results, "simclr", "rotnet")
    (((_, left),), problems) = profiles.load(results)
    assert not problems
    assert not left.complete
    assert [row.method for row in left.rows] == ["simclr"]
    profile = run(results, "simclr", "rotnet")
    assert asked == ["simclr", "rotnet", "rotnet"]
    assert [row.method for row in profile.rows] == ["simclr", "rotnet"]
    assert profile.rows[0] == left.rows[0]


@pytest.mark.parametrize(
    ("methods", "more", "line"),
    [
        (("simclrr",), {}, "did you mean simclr"),
        (("simclr", "rotnet"), {"peer": "lightli"}, "did you mean lightly"),
        (("rotnet",), {"peer": "lightly"}, "no step of lightly"),
        (("simclr",), {"data": "digit"}, "did you mean digits"),
        (("simclr",), {"set": ("method.lrr=1",)}, "no setting of method simclr called 'lrr'"),
    ],
)
def test_bad_input_is_one_line(
    results: Path, methods: tuple[str, ...], more: dict[str, Any], line: str
) -> None:
    with pytest.raises(BenchError, match=line) as error:
        run(results, *methods, **more)
    assert "\n" not in str(error.value)
