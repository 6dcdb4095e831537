"""Stanford Cars: 8,144 training and 8,041 test pictures of 196 models, in torchvision's form.

Krause et al., 3dRR 2013.
"""

from __future__ import annotations

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import Rows, kit, load_lists, mat_column


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `stanford_cars/` in the data root: cars_train, cars_test, devkit and the test labels.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("cars", arg)
    found = kit("Stanford Cars", "stanford_cars", options)

    def rows(annotations: str, pictures: str) -> Rows:
        listed = found.read(annotations, lambda path: mat_column(path, "annotations"))
        # Classes count from 1 there.
        return [(f"{pictures}/{item['fname']}", int(item["class"]) - 1) for item in listed]

    names = found.read("devkit/cars_meta.mat", lambda path: mat_column(path, "class_names"))
    train = rows("devkit/cars_train_annos.mat", "cars_train")
    test = rows("cars_test_annos_withlabels.mat", "cars_test")
    return load_lists("cars", found, tuple(map(str, names)), train, test, options)
