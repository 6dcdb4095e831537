"""The tables' numbers against the records they were made from."""

from __future__ import annotations

import json
import random
import re
import statistics as stdlib
from pathlib import Path

import pandas as pd
import pytest
from pages import results_of, tables
from scipy import stats

from bench.leaderboard import build, problems, write
from bench.leaderboard.tables import duration

REPOSITORY = Path(__file__).parents[2]
KNN = {"name": "knn", "config": {"k": [20]}, "selection": {}}


def test_means_and_intervals_are_those_of_the_records(results, put):
    rng = random.Random(3)
    for method in ("rotnet", "simclr", "byol"):
        for seed in range(rng.randint(2, 5)):
            put(method, seed, rng.uniform(40, 80))
    table = results_of(build(results))
    rows = [
        (raw["method"]["name"], raw["metrics"]["top1"], raw["metrics"]["ece"])
        for raw in (json.loads(path.read_text()) for path in results.rglob("*.json"))
    ]
    frame = pd.DataFrame(rows, columns=["method", "top1", "ece"])
    for method, values in frame.groupby("method"):
        low, _ = stats.t.interval(
            0.95, len(values) - 1, values["top1"].mean(), stats.sem(values["top1"])
        )
        mean = stdlib.fmean(values["top1"])
        expected = f"{mean:.2f} ± {mean - low:.2f} (n={len(values)})"
        assert table.loc[str(method), "top1 % ↑"] == expected
        assert table.loc[str(method), "ece"] == f"{values['ece'].mean():.2f}"


def test_a_row_of_one_seed_says_so(results, put):
    put("rotnet", 7, 61.0)
    row = results_of(build(results)).loc["rotnet"]
    assert row["top1 % ↑"] == "61.00 (n=1)"
    assert row["best layer"] == "conv2"
    assert row["pretraining"] == "1.6 min"
    assert row["images/s"] == "2,200"


def test_every_link_leads_to_its_record(results, put, tmp_path):
    paths = {put("rotnet", seed, data="a data:set/é") for seed in range(3)}
    for folder in (tmp_path, tmp_path / "docs" / "deep"):
        folder.mkdir(parents=True, exist_ok=True)
        write(results, folder / "page.md")
        links = re.findall(r"\]\(([^)]*\.json)\)", (folder / "page.md").read_text())
        assert {(folder / link).resolve() for link in links} == {p.resolve() for p in paths}


def test_configurations_of_a_method_are_rows_named_by_what_differs(results, put):
    put("rotnet", 0, 60.0)
    put("rotnet", 0, 58.0, config={"angles": [0, 180], "head": {"lr": 0.1}})
    put("simclr", 0, 59.0)
    assert list(results_of(build(results)).index) == [
        "rotnet (angles=0,90,180,270)",
        "simclr",
        "rotnet (angles=0,180; head.lr=0.1)",
    ]


def test_a_setting_with_a_pipe_does_not_break_the_table(results, put):
    for value in ("a|b", "c"):
        put("simclr", 0, 60.0, config={"mode": value})
    assert list(results_of(build(results)).index) == [r"simclr (mode=a\|b)", "simclr (mode=c)"]


def test_a_seed_counts_once_by_its_first_account(results, put):
    for seed in range(4):
        put("rotnet", seed, 90.0, created="2027-01-01T00:00:00Z")
        put("rotnet", seed, 60.0, created="2026-01-01T00:00:00Z")
    text = build(results)
    assert results_of(text).loc["rotnet", "top1 % ↑"] == "60.00 ± 0.00 (n=4)"
    left_out = problems(results)
    assert len(left_out) == 4
    for line in left_out:
        path, _, reason = line.partition(": ")
        assert json.loads((results / path).read_text())["metrics"]["top1"] == 90.0
        assert "already counted" in reason
        assert path in text.split("## Left out")[1]


def test_machines_are_rows_of_their_own(results, put):
    put("rotnet", 0, 60.0)
    put("rotnet", 0, 61.0, environment={"device": "NVIDIA H100", "device_count": 2})
    table = results_of(build(results))
    assert list(table.index) == ["rotnet (device=NVIDIA H100)", "rotnet (device=cpu)"]
    assert list(table["device"]) == ["2 x NVIDIA H100", "cpu"]


def test_columns_and_sections_without_content_are_left_out(results, put):
    put("pixels", 0, 37.0, per_layer={}, protocol=KNN, metrics={"top1_default": 36.0})
    text = build(results)
    table = results_of(text)
    assert table.loc["pixels", "top1_default"] == "36.00"
    assert not {"best layer", "pretraining", "images/s"} & set(table.columns)
    assert not any(part in text for part in ("<details>", "Beside", "Left out", "†", "nan", "None"))


def test_accuracy_by_layer(results, put):
    put("rotnet", 0, 60.0)
    put("rotnet", 1, 62.0)
    found = tables(build(results))["top1 by layer"].loc[0]
    assert list(found) == ["`rotnet`", "56.00", "**61.00**", "60.00"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.25, "0.2 s"), (89.0, "89.0 s"), (90.0, "1.5 min"), (7200.0, "2.0 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
