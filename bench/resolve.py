"""From what a user typed to one frozen, validated configuration tree.

A misspelt key is an error with a suggestion; nothing is decided later than here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench import registry
from bench.api import Config, Method, MethodConfig, Protocol, Untrained
from bench.data.dataset import DataOptions
from bench.engine import EngineConfig
from bench.errors import BenchError, unknown

SMALL = 64  # pictures up to this side take a method's "small" recipe unless told otherwise
SECTIONS = ("method", "protocol", "backbone", "engine", "data")
BUDGET = frozenset({"epochs", "batch_size"})  # settings that every trained method has

Overrides = dict[str, dict[str, Any]]  # section -> key -> value

C = TypeVar("C", bound=BaseModel)


@dataclass(frozen=True)
class Resolved:
    """One run, fully decided."""

    method_name: str
    method: type[Method]
    method_cfg: MethodConfig
    recipe: str
    protocol_name: str
    protocol: type[Protocol]
    protocol_cfg: Config
    backbone: str
    backbone_options: Mapping[str, Any]
    engine: EngineConfig
    data: str
    data_options: Mapping[str, Any]
    seed: int

    @property
    def needs(self) -> frozenset[str]:
        """What the method needs with these settings."""
        return self.method.needs_of(self.method_cfg)

    @property
    def sees_labels(self) -> bool:
        """Whether training sees labels, or captions, which name classes: not those of val then."""
        return bool(self.needs & {"labels", "labeled", "text"})

    def changed(self) -> dict[str, Any]:
        """The method's settings, but for the epochs, that are not what its recipe says.

        Weights from elsewhere are no changed setting: each file is a method of its own.
        """
        if "pretrained" in self.needs:
            return {}
        plain = method_config(self.method, self.method_name, self.recipe, {})
        config = self.method_cfg.model_dump(mode="json")
        return {
            key: value
            for key, value in config.items()
            if key != "epochs" and value != plain.model_dump(mode="json")[key]
        }

    def tree(self) -> dict[str, Any]:
        """The configuration as plain data, for `--dry-run` and for identities."""
        return {
            "method": {
                "name": self.method_name,
                "version": self.method.version,
                "recipe": self.recipe,
                "config": self.method_cfg.model_dump(mode="json"),
            },
            "protocol": {
                "name": self.protocol_name,
                "version": self.protocol.version,
                "config": self.protocol_cfg.model_dump(mode="json"),
            },
            "backbone": {"name": self.backbone, "options": dict(self.backbone_options)},
            "engine": self.engine.model_dump(mode="json"),
            "data": self.data,
            "data_options": dict(self.data_options),
            "seed": self.seed,
        }


def resolve(
    *,
    method: str,
    protocol: str,
    data: str,
    size: int,
    backbone: str | None,
    seed: int,
    recipe: str,
    overrides: Overrides,
) -> Resolved:
    """Decide everything about one run on pictures stored at `size` pixels.

    Without a `backbone` it is the method's own default.

    Raises:
        BenchError: an unknown name or key, with suggestions, or an invalid value.
    """
    cls, protocol_cls = registry.method(method), registry.protocol(protocol)
    name, protocol_name = registry.plain_name(method), registry.plain_name(protocol)
    recipe = pick_recipe(recipe, cls, name, size)
    return Resolved(
        method_name=name,
        method=cls,
        method_cfg=method_config(cls, name, recipe, overrides["method"]),
        recipe=recipe,
        protocol_name=protocol_name,
        protocol=protocol_cls,
        protocol_cfg=validated(
            protocol_cls.Config, overrides["protocol"], f"protocol {protocol_name}"
        ),
        backbone=backbone or cls.default_backbone,
        backbone_options=overrides["backbone"],
        engine=validated(EngineConfig, overrides["engine"], "the engine").resolved(),
        data=data,
        data_options={
            key: str(value) if isinstance(value, Path) else value
            for key, value in overrides["data"].items()
            if value is not None
        },
        seed=seed,
    )


def data_options(values: Mapping[str, Any]) -> DataOptions:
    """How to read the data.

    Raises:
        BenchError: an unknown key.
    """
    known = [field.name for field in fields(DataOptions) if field.name != "log"]
    for key in values:
        if key not in known:
            raise unknown("setting of the data", key, known)
    root = values.get("root")
    return DataOptions(**{**values, "root": Path(root) if root else None})


def parse_sets(pairs: Sequence[str]) -> Overrides:
    """`["method.lr=0.1"]` -> `{"method": {"lr": 0.1}}`; values are JSON, or else plain text.

    Raises:
        BenchError: a pair has no `=`, or does not begin with a section such as `method.`.
    """
    overrides: Overrides = {section: {} for section in SECTIONS}
    for pair in pairs:
        section, name, text = _split_pair("--set", pair)
        overrides[section][name] = _value(text)
    return overrides


def grid(pairs: Sequence[str], base: Overrides) -> Iterator[Overrides]:
    """`base` with every combination of the values in `["method.lr=0.1,0.2", ...]`, in order.

    Values are separated by commas, or are the items of one JSON list.

    Raises:
        BenchError: a pair is not of the form `--set` takes, is of the data, names no value, or
            varies a key again.
    """
    keys: list[tuple[str, str]] = []
    choices: list[list[Any]] = []
    for pair in pairs:
        section, name, text = _split_pair("--vary", pair)
        if section == "data":
            raise BenchError(f"--vary {pair}: the data are read once; run once per data set")
        if (section, name) in keys:
            raise BenchError(f"--vary {pair}: {section}.{name} varies already; give it once")
        values = _value(text)
        choices.append(values if isinstance(values, list) else [_value(v) for v in text.split(",")])
        if not choices[-1]:
            raise BenchError(f"--vary {pair} names no value")
        keys.append((section, name))
    for combination in product(*choices):
        cell = {section: dict(values) for section, values in base.items()}
        for (section, name), value in zip(keys, combination, strict=True):
            cell[section][name] = value
        yield cell


def _split_pair(option: str, pair: str) -> tuple[str, str, str]:
    key, equals, text = pair.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name):
        raise BenchError(f"{option} {pair!r} is not of the form method.lr=0.1")
    if section not in SECTIONS:
        raise unknown(f"section (in {option} {pair})", section, SECTIONS)
    return section, name, text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def validated(cls: type[C], values: Mapping[str, Any], what: str) -> C:
    """A `cls` with `values` over its defaults.

    Raises:
        BenchError: an unknown key, with the nearest known; or the first invalid value.
    """
    for key in values:
        if key not in cls.model_fields:
            raise unknown(f"setting of {what}", key, cls.model_fields)
    try:
        return cls(**values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        given = f" (got {fault['input']!r})" if where in values else ""
        raise BenchError(f"{what}: {where}: {fault['msg']}{given}") from error


def pick_recipe(name: str, method: type[Method], method_name: str, size: int) -> str:
    """The recipe to use: `auto` is "small" for small pictures where the method has one."""
    if name == "auto":
        return "small" if size <= SMALL and "small" in method.recipes else "paper"
    if name != "paper" and name not in method.recipes:
        raise unknown(f"recipe of {method_name}", name, ["paper", *method.recipes])
    return name


def method_config(
    cls: type[Method], name: str, recipe: str, overrides: Mapping[str, Any]
) -> MethodConfig:
    """The method's settings: the paper's, then the recipe's, then the user's.

    A baseline has no budget, so one given for all methods of a command passes it by.
    """
    base = {} if recipe == "paper" else cls.recipes[recipe]
    budget = BUDGET if issubclass(cls, Untrained) else frozenset()
    given = {key: value for key, value in overrides.items() if key not in budget}
    return validated(cls.Config, {**base, **given}, f"method {name}")


def deviations(cls: type[Method], cfg: MethodConfig) -> list[str]:
    """Every way in which a run departs from the paper: the class's own list, then settings."""
    paper = cls.Config()  # type: ignore[call-arg]  # every method's settings have defaults
    changed = [
        f"{key} = {_short(value)} (paper: {_short(getattr(paper, key))})"
        for key, value in cfg
        if value != getattr(paper, key)
    ]
    return [*cls.deviations, *changed]


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
