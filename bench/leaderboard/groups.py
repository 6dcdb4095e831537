"""Which results may stand in one table: same data, protocol, backbone and pretraining budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bench.record import MetricRecord, Record, canonical

Role = Literal["floor", "baseline", "ceiling"]
REFERENCES: Mapping[str, Role] = {
    "pixels": "floor",
    "random_init": "floor",
    "pca": "baseline",
    "krahenbuhl_init": "baseline",
    "supervised": "ceiling",
}
NO_BACKBONE = ("pixels", "pca")
FIRST = "linear"  # the protocol that orders tables over several, where it was run


class Entry(NamedTuple):
    """A record, and its file's path within the results folder."""

    path: Path
    record: Record


@dataclass(frozen=True)
class Row:
    """One method in one configuration: an entry per seed, by seed."""

    label: str
    role: Role | None
    entries: tuple[Entry, ...]

    @property
    def ok(self) -> tuple[Entry, ...]:
        """The entries whose run ended well."""
        return tuple(entry for entry in self.entries if entry.record.status == "ok")

    @property
    def ranked(self) -> bool:
        """Whether it competes; the surviving seeds of a method that failed on others do not."""
        return self.role is None and len(self.ok) == len(self.entries)


class Setting(NamedTuple):
    """What is measured, how, and on which backbone."""

    data: str
    data_digest: str
    protocol: str
    protocol_version: int
    protocol_config: str  # canonical JSON
    backbone: str


Controls = Mapping[tuple[Setting, str], Sequence[Entry]]


class Budget(NamedTuple):
    """What pretraining may use."""

    data: str
    data_digest: str
    split: str
    pictures: int
    epochs: int


@dataclass(frozen=True)
class Group:
    """Rows that may be compared. `budget` is None where there are references only."""

    setting: Setting
    budget: Budget | None
    rows: tuple[Row, ...]

    @property
    def any_record(self) -> Record:
        """A record of the group, for what all of them share."""
        return self.rows[0].entries[0].record

    @property
    def metric(self) -> MetricRecord:
        """The metric of every row."""
        return self.any_record.metric


def role_of(record: Record) -> Role | None:
    """Floor, baseline (fitted, not trained), ceiling, or None for a method that competes."""
    role = REFERENCES.get(record.method.name)
    if role == "ceiling" and record.pretraining.data != record.data.name:
        return None  # labels of other data are no ceiling here
    return role


def setting_of(record: Record) -> Setting:
    """The setting that a record was measured in."""
    data, protocol = record.data, record.protocol
    config = canonical(protocol.config)
    return Setting(data.name, data.digest, protocol.name, protocol.version, config, record.backbone)


def group(entries: Iterable[Entry]) -> tuple[list[Group], list[str]]:
    """Sort entries into groups; also a line on each entry that is left out.

    Methods share a group when setting and budget are the same. The supervised ceiling trains for
    as long as it needs and random initialisation and fitted baselines not at all, so they join
    every group of their setting; pixels and PCA see no backbone, so they join every backbone's.
    """
    entries = sorted(entries, key=lambda entry: entry.path.as_posix())
    references = [entry for entry in entries if role_of(entry.record)]
    groups: dict[tuple[Setting, Budget | None], list[Entry]] = {}
    for entry in entries:
        if role_of(entry.record) is None:
            place = setting_of(entry.record), Budget(*_budget(entry.record))
            groups.setdefault(place, []).append(entry)
    # A reference with no group to join opens one; those without a backbone join the most.
    for entry in sorted(references, key=lambda entry: entry.record.method.name in NO_BACKBONE):
        if not any(_joins(entry.record, setting) for setting, _ in groups):
            groups[setting_of(entry.record), None] = []
    built: list[Group] = []
    left_out: set[str] = set()
    for (setting, budget), members in sorted(groups.items(), key=lambda item: _order(item[0])):
        joined = [entry for entry in references if _joins(entry.record, setting)]
        rows, repeats = _rows([*members, *joined])
        built.append(Group(setting, budget, rows))
        left_out.update(repeats)
    return built, sorted(left_out)


def length(epochs: int, pictures: int, data: str) -> str:
    """How much pretraining saw, in words."""
    return f"{epochs} epoch{'s' * (epochs != 1)} on {pictures:,} pictures of {data}"


def part_controls(entries: Iterable[Entry]) -> tuple[list[Entry], Controls]:
    """Part entries into those to rank and, by setting and method, encoders before their training.

    A method that is run for no epochs shows what its encoder's inputs alone are worth. Where it was
    trained in the same setting too, that is a control of the trained row, and no row of its own.
    """
    entries = list(entries)

    def place(entry: Entry) -> tuple[Setting, str]:
        return setting_of(entry.record), entry.record.method.name

    trained = {place(entry) for entry in entries if entry.record.pretraining.epochs}
    ranked: list[Entry] = []
    controls: dict[tuple[Setting, str], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        if record.pretraining.epochs or role_of(record) or place(entry) not in trained:
            ranked.append(entry)
        else:
            controls.setdefault(place(entry), []).append(entry)
    return ranked, controls


def differences(configs: Sequence[Mapping[str, object]]) -> list[str]:
    """What sets each configuration apart from the others, as "key=value; key=value"."""
    keys = sorted({key for config in configs for key in config})
    varying = [key for key in keys if len({canonical(c.get(key)) for c in configs}) > 1]
    return ["; ".join(f"{k}={_short(c[k])}" for k in varying if k in c) for c in configs]


def flatten(config: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of a nested configuration, with dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _budget(record: Record) -> tuple[str, str, str, int, int]:
    p = record.pretraining
    return p.data, p.data_digest, p.split, p.pictures, p.epochs


def _joins(record: Record, setting: Setting) -> bool:
    own = setting_of(record)
    return own == (
        setting._replace(backbone=own.backbone) if record.method.name in NO_BACKBONE else setting
    )


def _order(place: tuple[Setting, Budget | None]) -> tuple[Setting, bool, Budget | tuple[()]]:
    setting, budget = place
    return setting, budget is None, budget or ()


def _rows(entries: Iterable[Entry]) -> tuple[tuple[Row, ...], list[str]]:
    """One row per distinct configuration, and a line on each seed that came twice."""
    configurations: dict[str, list[Entry]] = {}
    for entry in entries:
        record = entry.record
        key = canonical((record.method.name, _budget(record), _configuration(record)))
        configurations.setdefault(key, []).append(entry)
    members: list[tuple[Entry, ...]] = []
    repeats: list[str] = []
    for _, found in sorted(configurations.items()):
        # Counting a seed twice would feign certainty: the first good account of it counts.
        by_age = sorted(found, key=lambda e: (e.record.status != "ok", e.record.created, e.path))
        seeds: dict[int, Entry] = {}
        for entry in by_age:
            kept = seeds.setdefault(entry.record.seed, entry)
            if kept is not entry and kept.record.run_id != entry.record.run_id:
                repeats.append(
                    f"{entry.path.as_posix()}: seed {entry.record.seed} of this configuration "
                    f"is already counted from {kept.path.as_posix()}"
                )
        members.append(tuple(seeds[seed] for seed in sorted(seeds)))
    labels = _labels([row[0].record for row in members])
    return tuple(
        Row(label, role_of(row[0].record), row) for label, row in zip(labels, members, strict=True)
    ), repeats


def _labels(records: Sequence[Record]) -> list[str]:
    """A name for each row: the method's, with what sets apart two rows of the same method."""
    labels = []
    for record in records:
        same = [other for other in records if other.method.name == record.method.name]
        apart = differences([_configuration(other) for other in same])[same.index(record)]
        if role_of(record) == "ceiling" and "epochs=" not in apart:
            apart = "; ".join(filter(None, [f"epochs={record.pretraining.epochs}", apart]))
        labels.append(f"{record.method.name} ({apart})" if apart else record.method.name)
    return labels


def _configuration(record: Record) -> dict[str, object]:
    """All that two rows of one method may differ in."""
    source = record.method.source_sha256
    return {
        **dict(flatten(record.method.config)),
        "version": record.method.version,
        "precision": record.pretraining.precision,
        "pictures": record.pretraining.pictures,
        "device": record.environment.device,  # a mean over machines would be the cost of neither
        **({"source": source[:8]} if source else {}),
    }


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_short(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
