"""SUN397: 19,850 training and 19,850 test pictures of 397 kinds of scenes, partition 1.

Torchvision's form, with ClassName.txt, Training_01.txt and Testing_01.txt of the authors'
Partitions.zip beside the pictures. Xiao et al., CVPR 2010.
"""

from __future__ import annotations

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import Rows, kit, lines, load_lists


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `SUN397/` in the data root.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("sun397", arg)
    found = kit("SUN397", "SUN397", options)
    folders = found.read("ClassName.txt", lines)  # as /a/abbey, /c/church/indoor
    numbers = {name: number for number, name in enumerate(folders)}

    def rows(part: str) -> Rows:
        listed = found.read(f"{part}_01.txt", lines)
        return [(path.lstrip("/"), numbers.get(path.rpartition("/")[0], -1)) for path in listed]

    classes = tuple(name.split("/", 2)[-1] for name in folders)
    return load_lists("sun397", found, classes, rows("Training"), rows("Testing"), options)
