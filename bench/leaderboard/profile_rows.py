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
    profiles: Sequence[tuple[Path, Profile, Sequence[Row]]],
    subject: Callable[[Measured[Row]], tuple[object, ...]],
) -> dict[str, list[Measured[Row]]]:
    """By device, the rows of each subject in the newest profile that has it.

    A profile that was cut off shows only what no complete one has.
    """
    found: dict[str, dict[tuple[object, ...], list[Measured[Row]]]] = {}
    for path, profile, rows in sorted(profiles, key=lambda each: each[1].complete):
        topics: dict[tuple[object, ...], list[Measured[Row]]] = {}
        for each in (Measured(row, profile, path) for row in rows):
            topics.setdefault(subject(each), []).append(each)
        if topics:
            found.setdefault(_device(profile), {}).update(topics)
    return {
        device: [each for topic in sorted(topics, key=_in_order) for each in topics[topic]]
        for device, topics in sorted(found.items())
    }


def _in_order(subject: tuple[object, ...]) -> list[str]:
    """A key by which numbers are sorted as numbers."""
    return [f"{part:>15}" if isinstance(part, int) else str(part or "") for part in subject]


def settings(profile: Profile) -> str:
    """What was asked for of a step beyond what its row has: `--limit`, `--set` and the like."""
    asked = profile.settings
    usual = {"recipe": "auto", "kernels": "auto", "limit": None}
    told = [f"{key} {asked[key]}" for key, value in usual.items() if asked.get(key, value) != value]
    changed = asked.get("set")
    return ", ".join([*told, *(map(str, changed) if isinstance(changed, list) else ())])


def beside(
    rows: Rows[Row],
    name: Callable[[Measured[Row]], Mapping[str, str]],
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
            what = name(each)
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
    versions = {"torch": profile.environment.torch, **profile.packages}
    return (
        f"Measured at most, {profile.created[:10]}: {products} TFLOP/s; {copied} GB/s copied; "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + "."
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
