"""170 Penn-Fudan street photographs: boxes and masks of pedestrians, from the shared archives.

One class, so it is for boxes and masks. Wang et al., ACCV 2007.
"""

from __future__ import annotations

from bench.data.archive import unpacked
from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.voc import load_voc


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the archive; its val list is the test split.

    Raises:
        BenchError: it is absent or damaged.
    """
    no_argument("pennfudan", arg)
    return load_voc(unpacked("pennfudan.tar.xz"), "pennfudan", options)
