"""Which implementation runs, and that it is told."""

from __future__ import annotations

import pytest
import torch

from bench.errors import BenchError
from bench.kernels import dispatch, ntxent

ROWS = torch.randn(4, 3)


def test_what_ran_is_told_by_op() -> None:
    with dispatch.using("reference") as ran:
        ntxent(ROWS, ROWS, 0.5)
    assert ran == {"ntxent": "reference"}


def test_an_op_that_ran_in_two_ways_has_both() -> None:
    with dispatch.using("reference") as ran:
        dispatch.note("b", "triton")
        dispatch.note("b", "reference")
        dispatch.note("b", "triton")
        dispatch.note("a", "reference")
    assert ran == {"a": "reference", "b": "reference+triton"}


def test_an_inner_choice_ends_with_its_block_and_is_told_outside() -> None:
    with dispatch.using("reference") as outer:
        with dispatch.using("auto", "ieee") as inner:
            dispatch.note("op", "triton")
            assert dispatch.products() == "ieee"
        assert dispatch.products() == "tf32x3"
        dispatch.note("op", "reference")
    assert inner == {"op": "triton"}
    assert outer == {"op": "reference+triton"}


def test_an_error_restores_the_choice_too() -> None:
    with pytest.raises(ZeroDivisionError), dispatch.using("triton"):
        raise ZeroDivisionError
    with dispatch.using("auto") as ran:
        assert not dispatch.triton("op", ROWS, worth=True)
    assert ran == {"op": "reference"}


def test_auto_takes_no_kernel_on_a_cpu_however_large() -> None:
    with dispatch.using("auto"):
        assert not dispatch.triton("op", ROWS, worth=True)


def test_a_kernel_that_cannot_run_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with (
        dispatch.using("triton"),
        pytest.raises(BenchError, match="ntxent: no Triton kernel runs on a cpu device"),
    ):
        ntxent(ROWS, ROWS, 0.5)
    monkeypatch.setattr(dispatch, "_installed", lambda: False)
    assert dispatch.unusable(torch.device("cpu")) == "Triton is not installed"


def test_a_gpu_of_too_early_a_kind_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    reason = dispatch.unusable(torch.device("cuda"))
    assert reason == "an old GPU has compute capability 7.5, below 8.0"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert dispatch.unusable(torch.device("cuda")) is None


def test_auto_asks_for_a_gpu_a_size_and_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "unusable", lambda device: None)
    monkeypatch.setattr(dispatch, "interpreted", lambda: False)
    asked = torch.zeros(1, device="meta")
    monkeypatch.setattr(torch.Tensor, "device", property(lambda x: torch.device("cuda")))
    with dispatch.using("auto"):
        assert dispatch.triton("op", asked, worth=True)
        assert not dispatch.triton("op", asked, worth=False)
        assert not dispatch.triton("op", asked.double(), worth=True)
    with dispatch.using("triton"):
        assert dispatch.triton("op", asked.double(), worth=False)
    with dispatch.using("reference"):
        assert not dispatch.triton("op", asked, worth=True)


def test_parts_of_a_run_are_merged() -> None:
    parts = ({"a": "reference"}, {"a": "triton", "b": "triton"}, {})
    assert dispatch.merged(*parts) == {"a": "reference+triton", "b": "triton"}
