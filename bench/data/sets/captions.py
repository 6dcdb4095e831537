"""Any folder of captioned pictures: captions:PATH with NAME.txt beside each NAME.jpg; no labels.

Pictures come from PATH/train and PATH/test (or val); without these a fifth is held out for test.
Sub-folders are read too, and are no classes: `imagefolder` reads those, with captions where every
picture has one.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, DataSet
from bench.errors import BenchError


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the folder `arg`.

    Raises:
        BenchError: it is no such folder, a caption is missing, or too many pictures are broken.
    """
    if not arg:
        raise BenchError("captions needs a folder: write --data captions:PATH")
    root = Path(arg).expanduser()
    data = load_class_folders(root, f"captions-{root.resolve().name}", options, flat=True)
    if "text" not in data.info.has:
        raise BenchError(f"{root} has no captions; write one to NAME.txt beside each NAME.jpg")
    return data
