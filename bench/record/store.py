"""The results folder: records are added to it, read back, and never changed."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bench.errors import BenchError
from bench.files import write_atomic, write_text
from bench.record.schema import Record

Predictions = tuple[NDArray[Any], NDArray[Any]]  # ([N_test] predicted class, [N_test] truth)


def path_of(root: Path, record: Record) -> Path:
    """Where under `root` a record lives: `<protocol>/<data>/<method>/<run_id>.json`."""
    names = (record.protocol.name, record.data.name, record.method.name)
    # Data may be named by a path ("imagefolder:/some/where"); a folder name may not hold one.
    folders = (re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "unnamed" for name in names)
    return root.joinpath(*folders, f"{record.run_id}.json")


def write(root: Path, record: Record, predictions: Predictions | None = None) -> Path:
    """Store `record`, and `predictions` beside it, for ever; returns the path of the record.

    Records are append-only. Where the run has one already, the first account stays, with one
    exception: a record that is not ok gives way to one that is.

    Args:
        root: the results folder.
        record: its `predictions` field is filled in here.
        predictions: (predicted class, true class), `[N_test]` each, below 65,536.

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
    if predictions is not None:
        predicted, label = (_uint16(part) for part in predictions)
        if predicted.shape != label.shape:
            raise ValueError(f"{predicted.shape} predictions for {label.shape} labels")
        # First, so that no record ever names a file that is not there.
        write_atomic(
            path.with_suffix(".npz"),
            lambda file: np.savez_compressed(file, prediction=predicted, label=label),
        )
        record = record.model_copy(update={"predictions": f"{record.run_id}.npz"})
    write_text(path, record.model_dump_json(indent=2) + "\n")
    return path


def read(path: Path) -> Record:
    """Read one record.

    Raises:
        BenchError: it cannot be read or is not a record; names the file and the first fault.
    """
    try:
        return _parse(path)
    except BenchError as error:
        raise BenchError(f"{path} is not a readable record: {error}") from error


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
    records, problems = [], []
    for path in sorted(root.rglob("*.json"), key=lambda path: path.relative_to(root).as_posix()):
        try:
            record = _parse(path)
            home = path_of(root, record)
            if path != home:
                raise BenchError(f"its content belongs to {home.relative_to(root).as_posix()}")
            records.append((path, record))
        except BenchError as error:
            problems.append(f"{path.relative_to(root).as_posix()}: {error}")
    return records, problems


def _parse(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
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
