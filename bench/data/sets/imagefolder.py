"""Any folder of pictures: imagefolder:PATH with PATH/{train,test}/<class>/*, or PATH/<class>/*."""

from __future__ import annotations

from pathlib import Path

from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, DataSet
from bench.errors import BenchError


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the folder `arg`.

    Raises:
        BenchError: it is no such folder, or too many pictures are broken.
    """
    if not arg:
        raise BenchError("imagefolder needs a folder: write --data imagefolder:PATH")
    root = Path(arg).expanduser()
    return load_class_folders(root, f"imagefolder-{root.resolve().name}", options)
