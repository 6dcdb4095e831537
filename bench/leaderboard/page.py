"""The whole page: how to read it, then one section per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from bench.leaderboard.groups import REFERENCES, Controls, Group, differences, flatten
from bench.leaderboard.likeness import likeness
from bench.leaderboard.overview import overviews, seen
from bench.leaderboard.pivots import Pivot
from bench.leaderboard.published import data_title
from bench.leaderboard.ranking import Place, places
from bench.leaderboard.statistics import LEVEL, RESAMPLES
from bench.leaderboard.studies import Study, table
from bench.leaderboard.tables import (
    UNPAIRED,
    layers_table,
    published_table,
    results_table,
    status,
)

COMMAND = "bench leaderboard"
INTRODUCTION = f"""\
# Leaderboard

Computed by `{COMMAND}` from [the records]({{link}}); never edited by hand.

- **One table is one comparison:** the same data, protocol, backbone and pretraining budget.
  Numbers of different tables are not ranked against each other.
- **Numbers** are means over n seeds ± half the {LEVEL:.0%} interval of Student's t, on test
  pictures that no choice was made on. Every seed links to its record.
- **Ranks** are shared where a paired bootstrap over the test pictures ({RESAMPLES:,} resamples,
  {LEVEL:.0%}) cannot tell a row from the first of its rank. A row with a seed that did not end
  well is shown, and not ranked.
- ***floor*** (raw pixels, an untrained network) and ***ceiling*** (training with all labels, for
  as long as that takes) say how much there is to win; a ***baseline*** is fitted to the pictures
  without training.
- **untrained** is the same encoder before its first step: what its inputs alone are worth where
  they are not whole RGB pictures (gradients, lightness, patches). For all others it is the
  `random_init` of the table.
- **Settings studied** holds the runs whose settings are not their recipe's. They are not ranked:
  taking the best of many would be choosing on test.
"""

LECTURES = """\
The tables that lectures show, as published, with the numbers of these records beside them. Ours
are of other pictures, a smaller network and a fraction of the training: differences mean nothing,
and it is the order that can be held against the paper's (Spearman, where four rows or more are
shared). Published rows that were selected on test are in the reference table with a note."""


@dataclass(frozen=True)
class Content:
    """What the page shows, in order."""

    groups: Sequence[Group]
    controls: Controls  # encoders before their training
    studies: Sequence[Study]
    pivots: Sequence[Pivot]
    lectures: Sequence[tuple[str, str]]  # title and table
    profiles: Sequence[tuple[str, Sequence[str]]]  # title and blocks
    problems: Sequence[str]  # a line on each file that was left out


def render(content: Content, published: pd.DataFrame, results: Path, link: str) -> str:
    """The page as markdown.

    Args:
        content: what to show.
        published: the published table, or an empty one.
        results: the results folder, for the predictions.
        link: the same folder, seen from the page.
    """
    groups = content.groups
    blocks = [INTRODUCTION.format(link=quote(link)).rstrip()]
    if not groups:
        blocks.append("There are no records yet: `bench run` writes them.")
    ranked = [places(group, results) for group in groups]
    sections = list(zip(groups, _titles(groups), ranked, strict=True))
    names = {group.setting.data for group in groups} | {study.data for study in content.studies}
    for data in sorted(names):
        members = [section for section in sections if section[0].setting.data == data]
        blocks.append(f"## {data_title(data)}")
        placed = [(group, ordered) for group, _, ordered in members]
        for title, glance in overviews(placed, content.controls):
            blocks += [f"### {title}", glance]
        blocks += _pivots(content, data)
        for group, title, ordered in members:
            blocks.append(f"### {title}")
            blocks.extend(_section(group, ordered, published, results, link))
        for study in content.studies:
            if study.data == data:
                blocks += [f"### Settings studied: {study.title}", table(study)]
    if across := _pivots(content, ""):
        blocks += ["## Across data sets", *across]
    if content.lectures:
        blocks += ["## Lecture tables", LECTURES]
        blocks += [block for title, body in content.lectures for block in (f"### {title}", body)]
    for title, body in content.profiles:
        blocks += [f"## {title}", *body]
    if content.problems:
        blocks.append("## Left out")
        blocks.append("\n".join(f"- {_inline(problem)}" for problem in content.problems))
    return "\n\n".join(blocks) + "\n"


def _pivots(content: Content, data: str) -> list[str]:
    shown = [pivot for pivot in content.pivots if pivot.data == data]
    return [block for pivot in shown for block in (f"### {pivot.title}", pivot.body)]


def _section(
    group: Group, ordered: Sequence[Place], published: pd.DataFrame, results: Path, link: str
) -> Iterator[str]:
    test = group.any_record.data.splits.get("test")
    size = f"{test.size:,} test pictures, data" if test else "Data"
    yield f"{size} digest `{group.setting.data_digest}`."
    yield results_table(ordered, link)
    yield from _footnotes(ordered)
    if layers := layers_table(ordered):
        name = group.metric.name
        yield f"<details><summary>{name} by layer</summary>\n\n{layers}\n\n</details>"
    for title, alike in likeness(group, results):
        yield f"**{title}** of every two methods"
        yield alike
    if beside := published_table(ordered, published):
        yield "**Beside published numbers**"
        yield beside


def _footnotes(ordered: Sequence[Place]) -> Iterator[str]:
    present = {entry.record.method.name for place in ordered for entry in place.row.entries}
    if missing := [
        f"`{name}` ({role})"
        for name, role in REFERENCES.items()
        if role != "baseline" and name not in present
    ]:
        yield f"Not measured here yet: {', '.join(missing)}."
    if any(place.rank and not place.paired for place in ordered):
        yield (
            f"{UNPAIRED} Without predictions to pair, rows share a rank while their intervals "
            "overlap; one seed has no interval, so it ties."
        )
    reasons = [
        f"- `{place.row.label}` seed {entry.record.seed}, {entry.record.status}: "
        f"{_inline(entry.record.message)}"
        for place in ordered
        if status(place.row)
        for entry in place.row.entries
        if entry.record.message
    ]
    if reasons:
        yield "\n".join(reasons)


def _titles(groups: Sequence[Group]) -> list[str]:
    """Headings within a data set; digests only where they alone tell two groups apart."""
    titles = [_title(group, groups) for group in groups]
    often = Counter(zip((group.setting.data for group in groups), titles, strict=True))
    return [
        f"{title} · {_digests(group)}" if often[group.setting.data, title] > 1 else title
        for group, title in zip(groups, titles, strict=True)
    ]


def _title(group: Group, groups: Sequence[Group]) -> str:
    setting = group.setting
    protocol = f"{setting.protocol}@{setting.protocol_version}"
    configs = {
        other.setting.protocol_config: dict(flatten(other.any_record.protocol.config))
        for other in groups
        if other.setting[2:4] == setting[2:4]
    }
    apart = dict(zip(configs, differences(list(configs.values())), strict=True))
    if apart[setting.protocol_config]:
        protocol += f" ({apart[setting.protocol_config]})"
    return " · ".join([protocol, setting.backbone, *seen(group)])


def _digests(group: Group) -> str:
    budget = group.budget
    pretraining = f", {budget.split} {budget.data_digest}" if budget else ""
    return f"data {group.setting.data_digest}{pretraining}"


def _inline(text: str | None) -> str:
    """Text from outside on one line, harmless to the page's layout."""
    return " ".join((text or "").split()).replace("<", "&lt;").replace("|", "\\|")
