"""Tables across groups: what varies stands in the columns, and nothing else may vary."""

from __future__ import annotations

import re

import pytest
from pages import tables
from scipy.stats import spearmanr

from bench.leaderboard import build


def pivot(results, word: str):
    (found,) = ((name, t) for name, t in tables(build(results)).items() if name.startswith(word))
    return found


def test_epochs_of_pretraining_side_by_side(results, put):
    for epochs, top1 in ((5, 50.0), (20, 60.0)):
        for seed in (0, 1):
            put("rotnet", seed, top1 + seed, epochs=epochs)
    put("jigsaw", 0, 40.0, epochs=20)  # in one column: it shows nothing
    put("random_init", 0, 30.0)
    title, table = pivot(results, "Budget")
    assert "linear@1" in title
    assert list(table.columns) == ["method", "5 epochs", "20 epochs"]
    assert list(table["method"]) == ["`rotnet`"]
    assert table["20 epochs"].item().startswith("60.50 ±")


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": {"config": {"epochs": 50}}},
        {"pretraining": {"data_digest": "e" * 16, "pictures": 5_000}},
        {"data": "cifar10"},
        {"status": "diverged"},
        {"parts": {"method": {"changed": {"lr": 1.0}}}},
    ],
)
def test_budgets_that_differ_in_more_are_not_compared(results, put, change):
    put("rotnet", 0, 50.0, epochs=5)
    put("rotnet", 0, 60.0, epochs=20, **change)
    assert not [name for name in tables(build(results)) if name.startswith("Budget")]


def test_backbones_side_by_side_with_the_agreement_of_their_rankings(results, put):
    scores = {"rotnet": (60, 40), "simclr": (50, 50), "jigsaw": (45, 42), "vae": (30, 45)}
    for method, (one, other) in scores.items():
        put(method, 0, float(one))
        put(method, 0, float(other), backbone="nin4")
    put("simsiam", 0, 99.0)  # on one backbone only
    _, table = pivot(results, "Architectures")
    assert {"`rotnet`", "`simclr`", "`jigsaw`", "`vae`"} == set(table["method"])
    (rho,) = re.findall(r"Spearman ([+-]\d\.\d\d) over 4 methods", build(results))
    expected = spearmanr(*zip(*scores.values(), strict=True)).statistic
    assert float(rho) == pytest.approx(expected, abs=0.005)


def test_two_methods_are_no_ranking(results, put):
    for method in ("rotnet", "simclr"):
        put(method, 0, 60.0)
        put(method, 0, 50.0, backbone="nin4")
    assert not [name for name in tables(build(results)) if name.startswith("Architectures")]


def test_features_of_one_pretraining_on_several_data_sets(results, put):
    put("rotnet", 0, 60.0)
    put("rotnet", 0, 35.5, data="digits", pretraining={"data": "scenes"})
    put("simclr", 0, 65.0)
    put("simclr", 0, 33.0, data="digits", pretraining={"data": "scenes"})
    title, table = pivot(results, "Transfer")
    assert "scenes" in title
    assert list(table["method"]) == ["`simclr`", "`rotnet`"]
    assert list(table["digits"]) == ["33.00", "35.50"]


def test_few_labels_of_both_kinds_of_learners_share_a_table(results, put):
    for labels, top1 in ((4, 30.0), (0.1, 50.0)):
        config = {"labels": labels, "mode": "finetune"}
        put("rotnet", 0, top1, protocol={"name": "label_fraction", "config": config})
        put("fixmatch", 0, top1 - 5, protocol={"name": "classifier"}, config={"labels": labels})
    put("uda", 0, 44.0, protocol={"name": "classifier"}, config={"labels": 0.1})
    _, table = pivot(results, "Few labels ·")
    assert list(table.columns) == ["method", "0.1 of labels", "4 per class"]
    by_method = table.set_index("method")
    assert by_method.loc["`uda, own classifier`", "4 per class"] == ""
    assert by_method.loc["`rotnet (finetune)`", "4 per class"] == "30.00"
    assert by_method.loc["`fixmatch, own classifier`", "0.1 of labels"] == "45.00"


def test_rows_that_differ_in_more_are_parted_and_named(results, put):
    for labels in (4, 20):
        for distil, top1 in ((False, 30.0), (True, 40.0)):
            config = {"labels": labels, "mode": "finetune", "distil": distil}
            put("rotnet", 0, top1, protocol={"name": "label_fraction", "config": config})
    _, table = pivot(results, "Few labels ·")
    assert dict(zip(table["method"], table["4 per class"], strict=True)) == {
        "`rotnet (finetune) (distil=False)`": "30.00",
        "`rotnet (finetune) (distil=True)`": "40.00",
    }
