"""FGVC Aircraft: 6,667 training and 3,333 test pictures of 100 variants, in torchvision's form.

Published results are means of the classes' accuracies; choices are made on its own validation
half of the training pictures. Maji et al., arXiv:1306.5151.
"""

from __future__ import annotations

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import Rows, kit, lines, load_lists


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `fgvc-aircraft-2013b/` in the data root.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("aircraft", arg)
    found = kit("FGVC Aircraft", "fgvc-aircraft-2013b", options)
    classes = tuple(found.read("data/variants.txt", lines))
    numbers = {name: number for number, name in enumerate(classes)}

    def rows(part: str) -> Rows:
        listed = found.read(f"data/images_variant_{part}.txt", lines)
        pairs = (line.partition(" ") for line in listed)  # as "1025794 707-320"
        return [(f"data/images/{item}.jpg", numbers.get(name, -1)) for item, _, name in pairs]

    return load_lists(
        "aircraft", found, classes, rows("train"), rows("test"), options, val=rows("val")
    )
