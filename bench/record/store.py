"""The results folder: records are added to it, read back, and never changed."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bench.errors import BenchError
from bench.files import write_atomic, write_text
from bench.record.schema import Record

PROFILES = "profile"  # the folder, within the results', of `bench.record.profiles`
T = TypeVar("T")
Predictions = tuple[NDArray[Any], NDArray[Any]]  # ([N_test] predicted class, [N_test] truth)


@dataclass(frozen=True)
class Beside:
    """What is kept beside a record.

    `predictions`: (predicted class, true class), `[N_test]` each, below 65,536. `arrays`: what
    encoders are compared by. `figure`: a PNG.
    """

    predictions: Predictions | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    figure: bytes | None = None


def path_of(root: Path, record: Record) -> Path:
    """Where under `root` a record lives: `<protocol>/<data>/<method>/<run_id>.json`."""
    return path_for(root, record.protocol.name, record.data.name, record.method.name, record.run_id)


def path_for(root: Path, protocol: str, data: str, method: str, run_id: str) -> Path:
    """Where under `root` the record of a run would live."""
    names = (protocol, data, method)
    # Data may be named by a path ("imagefolder:/some/where"); a folder name may not hold one.
    folders = (re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "unnamed" for name in names)
    return root.joinpath(*folders, f"{run_id}.json")


def write(root: Path, record: Record, beside: Beside | None = None) -> Path:
    """Store `record`, and what is kept `beside` it, for ever; returns the path of the record.

    Records are append-only. Where the run has one already, the first account stays, with one
    exception: a record that is not ok gives way to one that is.

    Args:
        root: the results folder.
        record: its fields that name files are filled in here.
        beside: those files.

    Raises:
        BenchError: an ok record of the run is there with other results, or something unreadable.
        ValueError: `predictions` are not two vectors of one length with values in range.
    """
    path = path_of(root, record)
    if path.exists():
        stored = read(path)
        if stored.status == "ok" and record.status == "ok" and not _same_results(stored, record):
            raise BenchError(
                f"{path} already holds other results of this run, and records are append-only: "
                "bump the version of the method or protocol that changed, or use another seed"
            )
        if stored.status == "ok" or record.status != "ok":
            return path
    if beside is not None:  # first, so that no record ever names a file that is not there
        record = record.model_copy(update=_write_beside(path, beside))
    write_text(path, record.model_dump_json(indent=2) + "\n")
    return path


def read(path: Path) -> Record:
    """Read one record.

    Raises:
        BenchError: it cannot be read or is not a record; names the file and the first fault.
    """
    try:
        return parse(path, Record.model_validate_json)
    except BenchError as error:
        raise BenchError(f"{path} is not a readable record: {error}") from error


def _write_beside(path: Path, beside: Beside) -> dict[str, str]:
    """Write what is kept beside the record at `path`; the record's fields that name it."""
    named: dict[str, str] = {}
    if beside.predictions is not None:
        predicted, label = (_uint16(part) for part in beside.predictions)
        if predicted.shape != label.shape:
            raise ValueError(f"{predicted.shape} predictions for {label.shape} labels")
        named["predictions"] = _write_arrays(
            path.with_suffix(".npz"), {"prediction": predicted, "label": label}
        )
    if beside.arrays:
        named["arrays"] = _write_arrays(path.with_name(f"{path.stem}-arrays.npz"), beside.arrays)
    if beside.figure is not None:
        figure, picture = beside.figure, path.with_suffix(".png")
        write_atomic(picture, lambda file: file.write(figure))
        named["figure"] = picture.name
    return named


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    named: dict[str, Any] = dict(arrays)
    write_atomic(path, lambda file: np.savez_compressed(file, **named))
    return path.name


def read_arrays(path: Path, record: Record) -> dict[str, NDArray[Any]]:
    """The arrays stored beside the record at `path`, by name; none where it names none.

    Raises:
        BenchError: the file that the record names is missing or damaged.
    """
    if record.arrays is None:
        return {}
    file = path.with_name(record.arrays)
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BenchError(f"{file} does not hold the arrays of its record: {error}") from error


def read_predictions(path: Path, record: Record) -> Predictions | None:
    """The (predicted class, true class) stored beside the record at `path`, `[N_test]` each.

    Raises:
        BenchError: the file that the record names is missing or damaged.
    """
    if record.predictions is None:
        return None
    file = path.with_name(record.predictions)
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            return arrays["prediction"], arrays["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BenchError(f"{file} does not hold the predictions of its record: {error}") from error


def load_all(root: Path) -> tuple[list[tuple[Path, Record]], list[str]]:
    """Every record under `root` with its path, sorted, and a line on each file that is not one."""
    return load_each(root, files(root), Record.model_validate_json, path_of)


def load_each(
    root: Path,
    paths: Iterable[Path],
    read: Callable[[bytes], T],
    home_of: Callable[[Path, T], Path],
) -> tuple[list[tuple[Path, T]], list[str]]:
    """What pydantic's `read` makes of each file, with its path, and a line on each foreign file.

    Args:
        root: the results folder.
        paths: the files.
        read: makes of a file's bytes what it holds, or fails.
        home_of: where under `root` that has to lie; anywhere else it is foreign.
    """
    found, problems = [], []
    for path in paths:
        try:
            held = parse(path, read)
            home = home_of(root, held)
            if path != home:
                raise BenchError(f"its content belongs to {home.relative_to(root).as_posix()}")
            found.append((path, held))
        except BenchError as error:
            problems.append(f"{path.relative_to(root).as_posix()}: {error}")
    return found, problems


def files(root: Path, beginning: str = "") -> list[Path]:
    """The files under `root` that ought to be records, and whose names have that `beginning`."""
    names = (path.relative_to(root) for path in root.rglob(f"{beginning}*.json"))
    named = sorted(name.as_posix() for name in names if name.parts[0] != PROFILES)
    return [root / name for name in named]


def parse(path: Path, read: Callable[[bytes], T]) -> T:
    """What pydantic's `read` makes of a file.

    Raises:
        BenchError: it cannot be read, or its first fault; the file is not named.
    """
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise BenchError(error.strerror or str(error)) from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        message = " ".join(fault["msg"].split())
        raise BenchError(f"{where}: {message}" if where else message) from error


def _same_results(one: Record, other: Record) -> bool:
    return (one.metrics, one.per_layer) == (other.metrics, other.per_layer)


def _uint16(values: NDArray[Any]) -> NDArray[np.uint16]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min(initial=0) < 0:
        raise ValueError(f"expected a vector of classes, got {array.dtype} {array.shape}")
    if array.max(initial=0) > np.iinfo(np.uint16).max:
        raise ValueError(f"class {array.max()} does not fit 16 bits")
    return array.astype(np.uint16)
