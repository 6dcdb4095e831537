"""Settings studied: runs of one method that differ in its settings, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.leaderboard.groups import Entry, setting_of
from bench.leaderboard.statistics import half_width
from bench.leaderboard.tables import header, markdown
from bench.record import canonical

FIRST = "linear"  # the protocol that orders the rows, where it was run


@dataclass(frozen=True)
class Study:
    """The runs of one method on one backbone and budget, of which some have changed settings."""

    data: str
    title: str
    keys: tuple[str, ...]  # the settings that were changed in some run
    entries: tuple[Entry, ...]


def studies(entries: Iterable[Entry]) -> list[Study]:
    """The studies that the records hold, by data set and method."""
    found: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.path.as_posix()):
        record = entry.record
        own = record.pretraining
        place = (record.data.name, record.data.digest, record.backbone, record.method.name)
        version = (str(record.method.version), record.method.recipe, own.data_digest, own.precision)
        found[(*place, *version, f"{own.epochs:05}", f"{own.batch_size:05}")].append(entry)
    made = []
    for _, members in sorted(found.items()):
        keys = sorted({key for entry in members for key in entry.record.method.changed})
        if keys:
            made.append(
                Study(members[0].record.data.name, _title(members[0]), tuple(keys), tuple(members))
            )
    return made


def table(study: Study) -> str:
    """One row per combination of settings: what pretraining logged, then each protocol's metric."""
    by_settings: dict[str, list[Entry]] = defaultdict(list)
    for entry in study.entries:
        config = entry.record.method.config
        by_settings[canonical({key: config.get(key) for key in study.keys})].append(entry)
    rows = [(_sort_value(members), _row(study, members)) for members in by_settings.values()]
    logged = _shared_logs(study.entries)
    columns = {column for _, row in rows for column in row} - set(study.keys)
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    return markdown(ordered, right=columns | set(logged))


def _row(study: Study, members: Sequence[Entry]) -> dict[str, str]:
    record = members[0].record
    row = {key: _cell(record.method.config.get(key)) for key in study.keys}
    row["recipe"] = "" if record.method.changed else "yes"
    pretrained = {e.record.pretraining.id: e.record.log for e in members}
    for name in _shared_logs(study.entries):
        logged = [log[name] for log in pretrained.values() if name in log]
        row[name] = f"{sum(logged) / len(logged):.3g}" if logged else ""
    for protocol, values in _metrics(members).items():
        row[protocol] = _mean(values)
    statuses = sorted({e.record.status for e in members} - {"ok"})
    row["seeds"] = f"{len({e.record.seed for e in members})}"
    row["ended"] = ", ".join(statuses)
    return row


def _metrics(members: Iterable[Entry]) -> dict[str, pd.Series[float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for entry in members:
        setting, record = setting_of(entry.record), entry.record
        column = f"{setting.protocol}@{setting.protocol_version}: {header(record.metric)}"
        if record.metric.name in record.metrics:
            found[column][record.seed] = record.metrics[record.metric.name]
    order = sorted(found, key=lambda column: (not column.startswith(FIRST), column))
    return {column: pd.Series(list(found[column].values()), dtype="float64") for column in order}


def _sort_value(members: Sequence[Entry]) -> float:
    metrics = _metrics(members)
    return float(next(iter(metrics.values())).mean()) if metrics else float("-inf")


def _shared_logs(entries: Sequence[Entry]) -> list[str]:
    """What the runs logged, in its order; the loss only where there is nothing else to show."""
    names: Mapping[str, None] = dict.fromkeys(k for e in entries for k in e.record.log)
    telling = [name for name in names if not name.startswith("loss")]
    return telling or list(names)


def _mean(values: pd.Series[float]) -> str:
    half = half_width(values)
    return f"{values.mean():.2f}" + (f" ± {half:.2f}" if half is not None else "")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(entry: Entry) -> str:
    record = entry.record
    epochs = record.pretraining.epochs
    length = f"{epochs} epoch{'s' * (epochs != 1)} on {record.pretraining.pictures:,} pictures"
    return f"{record.method.name} · {record.backbone} · {length} of {record.pretraining.data}"
