"""The result record: one JSON file per run, protocol and seed, written once and readable for ever.

Imports no torch, so that the leaderboard and the command line stay quick.
"""

from bench.record.schema import (
    CollapseRecord,
    CostRecord,
    DataRecord,
    EnvironmentRecord,
    MethodRecord,
    MetricRecord,
    PretrainRecord,
    ProtocolRecord,
    Record,
    SplitRecord,
    Status,
    canonical,
    now,
    number,
    run_id,
)
from bench.record.store import (
    Beside,
    Predictions,
    files,
    load_all,
    path_for,
    path_of,
    read,
    read_arrays,
    read_predictions,
    write,
)

__all__ = [
    "Beside",
    "CollapseRecord",
    "CostRecord",
    "DataRecord",
    "EnvironmentRecord",
    "MethodRecord",
    "MetricRecord",
    "Predictions",
    "PretrainRecord",
    "ProtocolRecord",
    "Record",
    "SplitRecord",
    "Status",
    "canonical",
    "files",
    "load_all",
    "now",
    "number",
    "path_for",
    "path_of",
    "read",
    "read_arrays",
    "read_predictions",
    "run_id",
    "write",
]
