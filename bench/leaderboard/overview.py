"""All protocols side by side: one table per data set, backbone and pretraining budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import mean

from bench.leaderboard.groups import (
    FIRST,
    Budget,
    Controls,
    Entry,
    Group,
    differences,
    flatten,
    length,
)
from bench.leaderboard.ranking import Place
from bench.leaderboard.tables import best_layer, cost_of, duration, header, markdown, name, score
from bench.record import number

UNTRAINED = "untrained"
TEXT = {"", "method", "best layer"}  # columns of words
# Protocols by what they ask, a table each; one that is named in none stands with the first.
FAMILIES = {
    "frozen features": ("linear", "knn", "logreg", "layers", "nonlinear", "fewshot", "zeroshot"),
    "trained on": ("finetune", "classifier"),
    "other tasks": ("voc_classification", "voc_detection", "light_detection", "voc_segmentation"),
    "trust": ("calibration", "robustness"),
    "looking inside": ("neighbors", "rdm", "cka", "tsne", "filters", "units"),
}
ELSEWHERE = ("label_fraction",)  # its configurations stand side by side in a table of their own

Placed = tuple[Group, Sequence[Place]]


def overviews(placed: Sequence[Placed], controls: Controls) -> Iterator[tuple[str, str]]:
    """(heading, table) for each backbone, budget and family of protocols with several of them.

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
        every = [item for item in found if item[0].setting.protocol not in ELSEWHERE]
        for family in FAMILIES:
            members = [item for item in every if _family(item[0]) == family]
            members.sort(key=lambda item: _order(item[0]))
            if len(members) > 1:
                yield _heading(members[0][0], family), _table(members, controls)


def _family(group: Group) -> str:
    name = group.setting.protocol
    found = (family for family, names in FAMILIES.items() if name in names)
    return next(found, next(iter(FAMILIES)))


def _columns(members: Sequence[Placed]) -> list[str]:
    """A heading for each group; what sets two of one protocol apart is in it."""
    headings = []
    for group, _ in members:
        name = _protocol(group)
        same = [other for other, _ in members if _protocol(other) == name]
        configs = [dict(flatten(other.any_record.protocol.config)) for other in same]
        detail = differences(configs)[same.index(group)]
        apart = f" ({detail})" if detail else ""
        headings.append(f"{name}{apart}: {header(group.metric)}")
    return headings


def _table(members: Sequence[Placed], controls: Controls) -> str:
    rows: dict[str, dict[str, str]] = {}
    cost: dict[str, str] = {}
    for (group, places), column in zip(members, _columns(members), strict=True):
        for place in places:
            role, label = place.row.role, place.row.label
            row = rows.setdefault(label, {"": f"*{role}*" if role else "", "method": name(place)})
            row[column] = score(place)
            method = place.row.entries[0].record.method.name
            if before := controls.get((group.setting, method)):
                row[f"{UNTRAINED} {group.setting.protocol}"] = _mean(before)
            if group.setting.protocol == FIRST and (layer := best_layer(place.row)):
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


def _order(group: Group) -> tuple[int, str]:
    names = FAMILIES[_family(group)]
    name = group.setting.protocol
    return names.index(name) if name in names else len(names), _protocol(group)


def _heading(group: Group, family: str) -> str:
    return " · ".join([f"At a glance: {family}", group.setting.backbone, *seen(group)])


def seen(group: Group) -> list[str]:
    """What pretraining saw, in words; nothing where there are references only."""
    if group.budget is None:
        return []
    budget = group.budget
    if not budget.epochs:
        return ["not trained here"]
    return [length(budget.epochs, budget.pictures, budget.data)]
