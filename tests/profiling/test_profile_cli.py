"""`bench profile` as a user runs it: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import cli
from bench.errors import BenchError, BusyError
from bench.profiling import data_run, step_roof
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


def test_the_same_command_twice_at_once_is_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["data", "--op", "Normalize", "--results", str(results)]

    def again(*args: object, **kwargs: object) -> None:
        with pytest.raises(BusyError, match="another process"):
            bench(*arguments)
        raise KeyError("the other command goes on")

    monkeypatch.setattr(data_run, "run", again)
    for _ in range(2):  # and what has ended is in nobody's way
        with pytest.raises(KeyError, match="goes on"):
            bench(*arguments)


@pytest.mark.parametrize("arguments", [[], ["--all", "-m", "rotnet"]])
def test_methods_are_named_or_all_of_them(arguments: list[str]) -> None:
    with pytest.raises(BenchError, match="name a --method"):
        bench("step", *arguments)
