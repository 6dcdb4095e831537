"""The leaderboard: a markdown page that is computed from the records, and never typed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from bench.errors import BenchError
from bench.files import write_text
from bench.leaderboard.groups import Controls, Entry, group, part_controls
from bench.leaderboard.lectures import lectures
from bench.leaderboard.page import COMMAND, Content, render
from bench.leaderboard.pivots import pivots
from bench.leaderboard.profiles import sections
from bench.leaderboard.published import read_published
from bench.leaderboard.studies import studies
from bench.record import load_all
from bench.record.profiles import load as load_profiles

__all__ = ["build", "check", "page", "problems", "write"]


def build(results: Path, folder: Path | None = None) -> str:
    """The leaderboard as markdown; the same records give the same bytes.

    Args:
        results: the results folder, with `reference/published.csv` in it.
        folder: where the page will lie, for its links; by default beside `results`.

    Raises:
        BenchError: there is no such folder, or its published table is damaged.
    """
    return page(*_load(results), results, folder)


def page(
    entries: Iterable[Entry], left_out: Iterable[str], results: Path, folder: Path | None = None
) -> str:
    """The leaderboard of `entries`, in whatever order they come.

    Args:
        entries: records with their paths within `results`.
        left_out: a line on each file that could not be read.
        results: the results folder, for predictions and published numbers.
        folder: where the page will lie; by default beside `results`.
    """
    entries = list(entries)
    ranked, controls = _to_rank(entries)
    groups, repeats = group(ranked)
    published = read_published(results / "reference" / "published.csv")
    link = Path(os.path.relpath(results, folder or results.parent)).as_posix()
    measured, foreign = load_profiles(results)
    within = [(path.relative_to(results), profile) for path, profile in measured]
    problems = [*left_out, *repeats, *foreign]
    content = Content(
        groups,
        controls,
        studies(entries),
        pivots(entries),
        tuple(lectures(entries, published)),
        tuple(sections(within, link)),
        problems,
    )
    return render(content, published, results, link)


def write(results: Path, out: Path) -> None:
    """Write the leaderboard to `out`, with links that work from there."""
    write_text(out, build(results, out.parent))


def problems(results: Path) -> list[str]:
    """A line on each file under `results` that the leaderboard leaves out."""
    entries, unreadable = _load(results)
    return [*unreadable, *group(_to_rank(entries)[0])[1], *load_profiles(results)[1]]


def check(results: Path, file: Path) -> list[str]:
    """What is wrong with the leaderboard in `file`, a line each; empty when it is up to date."""
    try:
        found = file.read_bytes().decode(errors="replace")
    except OSError as error:
        return [f"{file}: {error.strerror}; run `{COMMAND}`"]
    wanted = build(results, file.parent)
    if found == wanted:
        return []
    lines = zip_longest(found.splitlines(True), wanted.splitlines(True))
    number, (is_now, should_be) = next(
        (number, pair) for number, pair in enumerate(lines, 1) if pair[0] != pair[1]
    )
    is_now, should_be = _excerpts(is_now or "", should_be or "")
    return [
        f"{file}:{number} was edited or is stale: it has {is_now!r} where the records give "
        f"{should_be!r}; run `{COMMAND}`"
    ]


def _to_rank(entries: Iterable[Entry]) -> tuple[list[Entry], Controls]:
    """The entries to rank, and their controls. Runs of changed settings are studied instead."""
    return part_controls(entry for entry in entries if not entry.record.method.changed)


def _load(results: Path) -> tuple[list[Entry], list[str]]:
    if not results.is_dir():
        raise BenchError(f"there is no results folder {results}; name the one that records are in")
    records, unreadable = load_all(results)
    return [Entry(path.relative_to(results), record) for path, record in records], unreadable


def _excerpts(one: str, other: str) -> tuple[str, str]:
    """What two lines have around the first character in which they differ."""
    apart = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, apart - 20)
    return one[start : start + 60], other[start : start + 60]
