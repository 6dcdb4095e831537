"""The result record: one JSON file per run, protocol and seed, written once and readable for ever.

Imports no torch, so that the leaderboard and the command line stay quick.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import to_jsonable_python

from bench.errors import BenchError
from bench.files import write_atomic, write_text

Status = Literal["ok", "diverged", "oom", "failed", "collapsed"]
Predictions = tuple[NDArray[Any], NDArray[Any]]  # ([N_test] predicted class, [N_test] truth)


def _plain(value: object) -> Any:
    """`value` as JSON would give it back: tuples are lists, pydantic models are mappings."""
    return to_jsonable_python(value, inf_nan_mode="strings")


def _finite(values: object) -> object:
    """`values` without NaN and infinities: JSON has none, and a diverged run's last loss is one."""
    if not isinstance(values, Mapping):
        return values
    return {k: v for k, v in values.items() if not isinstance(v, float) or math.isfinite(v)}


Json = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]
Values = dict[str, float]


class Part(BaseModel):
    """A frozen piece of a record; an unknown key or a number that is not finite is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodRecord(Part):
    """Which algorithm ran, and how it was set."""

    name: str
    version: int
    config: Json  # in full, defaults included
    deviations: tuple[str, ...] = ()  # from the paper, one line each
    recipe: str = "paper"  # "paper": the defaults; otherwise the named overrides
    labels_used: bool = False
    source_sha256: str | None = None  # of a method's file from outside the package


class PretrainRecord(Part):
    """What the encoder was trained on, and for how long."""

    id: str  # names the checkpoint; records of one pretraining share it
    data: str
    data_digest: str
    split: str
    pictures: int
    views: Annotated[list[JsonValue], BeforeValidator(_plain)] = []
    epochs: int  # 0: nothing was trained here
    images_seen: int
    batch_size: int
    precision: str


class SplitRecord(Part):
    """One split's content digest and its number of pictures."""

    digest: str
    size: int


class DataRecord(Part):
    """What the protocol measured on."""

    name: str
    digest: str
    splits: dict[str, SplitRecord]  # "train", "val" and "test"


class ProtocolRecord(Part):
    """Which measurement was made, and what it chose on validation."""

    name: str
    version: int
    config: Json
    selection: Json = {}


class MetricRecord(Part):
    """The primary metric; its value stands under the same name in `Record.metrics`."""

    name: str
    unit: str
    higher_is_better: bool


class CollapseRecord(Part):
    """Signs of a collapsed representation, on validation features.

    Both are of L2-normalised features: the mean standard deviation over dimensions, and the
    exponential of the entropy of the normalised singular values (RankMe, arXiv:2210.02885).
    """

    feature_std: float
    effective_rank: float


class CostRecord(Part):
    """What the run took, in device-seconds and bytes."""

    pretrain_seconds: float | None = None
    pretrain_images_per_second: float | None = None
    eval_seconds: float | None = None
    peak_memory_bytes: int | None = None
    warmup_excluded: bool
    reused_pretraining: bool  # the pretraining's cost is then that of the run which did it


class EnvironmentRecord(Part):
    """Where it ran."""

    device: str
    device_count: int = 1
    driver: str | None = None
    cpu: str
    threads: int
    platform: str
    python: str
    torch: str
    torchvision: str
    timm: str
    bench: str
    commit: str | None = None
    dirty: bool | None = None
    kernels: dict[str, str] = {}  # op -> implementation that ran


class Record(Part):
    """One result: a method, pretrained once, measured by one protocol with one seed."""

    schema_version: Literal[1] = 1
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    status: Status
    seed: int
    method: MethodRecord
    backbone: str
    pretraining: PretrainRecord
    data: DataRecord
    protocol: ProtocolRecord
    metric: MetricRecord
    metrics: Values = {}  # on test
    per_layer: dict[str, Values] = {}
    collapse: CollapseRecord | None = None
    cost: CostRecord
    environment: EnvironmentRecord
    checkpoint_sha256: str | None = None
    predictions: Annotated[str, Field(pattern=r"^[\w-]+\.npz$")] | None = None  # beside the record
    log: Annotated[Values, BeforeValidator(_finite)] = {}  # the last epoch's training log
    message: str | None = None  # why the status is not ok

    @model_validator(mode="after")
    def _has_its_metric(self) -> Self:
        if self.status == "ok" and self.metric.name not in self.metrics:
            raise ValueError(f"status is ok, but metrics has no {self.metric.name!r}")
        return self


def now() -> str:
    """The present in UTC, as `Record.created` wants it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical(value: object) -> str:
    """The one JSON text of `value`, whatever the order of its keys."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def run_id(identity: Mapping[str, object]) -> str:
    """Twelve hexadecimal digits that name a run.

    Args:
        identity: everything that the numbers depend on: configuration, versions, digests, seed.
    """
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:12]


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
        with np.load(file, allow_pickle=False) as arrays:
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
