"""All protocols side by side: one table per data set, backbone and pretraining budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import mean

from bench.leaderboard.groups import FIRST, Budget, Controls, Entry, Group, length
from bench.leaderboard.ranking import Place
from bench.leaderboard.tables import best_layer, cost_of, duration, header, markdown, name, score
from bench.record import number

UNTRAINED = "untrained"
TEXT = {"", "method", "best layer"}  # columns of words

Placed = tuple[Group, Sequence[Place]]


def overviews(placed: Sequence[Placed], controls: Controls) -> Iterator[tuple[str, str]]:
    """(heading, table) for each backbone and budget of one data set with several protocols.

    Args:
        placed: the groups of one data set with their rows in order.
        controls: encoders before their training.
    """

    def shared(item: Placed) -> tuple[str, str, bool, Budget | tuple[()]]:
        group = item[0]
        return (
            group.setting.data_digest,
            group.setting.backbone,
            group.budget is None,
            group.budget or (),
        )

    for _, found in groupby(sorted(placed, key=shared), key=shared):
        # A protocol in several configurations is shown in the one that most rows were measured in.
        fullest = sorted(found, key=lambda item: -len(item[1]))
        chosen = {_protocol(item[0]): item for item in reversed(fullest)}
        members = sorted(chosen.values(), key=lambda item: _order(item[0]))
        if len(members) > 1:
            yield _heading(members[0][0]), _table(members, controls)


def _table(members: Sequence[Placed], controls: Controls) -> str:
    rows: dict[str, dict[str, str]] = {}
    cost: dict[str, str] = {}
    for group, places in members:
        column = f"{_protocol(group)}: {header(group.metric)}"
        for place in places:
            role, label = place.row.role, place.row.label
            row = rows.setdefault(label, {"": f"*{role}*" if role else "", "method": name(place)})
            row[column] = score(place)
            method = place.row.entries[0].record.method.name
            if before := controls.get((group.setting, method)):
                row[f"{UNTRAINED} {group.setting.protocol}"] = _mean(before)
            if layer := best_layer(place.row):
                row["best layer"] = layer
            cost[label] = duration(cost_of(place.row, lambda cost: cost.pretrain_seconds))
    columns = dict.fromkeys(key for row in rows.values() for key in row)
    last = sorted(columns, key=lambda key: key.startswith(UNTRAINED))
    cells = [
        {**{key: row.get(key, "") for key in last}, "pretraining": cost[label]}
        for label, row in rows.items()
    ]
    return markdown(cells, right={key for row in cells for key in row} - TEXT)


def _mean(entries: Sequence[Entry]) -> str:
    records = [entry.record for entry in entries if entry.record.status in ("ok", "collapsed")]
    return number(mean(r.metrics[r.metric.name] for r in records)) if records else ""


def _protocol(group: Group) -> str:
    return f"{group.setting.protocol}@{group.setting.protocol_version}"


def _order(group: Group) -> tuple[bool, str]:
    return group.setting.protocol != FIRST, _protocol(group)


def _heading(group: Group) -> str:
    return "At a glance · " + " · ".join([group.setting.backbone, *seen(group)])


def seen(group: Group) -> list[str]:
    """What pretraining saw, in words; nothing where there are references only."""
    if group.budget is None:
        return []
    budget = group.budget
    if not budget.epochs:
        return ["not trained here"]
    return [length(budget.epochs, budget.pictures, budget.data)]
