"""What a record holds, checked by pydantic, and what identifies a run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)
from pydantic_core import to_jsonable_python

Status = Literal["ok", "diverged", "oom", "failed", "collapsed"]


def _plain(value: object) -> Any:
    """`value` as JSON would give it back: tuples are lists, pydantic models are mappings."""
    return to_jsonable_python(value)


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
    changed: Json = {}  # settings, but for the epochs, that are not the recipe's
    labels_used: bool = False
    text_used: bool = False  # captions, which name what is to be seen
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
    arrays: Annotated[str, Field(pattern=r"^[\w-]+\.npz$")] | None = None  # beside the record
    figure: Annotated[str, Field(pattern=r"^[\w-]+\.png$")] | None = None  # beside the record
    log: Annotated[Values, BeforeValidator(_finite)] = {}  # the last epoch's training log
    history: dict[str, list[float | None]] = {}  # the same of every epoch, by name
    message: str | None = None  # why the status is not ok

    @model_validator(mode="after")
    def _has_its_metric(self) -> Self:
        if self.status == "ok" and self.metric.name not in self.metrics:
            raise ValueError(f"status is ok, but metrics has no {self.metric.name!r}")
        return self


def number(value: float, beside: float | None = None) -> str:
    """A metric's value as people read it: two decimals, three below 1, where two would be few.

    With `beside`, such as the mean that it is half the interval of, it has as many as that.
    """
    shown = value if beside is None else beside
    return f"{value:.3f}" if 0 < abs(shown) < 1 else f"{value:.2f}"


def now() -> str:
    """The present in UTC, as `Record.created` wants it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical(value: object) -> str:
    """The one JSON text of `value`, whatever the order of its keys."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_id(identity: Mapping[str, object]) -> str:
    """Twelve hexadecimal digits that name a run.

    Args:
        identity: everything that the numbers depend on: configuration, versions, digests, seed.
    """
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:12]
