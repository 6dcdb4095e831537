"""Published numbers beside measured ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pages import tables

from bench.errors import BenchError
from bench.leaderboard import build
from bench.leaderboard.published import COUNTERPARTS, PROTOCOLS, read_published

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = REPOSITORY / "results" / "reference" / "published.csv"


def beside(text: str) -> pd.Series:
    """The only line of the only published table."""
    return tables(text)["Beside published numbers"].set_index("method").iloc[0]


def publish(results: Path, **change: str) -> None:
    """Make the published table one row, on which `put_simclr` is comparable."""
    row = {
        "method": "Sim CLR",
        "backbone": "ResNet-18",
        "pretrain_data": "CIFAR-10 train",
        "protocol": "linear",
        "dataset": "CIFAR-10",
        "metric": "top1",
        "value": "91",
        "source": "a paper",
        "variant": "epochs=20",
        "label_fraction": "100%",
        "status": "repository",
        "note": "",
    }
    pd.DataFrame([row | change]).to_csv(results / "reference" / "published.csv", index=False)


def put_simclr(put: Callable[..., Path], **change: Any) -> None:
    """Store a record of SimCLR on all of CIFAR-10."""
    split = {"digest": "a" * 16, "size": 49_000}
    parts = {"pretraining": {"pictures": 50_000}, "data": {"splits": {"train": split}}}
    given = {"data": "cifar10", "backbone": "resnet18", **change}
    parts |= given.pop("parts", {})
    put("simclr", 0, 90.5, **given, parts=parts)


def test_published_numbers_stand_beside_measured_ones(results, put):
    put("rotnet", 0, 80.0, data="cifar10-jpeg75", backbone="small")
    put("rotnet", 1, 82.0, data="cifar10-jpeg75", backbone="small")
    found = beside(build(results))
    assert found["paper"] == "89.06"
    assert found["measured"] == "81.00"
    assert found["difference"] == "-8.06"
    assert found["comparable?"] == (
        "no: JPEG q75 pictures, 10,000 of 50,000 training pictures, small backbone, "
        "linear not non-linear head"
    )
    assert "1803.07728" in found["source"]


@pytest.mark.parametrize(
    ("angles", "paper"),
    [
        ([0, 90, 180, 270], "89.06"),
        ([0, 45, 90, 135, 180, 225, 270, 315], "88.51"),
        ([0, 180], "87.46"),
        ([90, 270], "85.52"),
    ],
)
def test_each_set_of_angles_has_its_own_published_number(results, put, angles, paper):
    put("rotnet", 0, 80.0, data="cifar10", backbone="nin4", config={"angles": angles})
    assert beside(build(results))["paper"] == paper


def test_the_published_number_of_the_same_backbone_is_preferred(results, put):
    put("rotnet", 0, 80.0, data="cifar10", backbone="nin3")
    found = beside(build(results))
    assert found["paper"] == "85.45"
    assert "backbone" not in found["comparable?"]


def test_settings_that_the_number_was_published_for_are_no_deviation(results, put):
    told = ["angles = 0,180 (paper: 0,90,180,270)", "epochs = 20 (paper: 200)"]
    parts = {"method": {"deviations": told}}
    put("rotnet", 0, 80.0, data="cifar10", config={"angles": [0, 180]}, parts=parts)
    reasons = beside(build(results))["comparable?"]
    assert "epochs = 20" in reasons and "angles" not in reasons


def test_angles_that_nobody_published_have_no_counterpart(results, put):
    put("rotnet", 0, 80.0, data="cifar10", config={"angles": [0, 90]})
    put("rotnet", 0, 80.0, data="scenes")
    assert "Beside" not in build(results)


@pytest.mark.parametrize(
    ("change", "published", "reason"),
    [
        ({}, {}, ""),
        ({"backbone": "small"}, {}, "small backbone"),
        ({"epochs": 10}, {}, "10 epochs"),
        ({}, {"variant": "30 ep, bs 512"}, "20 epochs"),
        (
            {"pretraining": {"pictures": 45_000}},
            {},
            "45,000 of 50,000 training pictures",
        ),
        ({"data": "cifar10-blurred"}, {}, "`cifar10-blurred` pictures"),
        ({"parts": {"method": {"recipe": "small"}}}, {}, "`small` recipe"),
        ({"parts": {"method": {"deviations": ["lr = 1 (paper: 2)"]}}}, {}, "lr = 1 (paper: 2)"),
        ({}, {"protocol": "linear_online"}, "frozen probe not one trained along"),
        ({}, {"note": "(selection bias)"}, "published one selected on test"),
    ],
)
def test_comparable_only_if_everything_is_the_same(results, put, change, published, reason):
    publish(results, **published)
    put_simclr(put, **change)
    found = beside(build(results))
    assert found["comparable?"] == (f"no: {reason}" if reason else "**yes**")
    assert (found["paper"], found["difference"]) == ("91.00", "-0.50")


@pytest.mark.parametrize(
    "published",
    [
        {"method": "SimSiam"},
        {"dataset": "CIFAR-100"},
        {"metric": "top5"},
        {"label_fraction": "10%"},
        {"pretrain_data": "ImageNet-1k"},
        {"protocol": "finetune"},
        {"value": "about 91"},
    ],
)
def test_what_does_not_correspond_is_not_shown(results, put, published):
    publish(results, **published)
    put_simclr(put)
    assert "Beside" not in build(results)


def test_conflicting_sources_are_flagged(results, put):
    publish(results, status="lecture+conflict")
    put_simclr(put)
    assert beside(build(results))["paper"] == "91.00 (sources conflict)"


def test_the_mapping_names_only_what_the_published_table_has():
    table = read_published(PUBLISHED)
    assert {c.theirs for c in COUNTERPARTS} <= set(table["method"])
    assert {theirs for ours in PROTOCOLS.values() for theirs in ours} <= set(table["protocol"])


def test_a_damaged_published_table_is_named(results, put):
    (results / "reference" / "published.csv").write_text("a,b\n1,2\n")
    put("rotnet", 0, 60.0)
    with pytest.raises(BenchError, match=r"published.csv lacks the column"):
        build(results)
    (results / "reference" / "published.csv").unlink()
    assert "Beside" not in build(results)
