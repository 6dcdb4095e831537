"""Rows of profiles by device: which are the newest, side by side, and all of them folded away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import quote

from bench.leaderboard.tables import markdown
from bench.record.profile import DataRow, LossRow, Profile, ProfileRow, StepRow
from bench.record.units import digits

NOT = "not measured"
GPU = "a GPU"

Row = TypeVar("Row", bound=ProfileRow)


@dataclass(frozen=True)
class Measured(Generic[Row]):
    """A row, and where it comes from."""

    row: Row
    profile: Profile
    path: Path  # within the results folder


Rows = Mapping[str, Sequence[Measured[Row]]]  # by device


def newest(
    profiles: Sequence[tuple[Path, Profile, Sequence[Row]]], subject: Callable[[Row], object]
) -> dict[str, list[Measured[Row]]]:
    """By device, the rows of each subject in the newest profile that has it."""
    found: dict[str, dict[object, list[Measured[Row]]]] = {}
    for path, profile, rows in profiles:
        device = found.setdefault(_device(profile), {})
        for topic in dict.fromkeys(map(subject, rows)):
            device[topic] = [Measured(r, profile, path) for r in rows if subject(r) == topic]
    return {
        device: [row for _, rows in sorted(topics.items(), key=_by_name) for row in rows]
        for device, topics in sorted(found.items())
        if topics
    }


def _by_name(item: tuple[object, object]) -> str:
    return str(item[0])


def beside(
    rows: Rows[Row],
    name: Callable[[Row], Mapping[str, str]],
    value: Callable[[Row], str],
    right: frozenset[str] = frozenset(),
) -> str:
    """A table with a column for each device, and one that says so where there is no GPU's."""
    columns: list[str] = list(rows)
    if all(some[0].profile.environment.device == "cpu" for some in rows.values()):
        columns.append(GPU)
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for device, some in rows.items():
        for each in some:
            what = name(each.row)
            line = lines.setdefault(tuple(what.values()), {**what, **dict.fromkeys(columns, NOT)})
            line[device] = value(each.row)
    return markdown([lines[key] for key in lines], right={*right, *columns})


def folded(device: str, rows: Sequence[Measured[Row]], body: str) -> str:
    """All of a device's rows behind one line, with what its rows are to be read with."""
    told: dict[str, dict[str, None]] = {}
    for each in rows:
        reason = each.row.reason or ""
        notes = () if reason.startswith(NOT) else each.row.notes
        for text in (*notes, *([reason] if reason else ())):
            told.setdefault(_inline(text), {})[_subject(each.row)] = None
    lines = "\n".join(f"- {', '.join(about)}: {text}" for text, about in told.items())
    roofs = "\n\n".join(dict.fromkeys(_roof(each.profile) for each in rows))
    parts = [f"<details><summary>{device}</summary>", roofs, body, lines, "</details>"]
    return "\n\n".join(part for part in parts if part)


def _subject(row: ProfileRow) -> str:
    if isinstance(row, StepRow):
        return f"`{row.method}` by {row.provider}"
    assert isinstance(row, LossRow | DataRow)
    return f"`{row.op}` by {row.provider}"


def _roof(profile: Profile) -> str:
    if profile.roof is None:
        return ""
    products = ", ".join(f"{k} {digits(v / 1e12)}" for k, v in profile.roof.flops.items())
    copied = digits(profile.roof.bytes_per_second / 1e9)
    return (
        f"Measured at most, {profile.created[:10]}: {products} TFLOP/s; {copied} GB/s copied; "
        f"torch {profile.environment.torch}."
    )


def record(each: Measured[Row], link: str) -> str:
    """A link to where a row comes from."""
    return f"[{each.profile.id[:6]}]({quote(f'{link}/{each.path.as_posix()}')})"


def _device(profile: Profile) -> str:
    here = profile.environment
    threads = f"{here.threads} thread{'s' * (here.threads > 1)}"
    return f"{here.cpu}, {threads}" if here.device == "cpu" else here.device


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")
