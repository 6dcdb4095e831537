"""What a profile holds: how fast things ran on one machine at one time, and in what memory."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from bench.record.schema import EnvironmentRecord, Json, Part


class Quantiles(Part):
    """How long something took, in milliseconds."""

    median: float
    p10: float
    p90: float
    rounds: int
    clock: str  # "wall", "events" (of CUDA) or "graph" (events around replays of a CUDA graph)


class RoofRecord(Part):
    """What the device was measured to do, in the same run."""

    flops: dict[str, float]  # FLOP/s of a large matrix product, by its precision
    bytes_per_second: float  # read and written by a large copy


class MemoryRecord(Part):
    """Bytes beyond what was allocated before; None where not measured."""

    peak: int | None = None  # allocated
    reserved: int | None = None  # by torch's caching allocator, on a GPU
    resident: int | None = None  # of the whole process at the most, on a CPU
    saved: int | None = None  # kept from the forward for the backward, without weights and inputs


class ProfileRow(Part):
    """What every row has: what stands beside its numbers, and why there are none."""

    notes: tuple[str, ...] = ()  # what differs from the rows that it is compared with
    reason: str | None = None  # why it was not measured: "out of memory: ...", "not installed"


class StepRow(ProfileRow):
    """A training step of one method by one library."""

    method: str
    provider: str = "bench"  # or the peer's name
    backbone: str
    data: str
    size: int  # px
    batch_size: int
    precision: str
    compiled: bool = False
    phases: tuple[str, ...] = ()  # of the step, where a method takes several
    kernels: dict[str, str] = {}  # op -> implementation that ran
    step: Quantiles | None = None
    stages: dict[str, Quantiles] = {}  # views, forward, loss, backward, optimiser
    images_per_second: float | None = None  # pictures, not views
    memory: MemoryRecord = MemoryRecord()
    parameters: int | None = None  # that are trained
    flops: float | None = None  # of the model, per step
    share: float | None = None  # of the measured peak of matrix products in this precision


class LossRow(ProfileRow):
    """One op of `bench.kernels` by one provider at one size."""

    op: str
    provider: str  # "reference", "triton", "compile", "flex", or the peer's name
    batch: int
    dim: int | None = None  # of embeddings
    keys: int | None = None  # prototypes, queue or bank entries, bins
    dtype: str  # of the inputs
    forward: Quantiles | None = None
    backward: Quantiles | None = None  # both, less forward
    both: Quantiles | None = None
    memory: MemoryRecord = MemoryRecord()
    flops: float | None = None  # of the op's least work, forward and backward
    bytes: float | None = None
    floor_ms: float | None = None  # that work at the measured roof
    bound: Literal["flops", "bytes"] | None = None  # which of the two roofs the floor is
    share: float | None = None  # floor / both; of ops without a backward, floor / forward
    chosen: bool = False  # whether this is what `auto` takes at this size


class FitRow(Part):
    """The largest batch with which a provider of an op stays within the stated memory."""

    op: str
    provider: str
    dim: int | None = None
    keys: int | None = None
    dtype: str
    memory: int  # bytes, as stated
    batch: int | None = None  # the last of the doublings that was measured to fit
    total: int | None = None  # bytes it takes, inputs and gradients included
    ended: str  # why not twice as many: they do not fit, or the search's own "time: ..."


class DataRow(ProfileRow):
    """One op on pictures, or a pipeline of them, by one library."""

    op: str
    provider: str = "bench"
    size: int  # px
    batch_size: int
    one_by_one: bool = False  # picture by picture: the library has no batched form with own draws
    time: Quantiles | None = None  # of a batch
    views_per_second: float | None = None


Row = TypeVar("Row", bound=ProfileRow)


class _Profile(Part, Generic[Row]):
    schema_version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    settings: Json  # sizes, seconds, stated memory: what was asked for
    environment: EnvironmentRecord
    packages: dict[str, str] = {}  # versions of the peers that are installed, and of Triton
    roof: RoofRecord | None = None
    rows: tuple[Row, ...] = ()
    complete: bool = False
    figures: tuple[Annotated[str, Field(pattern=r"^[\w-]+\.png$")], ...] = ()  # beside the record


class StepProfile(_Profile[StepRow]):
    """Of `bench profile step`."""

    kind: Literal["step"] = "step"


class LossProfile(_Profile[LossRow]):
    """Of `bench profile losses`."""

    kind: Literal["losses"] = "losses"
    fits: tuple[FitRow, ...] = ()


class DataProfile(_Profile[DataRow]):
    """Of `bench profile data`."""

    kind: Literal["data"] = "data"


Profile = StepProfile | LossProfile | DataProfile
