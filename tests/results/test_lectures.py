"""Lecture tables: published numbers as they stand, ours beside them, and whether orders agree."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pages import tables
from scipy.stats import spearmanr

from bench import registry
from bench.leaderboard import build
from bench.leaderboard.lectures import DATA, LECTURES, OURS
from bench.leaderboard.published import read_published

PUBLISHED = Path(__file__).parents[2] / "results" / "reference" / "published.csv"
TITLE = "PASCAL VOC, as RotNet has it (initialisations rescaled)"
ALL = {"name": "voc_classification", "config": {"mode": "all"}, "selection": {}}
MAP = {"metric": {"name": "mAP", "unit": "%", "higher_is_better": True}}
ORDER = {"rotnet": 30.0, "relative_patch": 20.0, "egomotion": 10.0, "bigan": 25.0}


def put_map(put, method: str, seed: int, value: float, **change: object) -> None:
    protocol = {**ALL, **change.pop("protocol", {})}  # type: ignore[dict-item]
    put(method, seed, protocol=protocol, metrics={"mAP": value}, **MAP, **change)


def test_ours_stand_beside_the_published_numbers(results, put) -> None:
    for method, value in ORDER.items():
        put_map(put, method, 0, value)
    put_map(put, "random_init", 0, 5.0)
    text = build(results)
    table = tables(text)[TITLE].set_index("")
    own = table["classification, all: here"]
    assert own["`rotnet`"] == "30.00"
    assert own["`random_init`"] == "5.00"  # references are of every budget
    assert table.loc["`rotnet`", "classification, all: paper"] == "73.0"
    assert own["`counting`"] == ""  # published, and not measured here
    published = {"rotnet": 72.97, "relative_patch": 65.3, "egomotion": 54.2, "bigan": 60.1}
    means = [*ORDER.values(), 5.0]
    rho = spearmanr([*(published[m] for m in ORDER), 53.3], means).statistic
    assert f"order of 5 rows against the paper's: Spearman {rho:+.2f}" in text


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": {"config": {"mode": "svm"}}},
        {"status": "diverged"},
        {"parts": {"method": {"changed": {"lr": 1.0}}}},
    ],
)
def test_other_ways_of_measuring_do_not_stand_there(results, put, change) -> None:
    put_map(put, "rotnet", 0, 30.0, **change)
    assert TITLE not in tables(build(results))


def test_rows_of_a_column_are_of_one_setting_that_has_most_of_them(results, put) -> None:
    for method, value in ORDER.items():
        put_map(put, method, 0, value)
    put_map(put, "rotnet", 0, 99.0, epochs=500)
    put_map(put, "rotnet", 0, 98.0, data="coco_voc20")
    own = tables(build(results))[TITLE].set_index("")["classification, all: here"]
    assert own["`rotnet`"] == "30.00"


def test_rotation_counts_are_rows_of_one_method(results, put) -> None:
    for angles, value in (([0, 90, 180, 270], 60.0), ([0, 180], 50.0)):
        put(
            "rotnet",
            0,
            value,
            config={"angles": angles},
            protocol={"name": "nonlinear"},
            parts={"method": {"changed": {} if len(angles) == 4 else {"angles": angles}}},
        )
    table = tables(build(results))["How many rotations to tell apart"].set_index("")
    column = table["top1, non-linear probe: here"]
    assert column["0, 90, 180, 270"] == "60.00"
    assert column["0, 180"] == "50.00"
    assert table.loc["90, 270", "top1, non-linear probe: paper"] == "85.5"


def test_every_table_is_in_the_published_file_and_every_name_is_ours() -> None:
    published = read_published(PUBLISHED)
    protocols = registry.names("protocols")
    for lecture in LECTURES:
        lines = published[published["table"].isin(lecture.tables)]
        assert not lines.empty, lecture.title
        for column in lecture.columns:
            assert set(column.protocol.split("|")) <= set(protocols), column
            chosen = pd.Series(True, index=lines.index)
            for key, value in column.published.items():
                chosen &= lines[key] == value
            assert chosen.any(), (lecture.title, column.heading)
    assert set(OURS.values()) <= set(registry.names("methods"))
    assert set(DATA.values()) <= set(published["dataset"])


def test_a_transfer_row_is_read_in_the_published_metric(results, put) -> None:
    for data in ("aircraft", "dtd"):
        put(
            "simclr",
            0,
            50.0,
            data=data,
            protocol={"name": "logreg"},
            metrics={"top1": 50.0, "mean_per_class": 40.0},
            pretraining={"data": "scenes"},
        )
    table = tables(build(results))["Twelve data sets, linear"].set_index("")
    assert table.loc["FGVC Aircraft", "SimCLR: here"] == "40.00"
    assert table.loc["DTD", "SimCLR: here"] == "50.00"


def test_a_row_is_never_a_mixture_of_variants(results, put) -> None:
    few = {"name": "label_fraction", "config": {"labels": 0.1, "mode": "finetune"}}
    linear = {"name": "label_fraction", "config": {"labels": 0.1, "mode": "linear"}}
    for seed in (0, 1):
        put("simclr", seed, 30.0, protocol=few, metrics={"top1": 30.0, "top5": 60.0})
    put("simclr", 2, 30.0, protocol=few, metrics={"top1": 30.0, "top5": 99.0}, epochs=500)
    put("simclr", 0, 30.0, protocol=linear, metrics={"top1": 30.0, "top5": 98.0})
    table = tables(build(results))["Few labels"].set_index("")
    assert table.loc["`simclr`", "top5, 10% of labels: here"].startswith("60.00 ±")
