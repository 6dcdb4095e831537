"""The data sets by name: one file each in `bench/data/sets`, imported when one is loaded."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import unknown
from bench.files import summary_of

if TYPE_CHECKING:  # torch takes seconds to import, and listing names needs none of it
    from bench.data.dataset import DataOptions, DataSet

_SETS = Path(__file__).parent / "sets"


def names() -> dict[str, str]:
    """Every data set's name, and the first line of its docstring, without importing any."""
    found = {}
    for path in sorted(_SETS.glob("*.py")):
        if not path.stem.startswith("_"):
            found[path.stem] = summary_of(path)
    return found


def check(spec: str) -> None:
    """Tell of a wrong name without loading anything.

    Raises:
        BenchError: there is no such set; the nearest name is suggested.
    """
    _resolve(spec.partition(":")[0])


def load(spec: str, options: DataOptions | None = None) -> DataSet:
    """The data set that `spec` names: `name` or `name:ARG`, as `cifar10` or `imagefolder:PATH`.

    Dashes and underscores in names are the same.

    Raises:
        BenchError: there is no such set (the nearest name is suggested), or it cannot be read.
    """
    from bench.data.dataset import DataOptions

    name, colon, arg = spec.partition(":")
    module = importlib.import_module(f"bench.data.sets.{_resolve(name)}")
    data: DataSet = module.load(arg if colon else None, options or DataOptions())
    return data


def _resolve(name: str) -> str:
    known = list(names())
    wanted = name.replace("-", "_").lower()
    if wanted in known:
        return wanted
    raise unknown("data set", name, known)
