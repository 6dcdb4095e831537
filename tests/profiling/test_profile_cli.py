"""`bench profile` as a user runs it: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import cli
from bench.errors import BenchError
from bench.profiling import step_roof
from bench.record.profile import RoofRecord

QUICK = ["--data", "digits", "--limit", "96", "--batch-size", "16", "--device", "cpu"]


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, ["profile", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_step_is_a_table_and_a_record(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roof = RoofRecord(flops={"float32": 1e12}, bytes_per_second=1e9)
    monkeypatch.setattr(step_roof, "measure", lambda device: roof)
    text = bench("step", "-m", "rotnet", *QUICK, "--seconds", "0", "--results", str(results))
    assert "rotnet" in text
    assert "optimiser" in text
    (record,) = (results / "profile" / "step").glob("*.json")
    assert record.name in text


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_views_are_a_table_and_a_record(results: Path) -> None:
    arguments = ["--op", "Normalize", "--size", "16", "--pictures", "4", "--seconds", "0"]
    text = bench("data", *arguments, "--device", "cpu", "--results", str(results))
    assert "Normalize" in text
    (record,) = (results / "profile" / "data").glob("*.json")
    assert record.name in text


@pytest.mark.parametrize("arguments", [[], ["--all", "-m", "rotnet"]])
def test_methods_are_named_or_all_of_them(arguments: list[str]) -> None:
    with pytest.raises(BenchError, match="name a --method"):
        bench("step", *arguments)
