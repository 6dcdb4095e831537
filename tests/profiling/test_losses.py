"""`bench profile losses`: rows, shares, failures, resuming, what it writes and what it says."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bench import cli
from bench.errors import BenchError
from bench.profiling import cases, losses, losses_asked, losses_rows, plot, providers, roof
from bench.profiling.case import Case, Inputs, Peer, Size
from bench.profiling.losses_asked import Asked, bytes_of
from bench.profiling.losses_table import table
from bench.record import profiles
from bench.record.profile import LossProfile, LossRow, Quantiles, RoofRecord

CPU = torch.device("cpu")
ROOF = RoofRecord(flops={"float32": 1e9, "bfloat16": 2e9}, bytes_per_second=1e9)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, and a roof that takes no time."""
    monkeypatch.setattr(providers, "_no_compiler", lambda device: "not measured: not in tests")
    monkeypatch.setattr(roof, "measure", lambda device: ROOF)


def asked(**change: Any) -> Asked:
    usual: dict[str, Any] = {
        "ops": ("ntxent",),
        "batches": (4, 8),
        "dims": (16,),
        "keys": (),
        "dtypes": ("float32",),
        "seconds": 0.0,
        "memory": 2**20,
        "peers": True,
        "fit": False,
    }
    return Asked(**{**usual, **change})


def run(root: Path, **change: Any) -> LossProfile:
    made = list(losses.run(asked(**change), CPU, root, lambda text: None))
    return made[-1][0]


def rows_of(profile: LossProfile) -> dict[tuple[str, int], LossRow]:
    return {(row.provider, row.batch): row for row in profile.rows}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_every_provider_has_a_row_at_every_size(tmp_path: Path) -> None:
    rows = rows_of(run(tmp_path))
    # Ours in three ways, compiled, lightly, pytorch-metric-learning and flex_attention.
    assert len(rows) == 2 * 7
    for name in ("reference", "lightly"):
        row = rows[name, 8]
        assert row.reason is None and row.forward and row.backward and row.both
        assert row.both.rounds >= 3 and row.both.p10 <= row.both.median <= row.both.p90
        assert row.memory.peak and row.memory.saved
        assert row.floor_ms == pytest.approx(24 * 8**2 * 16 / 1e9 * 1e3)
        assert row.share == pytest.approx(row.floor_ms / row.both.median)
        assert row.bound == "flops"
    for name in ("triton", "compile", "flex_attention"):
        row = rows[name, 8]
        assert row.reason and row.reason.startswith("not measured: ")
        assert row.both is None and row.share is None and row.memory.peak is None
    assert rows["reference", 8].chosen and not rows["lightly", 8].chosen


def test_memory_is_counted_exactly(tmp_path: Path) -> None:
    row = rows_of(run(tmp_path, ops=("ema_update",), peers=False, batches=(8,)))["reference", 8]
    assert row.memory.peak == 0  # in place
    assert row.memory.saved is None and row.backward is None and row.both is None
    assert row.share is not None and row.forward is not None and row.bytes is not None
    assert row.share == pytest.approx(row.bytes / 1e6 / row.forward.median)


def test_out_of_memory_is_a_row_and_nothing_larger_is_tried(tmp_path: Path) -> None:
    rows = rows_of(run(tmp_path, batches=(8, 4096), memory=2**17, peers=False))
    assert rows["reference", 8].both
    over = rows["reference", 4096]
    assert re.match(r"out of memory: .* expected of the stated 128 KiB", over.reason or "")
    assert over.both is None and over.floor_ms


def test_a_peer_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(size: Size, inputs: Inputs) -> Any:
        raise ValueError("shapes differ\nin detail")

    monkeypatch.setitem(cases.ALL, "ntxent", _with(Peer("broken", "torch", broken)))
    profile = run(tmp_path, batches=(4,))
    rows = rows_of(profile)
    assert rows["broken", 4].reason == "failed: ValueError: shapes differ"
    assert rows["reference", 4].both
    assert losses.broken(profile) == []


def test_our_own_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(inputs: Inputs) -> Tensor:
        raise ZeroDivisionError

    monkeypatch.setitem(cases.ALL, "ntxent", _with(call=wrong))
    profile = run(tmp_path, batches=(4,), fit=True)
    assert losses.broken(profile) == ["ntxent (reference)"]
    assert profile.fits[0].batch is None


def test_a_peer_that_fails_while_it_is_timed_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(size: Size, inputs: Inputs) -> Any:
        def call(x: Inputs) -> Tensor:
            calls.append(1)
            if len(calls) > 6:  # by then weighed at 2 and 4
                raise RuntimeError("illegal memory access")
            return x["one"].sum() + x["two"].sum()

        return call

    calls: list[int] = []
    monkeypatch.setitem(cases.ALL, "ntxent", _with(Peer("breaking", "torch", breaking)))
    rows = rows_of(run(tmp_path, batches=(4,)))
    row = rows["breaking", 4]
    assert row.reason == "failed: RuntimeError: illegal memory access"
    assert row.memory.peak and row.share is None
    assert rows["reference", 4].both


def test_where_auto_fails_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: Any, inputs: Inputs) -> str:
        raise RuntimeError("Triton Error [CUDA]: invalid argument")

    monkeypatch.setattr(losses_rows, "chosen", broken)
    assert losses_rows._picked(cases.ALL["ntxent"], {}, torch.device("cuda")) is None


@pytest.mark.parametrize("op", ["ntxent", "queue_infonce"])
def test_half_precision_says_what_computes_in_which(tmp_path: Path, op: str) -> None:
    keys = (24,) if op == "queue_infonce" else ()
    rows = rows_of(run(tmp_path, ops=(op,), keys=keys, dtypes=("bfloat16",), peers=False))
    assert rows["reference", 8].notes == rows["compile", 8].notes == (providers.RAISED,)
    assert rows["triton", 8].notes == (providers.AS_GIVEN,)
    for name in ("eager", "eager-compile"):
        assert rows[name, 8].notes == (providers.ROUNDED,)
    assert rows["eager", 8].both and rows["eager", 8].memory.peak
    whole = rows_of(run(tmp_path, ops=(op,), keys=keys, peers=False))
    assert whole["reference", 8].notes == () and ("eager", 8) not in whole


def test_a_type_without_a_roof_has_no_share(tmp_path: Path) -> None:
    rows = rows_of(run(tmp_path, dtypes=("float16",), batches=(4,), peers=False))
    row = rows["reference", 4]
    assert row.both and row.share is None and row.floor_ms is None and row.reason is None


def test_inputs_beyond_the_stated_memory_are_never_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> Inputs:
        raise AssertionError("made")

    monkeypatch.setattr(losses_rows, "_inputs", never)
    options = {"ops": ("queue_infonce",), "keys": (2_000_000,), "memory": 16 * 2**20, "fit": True}
    profile = run(tmp_path, **options, batches=(8,), peers=False)
    row = rows_of(profile)["reference", 8]
    assert (row.reason or "").startswith("out of memory: 244 MiB expected of the stated 16.0 MiB")
    assert profile.fits[0].batch is None and "out of memory" in profile.fits[0].ended


def _with(peer: Peer | None = None, **change: Any) -> Case:
    from dataclasses import replace

    return replace(cases.ALL["ntxent"], peers=(peer,) if peer else (), **change)


def test_the_largest_batch_is_one_that_was_measured(tmp_path: Path) -> None:
    profile = run(tmp_path, peers=False, fit=True, memory=2**18)
    (fit,) = profile.fits
    assert fit.provider == "reference" and fit.batch is not None and fit.total is not None
    assert fit.total <= 2**18 < 8 * fit.total
    assert fit.batch & (fit.batch - 1) == 0
    assert "out of memory" in fit.ended


def test_a_killed_profile_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = losses.measure, []

    def killed(group: Any, every: Any, size: Size, device: torch.device) -> list[LossRow]:
        seen.append(size.batch)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(group, every, size, device)

    monkeypatch.setattr(losses, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, peers=False)
    ((_, half),) = profiles.load(tmp_path)[0]
    assert not half.complete and {row.batch for row in half.rows} == {4}
    whole = run(tmp_path, peers=False)
    ((path, stored),) = profiles.load(tmp_path)[0]
    assert seen == [4, 8, 8]
    assert whole.id == half.id == stored.id and stored.complete
    assert stored.rows[: len(half.rows)] == half.rows
    assert path.with_name(stored.figures[0]).read_bytes().startswith(b"\x89PNG")
    other = run(tmp_path, peers=False, batches=(2,))
    assert other.id != whole.id


def test_a_higher_roof_holds_for_all_rows() -> None:
    before = _profile()
    higher = RoofRecord(flops={"float32": 4e9, "bfloat16": 1e9}, bytes_per_second=5e8)
    after = losses.raised(losses.raised(before, ROOF), higher)
    assert after.roof == RoofRecord(flops={"float32": 4e9, "bfloat16": 2e9}, bytes_per_second=1e9)
    assert after.rows[0].floor_ms == pytest.approx(0.25)
    assert after.rows[0].share == pytest.approx(0.125)


def test_the_slower_of_both_roofs_is_the_floor() -> None:
    row = _profile().rows[0]
    by_bytes = losses.against(row.model_copy(update={"bytes": 3e6}), ROOF)
    assert (by_bytes.bound, by_bytes.floor_ms) == ("bytes", pytest.approx(3.0))
    by_flops = losses.against(row, ROOF)
    assert (by_flops.bound, by_flops.floor_ms) == ("flops", pytest.approx(1.0))


def _profile() -> LossProfile:
    from bench import environment

    times = Quantiles(median=2.0, p10=1.5, p90=3.0, rounds=5, clock="wall")
    row = LossRow(
        op="ntxent", provider="reference", batch=8, dim=16, dtype="float32",
        forward=times, both=times, flops=1e6, bytes=1e5,
    )  # fmt: skip
    return LossProfile(
        id="0" * 12,
        created="2026-01-02T03:04:05Z",
        settings={},
        environment=environment.describe(CPU),
        rows=(row, row.model_copy(update={"batch": 16, "reason": "out of memory", "both": None})),
    )


def test_a_plot_shows_times_memory_and_what_did_not_fit() -> None:
    first = plot.draw(_profile(), "ntxent")
    assert first.startswith(b"\x89PNG") and first == plot.draw(_profile(), "ntxent")
    faster = _profile()
    rows = (losses.against(faster.rows[0], ROOF), faster.rows[1])
    assert plot.draw(faster.model_copy(update={"rows": rows}), "ntxent") != first


def test_the_table_says_all_of_it(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(run(tmp_path, batches=(4, 4096), memory=2**17), "ntxent"))
    text = console.export_text()
    for part in (
        "ntxent: D=16 float32",
        "lightly",
        "out of memory",
        "wall",
        "floor: 24 N^2 D FLOP",
    ):
        assert part in text
    assert "flex_attention: not measured: " in text


@pytest.mark.parametrize(
    ("text", "count"), [("8GiB", 2**33), ("500 MB", 5 * 10**8), ("0.5KiB", 512), ("7", 7)]
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "8 gigs", "-1GiB", "0GiB", "GiB"])
def test_other_amounts_are_one_line(text: str) -> None:
    with pytest.raises(BenchError, match="8GiB or 500MiB"):
        bytes_of(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": ("ntxnet",)}, "did you mean ntxent"),
        ({"dtypes": ("float23",)}, "did you mean float32"),
        ({"batches": (0,)}, "--batch 0: a size is at least 1"),
        ({"ops": ("sinkhorn",), "dims": (999,)}, "--dim: sinkhorn has no such size"),
        ({"keys": (24,)}, "--keys: ntxent has no such size"),
        ({"ops": ("knn_topk",), "keys": (8,)}, "--keys 8: knn_topk needs 20"),
    ],
)
def test_wrong_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        asked(**change)


def test_what_is_asked_for_twice_is_measured_once() -> None:
    once = losses_asked.asked(
        ops=["dino", "dino"], batches=[8, 4, 8], dims=[], keys=[64, 64], dtypes=["float32"] * 2,
        seconds=0.0, memory="1MiB", peers=False, fit=False, cuda=False,
    )  # fmt: skip
    assert (once.ops, once.batches, once.keys) == (("dino",), (4, 8), (64,))
    assert once.dtypes == ("float32",)


def test_the_command_prints_and_records(tmp_path: Path) -> None:
    options = ["--op", "ntxent", "--batch", "4", "--dim", "8", "--seconds", "0", "--no-fit"]
    options += ["--no-peers", "--device", "cpu", "--results", str(tmp_path)]
    made = CliRunner().invoke(cli.app, ["profile", "losses", *options])
    assert made.exit_code == 0, made.output
    ((path, profile),) = profiles.load(tmp_path)[0]
    assert "ntxent: D=8 float32" in made.output and path.name in made.output.replace("\n", "")
    assert profile.complete and profile.settings["batches"] == [4]


@pytest.fixture(name="compiled")
def _compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.undo()
    yield


@pytest.mark.slow
def test_torch_compile_is_a_provider(
    tmp_path: Path, compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roof, "measure", lambda device: ROOF)
    rows = rows_of(run(tmp_path, peers=False, batches=(4,)))
    compiled_row = rows["compile", 4]
    if compiled_row.reason is None:
        assert compiled_row.both and compiled_row.memory.peak
    else:
        assert "C++ compiler" in compiled_row.reason


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu_what_does_not_fit_is_a_row_and_the_kernel_goes_on(
    tmp_path: Path, dtype: str
) -> None:
    wanted = asked(batches=(256, 2**18), dtypes=(dtype,), peers=False)  # 2^38 logits: a TiB
    *_, (profile, _) = losses.run(wanted, torch.device("cuda"), tmp_path, lambda text: None)
    rows = rows_of(profile)
    assert losses.broken(profile) == [] and profile.complete
    for batch in (256, 2**18):
        fused = rows["triton", batch]
        assert fused.reason is None and fused.forward and fused.both and fused.memory.peak
    over, small = rows["reference", 2**18], rows["reference", 256]
    assert (over.reason or "").startswith("out of memory") and over.both is None
    assert small.both and small.backward and small.memory.saved
    assert rows["triton", 2**18].chosen
    assert {row.both.clock for row in profile.rows if row.batch == 256 and row.both} == {"graph"}
