"""What to run: the options of `bench run`, from the command line or from a suite's YAML file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from bench import registry, resolve
from bench.api import Config
from bench.data import catalog
from bench.errors import BenchError, unknown
from bench.resolve import Overrides, Resolved


class Block(Config):
    """Methods x backbones x values of `vary` x seeds x protocols, on one data set."""

    methods: tuple[str, ...] = Field(min_length=1)
    protocols: tuple[str, ...] = Field(("linear",), min_length=1)
    data: str = "scenes"
    eval_data: tuple[str, ...] = ()  # evaluate on these instead, one after another
    backbones: tuple[str | None, ...] = Field((None,), min_length=1)  # None: the method's own
    seed: int = 0  # the first
    seeds: int = Field(1, ge=1)
    recipe: str = "auto"
    epochs: int | None = Field(None, ge=0)
    batch_size: int | None = Field(None, ge=1)
    limit: int | None = Field(None, ge=1)
    data_root: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"
    compile: bool = False
    kernels: Literal["auto", "reference", "triton"] = "auto"
    weights: Path | None = None
    set: tuple[str, ...] = ()  # "method.lr=0.1", or a mapping
    vary: tuple[str, ...] = ()  # "method.lr=0.1,0.2", or a mapping to lists

    @field_validator("methods", "protocols", "eval_data", "backbones", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) or value is None else value

    @field_validator("set", "vary", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return tuple(f"{key}={json.dumps(item)}" for key, item in value.items())
        return value

    def check_names(self) -> None:
        """Tell of a wrong name before any data are read.

        Raises:
            BenchError: there is no such method, protocol or data set.
        """
        for name in (self.data, *self.eval_data):
            catalog.check(name)
        for name in self.methods:
            registry.method(name)
        for name in self.protocols:
            registry.protocol(name)

    def overrides(self) -> Overrides:
        """Every setting that is not the recipe's own, by section.

        Raises:
            BenchError: a pair of `set` is not of the form method.lr=0.1.
        """
        overrides = resolve.parse_sets(self.set)
        given = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "weights": self.weights and str(self.weights),
        }
        overrides["method"] |= {key: value for key, value in given.items() if value is not None}
        names = ("device", "precision", "compile", "kernels")
        engine = {name: getattr(self, name) for name in names}
        overrides["engine"] = {**engine, **overrides["engine"]}
        overrides["data"] = {"root": self.data_root, "limit": self.limit, **overrides["data"]}
        return overrides

    def runs(self, size: int) -> Iterator[Resolved]:
        """Every run, fully decided, on pictures stored at `size` pixels.

        Protocols come innermost, so that each pretraining is followed by all that measures it.

        Raises:
            BenchError: an unknown key, with suggestions, or an invalid value.
        """
        for method in self.methods:
            for backbone in self.backbones:
                for cell in resolve.grid(self.vary, self.overrides()):
                    for seed in range(self.seed, self.seed + self.seeds):
                        for protocol in self.protocols:
                            yield resolve.resolve(
                                method=method,
                                protocol=protocol,
                                data=self.data,
                                size=size,
                                backbone=backbone,
                                seed=seed,
                                recipe=self.recipe,
                                overrides=cell,
                            )


class Suite(Config):
    """A YAML file: what it shows, and the blocks of runs that do."""

    title: str
    runs: tuple[Block, ...] = Field(min_length=1)


def read(name: str, **given: Any) -> Suite:
    """The suite called `name`, or in the file `name`.

    Options that are `given`, and not None, hold for all its blocks, whatever the file says.

    Raises:
        BenchError: there is no such suite, or it is not a valid one; the line says where.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else registry.SUITES / f"{name}.yaml"
    if not path.is_file():
        if path.parent == registry.SUITES:
            raise unknown("suite", name, registry.suites())
        raise BenchError(f"no such suite: {path}")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"{path} is not a readable YAML file: {reason}") from error
    if not isinstance(content, Mapping):
        raise BenchError(f"{path} is no suite: it needs a title and runs")
    for number, block in enumerate(content.get("runs") or ()):
        for key in block if isinstance(block, Mapping) else ():
            if key not in Block.model_fields:
                raise unknown(f"setting of runs.{number} in {path}", str(key), Block.model_fields)
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BenchError(f"{path}: {where}: {fault['msg']}") from error
    held = {key: value for key, value in given.items() if value is not None}
    blocks = tuple(
        resolve.validated(Block, {**block.model_dump(), **held}, "this sweep")
        for block in suite.runs
    )
    return suite.model_copy(update={"runs": blocks})
