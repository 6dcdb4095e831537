"""The leaderboard: its statistics against scipy, its page against the records it was made from."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import statistics as stdlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import BenchError
from bench.leaderboard import build, check, page, problems, write
from bench.leaderboard.groups import Entry
from bench.leaderboard.published import COUNTERPARTS, PROTOCOLS, data_title, read_published
from bench.leaderboard.statistics import bootstrap_interval, half_width, ranks, separated
from bench.leaderboard.tables import duration
from bench.record import Record, load_all
from bench.record import write as store

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = REPOSITORY / "results" / "reference" / "published.csv"
KNN = {"name": "knn", "config": {"k": [20]}, "selection": {}}


@pytest.fixture(name="results")
def _results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "reference").mkdir(parents=True)
    shutil.copy(PUBLISHED, folder / "reference")
    return folder


@pytest.fixture(name="put")
def _put(results: Path, sample: Callable[..., Record]) -> Callable[..., Path]:
    """Store a sample record; with `correct` `[N]`, also predictions that are right there."""

    def put(*args: Any, correct: np.ndarray | None = None, **kwargs: Any) -> Path:
        predictions = None
        if correct is not None:
            label = np.arange(len(correct)) % 10
            predictions = np.where(correct, label, label + 1), label
        return store(results, sample(*args, **kwargs), predictions)

    return put


def tables(text: str) -> dict[str, pd.DataFrame]:
    """Every table of the page, by the heading or the bold line above it."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.setdefault(heading, []).append([cell.strip() for cell in cells])
        elif match := re.match(r"###? (.*)|\*\*(Beside.*)\*\*|<details><summary>([^<]*)", line):
            heading = next(filter(None, match.groups()))
    return {k: pd.DataFrame(rows[2:], columns=rows[0]) for k, rows in found.items()}


def results_of(text: str) -> pd.DataFrame:
    """The main table of a page with one group."""
    (found,) = (table for name, table in tables(text).items() if "@" in name)
    return found.set_index(found["method"].str.extract(r"`(.*)`")[0])


# -------------------------------------------------------------------------------------- statistics
@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_agrees_with_scipy(n):
    values = np.random.default_rng(n).normal(60, 2, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert half_width(pd.Series(values)) == pytest.approx((high - low) / 2, rel=1e-12)


def test_one_seed_has_no_interval():
    assert half_width(pd.Series([60.0])) is None


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(0)
    difference = rng.choice([-1, -1 / 3, 0, 1 / 3, 1], size=2_000, p=[0.1, 0.1, 0.5, 0.2, 0.1])
    theirs = stats.bootstrap(
        (difference,), np.mean, n_resamples=9_999, method="percentile", rng=rng, batch=500
    ).confidence_interval
    # Both are Monte Carlo: a quantile of 2,000 draws is good to about 0.06 standard errors.
    tolerance = 0.2 * difference.std() / np.sqrt(len(difference))
    assert bootstrap_interval(difference) == pytest.approx(tuple(theirs), abs=tolerance)


def test_bootstrap_covers_the_truth_about_95_times_in_a_hundred():
    rng = np.random.default_rng(1)
    bounds = [bootstrap_interval(rng.normal(0.3, 1, 400).round(1)) for _ in range(300)]
    covered = np.mean([low <= 0.3 <= high for low, high in bounds])
    assert 0.91 <= covered <= 0.985  # three standard errors of 300 trials


def test_separated_is_about_the_difference_not_the_scores():
    worse = np.zeros(1_000)
    worse[:12] = 1  # better on 12 pictures, worse on none: a paired test sees it
    assert separated(worse) and separated(-worse)
    swapped = np.zeros(1_000)
    swapped[:100], swapped[100:200] = 1, -1
    assert not separated(swapped)
    assert not separated(np.zeros(10))


def test_ranks_tie_with_the_first_of_a_rank_not_along_a_chain():
    scores = [60.0, 59.5, 59.0, 50.0, 49.9]
    assert ranks(5, lambda a, b: scores[a] - scores[b] < 0.8) == [1, 1, 3, 4, 4]
    assert ranks(0, lambda a, b: True) == []


# ------------------------------------------------------------------------------------- the numbers
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


# -------------------------------------------------------------------------------- groups and ranks
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
    found = [table for name, table in tables(build(results)).items() if "@" in name]
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
    found = {name: table for name, table in tables(build(results)).items() if "@" in name}
    assert len(found) == 2
    for table in found.values():
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


# --------------------------------------------------------------------------------------- published
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


# ---------------------------------------------------------------------------------------- the page
def test_no_records_is_a_valid_page(results):
    text = build(results)
    assert "There are no records yet" in text
    assert "bench leaderboard" in text
    assert tables(text) == {}


def test_a_missing_results_folder_is_an_error(tmp_path):
    with pytest.raises(BenchError, match="there is no results folder"):
        build(tmp_path / "resulst")


def test_malformed_files_are_named_on_the_page_and_to_the_user(results, put, tmp_path):
    put("rotnet", 0, 60.0)
    broken = put("rotnet", 1, 61.0)
    broken.write_text(broken.read_text()[:100])
    write(results, tmp_path / "leaderboard.md")
    lines = problems(results)
    assert [problem.split(":")[0] for problem in lines] == [f"linear/scenes/rotnet/{broken.name}"]
    text = (tmp_path / "leaderboard.md").read_text()
    assert lines[0].split(":")[0] in text.split("## Left out")[1]
    assert results_of(text).loc["rotnet", "top1 % ↑"] == "60.00 (n=1)"


def test_the_order_of_the_records_changes_nothing(results, put):
    for seed in range(3):
        for method in ("pixels", "random_init", "supervised", "rotnet", "simclr"):
            put(method, seed, 50.1 + seed / 3, correct=np.arange(50) < 25 + seed)
        put("rotnet", seed, 49.0, config={"angles": [0, 180]}, epochs=40)
    expected = build(results)
    entries = [Entry(path.relative_to(results), record) for path, record in load_all(results)[0]]
    for shuffle in range(5):
        random.Random(shuffle).shuffle(entries)
        assert page(entries, [], results) == expected


def test_locale_time_zone_and_hash_seed_change_nothing(results, put):
    for seed in range(2):
        put("rotnet", seed, 60.5 + seed, correct=np.arange(50) < 25 + seed)
        put("simclr", seed, 60.4 + seed, correct=np.arange(50) > 25 + seed)
    expected = build(results).encode()
    code = (
        "import locale, sys; from pathlib import Path\n"
        "try: locale.setlocale(locale.LC_ALL, '')\n"
        "except locale.Error: pass\n"
        "from bench.leaderboard import build\n"
        "sys.stdout.buffer.write(build(Path(sys.argv[1])).encode())"
    )
    available = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False)
    commas = [name for name in available.stdout.split() if name.startswith(("de_", "fr_"))]
    for name, zone, hashed in ((commas or ["C"])[0], "Asia/Tokyo", "1"), ("C", "UTC", "2"):
        environment = {**os.environ, "LC_ALL": name, "TZ": zone, "PYTHONHASHSEED": hashed}
        run = subprocess.run(
            [sys.executable, "-c", code, str(results)],
            capture_output=True,
            check=True,
            cwd=REPOSITORY,
            env=environment,
        )
        assert run.stdout == expected


def test_check_passes_what_write_wrote(results, put, tmp_path):
    put("rotnet", 0, 60.0)
    file = tmp_path / "docs" / "leaderboard.md"
    write(results, file)
    before = file.read_bytes()
    assert check(results, file) == []
    write(results, file)
    assert file.read_bytes() == before


def test_check_finds_an_edit_and_staleness(results, put, tmp_path):
    put("rotnet", 0, 60.0)
    file = tmp_path / "leaderboard.md"
    assert "bench leaderboard" in check(results, file)[0]  # missing
    write(results, file)
    text = file.read_text()
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "60.00 (n=1)" in row)
    file.write_text(text.replace("60.00 (n=1)", "90.00 (n=1)"))
    (problem,) = check(results, file)
    assert f"leaderboard.md:{line} " in problem
    assert "60.00" in problem and "90.00" in problem
    assert "run `bench leaderboard`" in problem
    assert "\n" not in problem
    for edited in (text.rstrip("\n"), text + "\n", text + "More.\n", text.replace("\n", "\r\n")):
        file.write_bytes(edited.encode())
        assert len(check(results, file)) == 1
    file.write_text(text)
    assert check(results, file) == []
    put("rotnet", 1, 61.0)
    (problem,) = check(results, file)
    assert "stale" in problem


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("scenes", "scenes"),
        ("cifar10", "cifar10"),
        ("cifar10_jpeg75", "cifar10_jpeg75: CIFAR-10 (JPEG q75 pictures)"),
    ],
)
def test_a_version_of_a_published_set_says_so_in_its_heading(name: str, title: str) -> None:
    assert data_title(name) == title
