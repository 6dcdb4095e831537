"""Methods and protocols, found by file name and loaded only when asked for.

A name is a file in `methods/` or `protocols/`, an entry point of the group `bench.methods` or
`bench.protocols`, or a path to a Python file. Listing reads docstrings without importing anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from bench.errors import BenchError, unknown
from bench.files import summary_of

if TYPE_CHECKING:
    from bench.api import Method, Protocol

T = TypeVar("T")
SUITES = Path(__file__).parents[1] / "suites"
KINDS = {"methods": "method", "protocols": "protocol"}


def names(kind: str) -> dict[str, str]:
    """Name -> first docstring line of everything registered; `kind` is a key of `KINDS`.

    Raises:
        BenchError: an entry point has the name of a file, or of another entry point.
    """
    found = {path.stem: summary_of(path) for path in _files(kind).values()}
    for point in _entry_points(kind):
        if point.name in found:
            raise BenchError(
                f"two {kind} are called '{point.name}': rename the entry point {point.value}"
            )
        found[point.name] = f"(entry point {point.value})"
    return dict(sorted(found.items()))


def method(name: str) -> type[Method]:
    """The method class called `name`, or defined in the file `name`."""
    from bench.api import Method

    return _load("methods", name, Method)  # type: ignore[type-abstract]


def protocol(name: str) -> type[Protocol]:
    """The protocol class called `name`, or defined in the file `name`."""
    from bench.api import Protocol

    return _load("protocols", name, Protocol)  # type: ignore[type-abstract]


def plain_name(name: str) -> str:
    """The name as it stands in records: a path gives its stem, dashes become underscores."""
    return Path(name).stem if name.endswith(".py") else name.replace("-", "_")


def suites() -> dict[str, str]:
    """Every suite of `bench sweep` that comes with the harness, and its title."""
    import yaml

    found = {}
    for path in sorted(SUITES.glob("*.yaml")):
        content = yaml.safe_load(path.read_text("utf-8"))
        found[path.stem] = str(content.get("title", "")) if isinstance(content, dict) else ""
    return found


def _files(kind: str) -> dict[str, Path]:
    spec = importlib.util.find_spec(kind)
    folders = (spec.submodule_search_locations if spec else None) or []
    paths = [path for folder in folders for path in Path(folder).glob("[!_]*.py")]
    return {path.stem: path for path in paths}


def _entry_points(kind: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"bench.{kind}"), key=lambda point: point.name)


def _load(kind: str, name: str, base: type[T]) -> type[T]:
    if name.endswith(".py"):
        return _only_class(_module_from(Path(name)), base, name)
    plain = plain_name(name)
    if plain in _files(kind):
        return _only_class(importlib.import_module(f"{kind}.{plain}"), base, f"{kind}/{plain}.py")
    points = {point.name: point for point in _entry_points(kind)}
    if plain in points:
        loaded = points[plain].load()
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise BenchError(f"entry point {points[plain].value} is no subclass of {base.__name__}")
        return loaded
    raise unknown(KINDS[kind], plain, names(kind))


def _module_from(path: Path) -> ModuleType:
    if not path.is_file():
        raise BenchError(f"no such file: {path}")
    name = f"_bench_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that annotations of classes in the file can be resolved
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BenchError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _only_class(module: ModuleType, base: type[T], where: str) -> type[T]:
    """The one concrete subclass of `base` that the module itself defines."""
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(own) != 1:
        raise BenchError(
            f"{where} defines {len(own)} concrete subclasses of {base.__name__}; it must define one"
        )
    return own[0]
