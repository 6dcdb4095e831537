"""What may stand in one table, and in which order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pages import results_of, tables

from bench.leaderboard import build

REPOSITORY = Path(__file__).parents[2]
KNN = {"name": "knn", "config": {"k": [20]}, "selection": {}}


def test_different_budgets_data_backbones_and_protocols_are_never_in_one_table(results, put):
    put("rotnet", 0, 60.0)
    for change in (
        {"epochs": 40},
        {"data": "cifar10"},
        {"backbone": "nin4"},
        {"protocol": KNN},
        {"protocol": {"version": 2}},
        {"protocol": {"config": {"epochs": 50}}},
        {"pretraining": {"data_digest": "e" * 16}},
        {"pretraining": {"pictures": 5_000}},
    ):
        put("rotnet", 0, 60.0, **change)
    found = [table for table in tables(build(results)).values() if "rank" in table]
    assert [len(table) for table in found] == [1] * 9
    assert all(table["rank"].item() == "1" for table in found)


def test_floor_and_ceiling_join_every_group_and_are_not_ranked(results, put):
    for seed in (0, 1):
        put("pixels", seed, 37.0, backbone="nin4")
        put("random_init", seed, 44.0 + seed)
        put("supervised", seed, 91.0 + seed, epochs=30)
        for epochs in (20, 40):
            put("rotnet", seed, 60.0 + seed, epochs=epochs)
            put("below", seed, 30.0 + seed, epochs=epochs)
    found = [table for table in tables(build(results)).values() if "rank" in table]
    assert len(found) == 2
    for table in found:
        assert list(table["rank"]) == ["*ceiling*", "1", "*floor*", "*floor*", "2 †"]
        assert table["method"][0] == "`supervised (epochs=30)`"


def test_groups_come_in_the_order_of_their_budget(results, put):
    for epochs in (100, 3, 20):
        put("rotnet", 0, 60.0, epochs=epochs)
    found = re.findall(r"^### .* (\d+) epochs", build(results), flags=re.MULTILINE)
    assert found == ["3", "20", "100"]


def test_labels_of_other_data_are_no_ceiling(results, put):
    put("rotnet", 0, 60.0)
    put("supervised", 0, 70.0, pretraining={"data": "cifar100"})
    found = {name: table for name, table in tables(build(results)).items() if "@" in name}
    assert [list(table["rank"]) for table in found.values()] == [["1"], ["1"]]
    assert "uses labels" in build(results)


def test_references_alone_still_have_a_table(results, put):
    put("pixels", 0, 37.0)
    put("random_init", 0, 44.0)
    text = build(results)
    assert list(results_of(text)["rank"]) == ["*floor*", "*floor*"]
    assert "Not measured here yet: `supervised` (ceiling)." in text


def test_ranks_tie_unless_the_paired_bootstrap_separates(results, put):
    n = 1_000
    right = np.arange(n) < 600
    better_everywhere = np.arange(n) < 612
    elsewhere = np.roll(right, 300)  # as good, on other pictures
    for seed in (0, 1):
        # The intervals over seeds all overlap: only the pictures tell the methods apart.
        put("best", seed, 61.2 + seed, correct=better_everywhere)
        put("worse", seed, 60.0 + seed, correct=right)
    put("other", 0, 60.2, correct=elsewhere)
    table = results_of(build(results))
    assert list(table.index) == ["best", "worse", "other"]
    assert list(table["rank"]) == ["1", "2", "2"]


def test_without_predictions_ranks_rest_on_intervals_and_say_so(results, put):
    for seed in (0, 1, 2):
        put("best", seed, 70 + 0.1 * seed, correct=np.ones(10, dtype=bool))
        put("close", seed, 69.95 + 0.1 * seed)
        put("far", seed, 60 + 0.1 * seed)
    put("alone", 0, 10.0)
    text = build(results)
    table = results_of(text)
    assert list(table["rank"]) == ["1", "1 †", "3 †", "3 †"]
    assert "Without predictions" in text


@pytest.mark.parametrize("damage", ["missing", "other pictures"])
def test_predictions_that_cannot_be_paired_are_not(results, put, damage):
    put("best", 0, 70.0, correct=np.ones(100, dtype=bool))
    path = put("worse", 0, 20.0, correct=np.zeros(100, dtype=bool))
    assert list(results_of(build(results))["rank"]) == ["1", "2"]
    if damage == "missing":
        path.with_suffix(".npz").unlink()
    else:
        np.savez(path.with_suffix(".npz"), prediction=np.zeros(100), label=np.ones(100))
    assert list(results_of(build(results))["rank"]) == ["1", "1 †"]


def test_lower_is_better_where_the_metric_says_so(results, put):
    metric = {"name": "error", "unit": "%", "higher_is_better": False}
    for seed in (0, 1):
        for name, error in (("good", 10.0), ("bad", 20.0)):
            put(name, seed, metric=metric, metrics={"error": error + 0.01 * seed})
    table = results_of(build(results))
    assert list(table.index) == ["good", "bad"]
    assert "error % ↓" in table.columns


@pytest.mark.parametrize("status", ["diverged", "collapsed", "oom", "failed"])
def test_a_method_with_a_bad_seed_is_shown_and_not_ranked(results, put, status):
    put("good", 0, 50.0)
    put("fragile", 0, 70.0)
    put("fragile", 1, 70.0, status=status, message="it went | wrong\n<b>here", metrics={})
    put("broken", 0, status=status, metrics={}, per_layer={})
    text = build(results)
    table = results_of(text)
    assert list(table.index) == ["fragile", "good", "broken"]
    assert list(table["rank"]) == ["-", "1", "-"]
    assert f"**{status} (seed 1)**" in table["method"].iloc[0]
    assert table.loc["fragile", "top1 % ↑"] == "70.00 (n=1)"
    assert table.loc["broken", "top1 % ↑"] == "-"
    assert f"- `fragile` seed 1, {status}: it went \\| wrong &lt;b>here" in text
