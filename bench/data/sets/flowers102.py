"""Oxford Flowers: 2,040 training and 6,149 test pictures of 102 kinds, in torchvision's form.

Published results are means of the classes' accuracies; choices are made on its own validation
half of the training pictures. Nilsback and Zisserman, ICVGIP 2008.
"""

from __future__ import annotations

from torchvision.datasets import Flowers102

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import Rows, kit, load_lists, mat_column


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `flowers-102/` in the data root: jpg, imagelabels.mat and setid.mat.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("flowers102", arg)
    found = kit("Oxford Flowers", "flowers-102", options)
    labels = found.read("imagelabels.mat", lambda path: mat_column(path, "labels"))
    label_of = dict(enumerate(map(int, labels), 1))  # pictures and classes count from 1 there

    def rows(part: str) -> Rows:
        numbers = found.read("setid.mat", lambda path: mat_column(path, part))
        return [(f"jpg/image_{n:05d}.jpg", label_of.get(int(n), 0) - 1) for n in numbers]

    train, val, test = (rows(part) for part in ("trnid", "valid", "tstid"))
    classes = tuple(Flowers102.classes)
    return load_lists("flowers102", found, classes, train, test, options, val=val)
