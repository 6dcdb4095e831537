"""The whole page: valid, reproducible, checked against the records."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import results_of, tables

from bench.errors import BenchError
from bench.leaderboard import build, check, page, problems, write
from bench.leaderboard.groups import Entry
from bench.leaderboard.published import data_title
from bench.record import load_all

REPOSITORY = Path(__file__).parents[2]


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
