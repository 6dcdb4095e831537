"""Describable Textures (DTD): 3,760 training and 1,880 test pictures of 47 textures, split 1.

Torchvision's form; choices are made on its own validation half of the training pictures.
Cimpoi et al., arXiv:1311.3618.
"""

from __future__ import annotations

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import kit, lines, load_lists


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `dtd/dtd/` in the data root.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("dtd", arg)
    found = kit("DTD", "dtd/dtd", options)
    listed = [found.read(f"labels/{part}1.txt", lines) for part in ("train", "val", "test")]
    classes = tuple(sorted({path.partition("/")[0] for paths in listed for path in paths}))
    train, val, test = (
        [(f"images/{path}", classes.index(path.partition("/")[0])) for path in paths]
        for paths in listed
    )
    return load_lists("dtd", found, classes, train, test, options, val=val)
