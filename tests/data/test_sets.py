"""Every data set that is read from files or bundled, and the catalog that finds them."""

from __future__ import annotations

import hashlib
import io
import pickle
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder

from bench.data import archive, catalog, stored
from bench.data.dataset import DataOptions, DataSet, Split
from bench.data.folder import FolderImages
from bench.data.statistics import channel_statistics
from bench.errors import BenchError


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)


def check_parts(data: DataSet) -> None:
    """Train and validation part the full split, validation being a tenth of every class."""
    full, train, val = (tuple(map(bytes, pixels(s))) for s in (data.full, data.train, data.val))
    assert sorted(train + val) == sorted(full)
    assert data.info.n_train == len(data.full)
    assert len(val) == min(len(full) // 10, 5000)


def pixels(split: Split) -> np.ndarray:
    batches = split.images.stream([torch.arange(len(split))])
    return next(iter(batches))[1].numpy()


# ------------------------------------------------------------------------------------- the catalog
def test_names_come_with_their_first_line_and_without_torch() -> None:
    code = (
        "import sys; from bench.data import catalog; names = catalog.names(); "
        "print('torch' in sys.modules, names['digits'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False Scans of 1,797 handwritten digits")


def test_every_set_in_the_catalog_says_what_it_is() -> None:
    found = catalog.names()
    assert {"cifar10", "cifar100", "stl10", "digits", "imagefolder", "imagenet", "voc"} <= set(
        found
    )
    assert all(line.endswith(".") and len(line) > 20 for line in found.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cifar11", "did you mean cifar10"),
        ("imagenett:x", "did you mean imagenet"),
        ("zzz", "known: .*digits"),
        ("digits:3", "takes no argument"),
        ("imagefolder", "imagefolder:PATH"),
        ("imagenet:", "imagenet:PATH"),
        ("voc", "voc:PATH"),
    ],
)
def test_mistaken_specs_are_one_clear_line(wrong: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as error:
        catalog.load(wrong)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------ digits
def test_digits_are_scikit_learns() -> None:
    data = catalog.load("Digits")
    bunch = load_digits()
    assert (len(data.full), len(data.test)) == (1438, 359)
    check_parts(data)
    both = np.concatenate([pixels(data.full), pixels(data.test)])
    assert both.shape == (1797, 3, 32, 32)
    grey = both[:, :, ::4, ::4]
    assert np.array_equal(np.kron(grey, np.ones((4, 4), np.uint8)), both)
    truth = {(image * 255 / 16).round().astype(np.uint8).tobytes() for image in bunch.images}
    assert {image[channel].tobytes() for image in grey for channel in range(3)} == truth
    labels = torch.cat([data.full.labels, data.test.labels])
    assert labels.bincount().tolist() == np.bincount(bunch.target).tolist()
    share = data.test.labels.bincount() / labels.bincount()
    assert (share - 0.2).abs().max() < 0.01


def test_limit_is_balanced_named_and_the_same_every_time() -> None:
    first, again = (catalog.load("digits", DataOptions(limit=500)) for _ in range(2))
    assert first.info.name == "digits-limit500"
    assert first.info == again.info
    assert len(first.full) == 500
    assert len(first.test) == 359
    assert (first.full.labels.bincount() - 50).abs().max() <= 3
    assert first.full.digest != catalog.load("digits").full.digest


def test_limit_that_limits_nothing_changes_nothing() -> None:
    assert catalog.load("digits", DataOptions(limit=10**6)).info == catalog.load("digits").info


def test_size_resamples_pictures() -> None:
    data = catalog.load("digits", DataOptions(size=16))
    assert data.info.size == 16
    assert pixels(data.full).shape == (1438, 3, 16, 16)


def test_statistics_are_those_of_the_training_pixels() -> None:
    data = catalog.load("digits")
    expected = pixels(data.full).astype(np.float64) / 255
    assert data.info.mean == pytest.approx(expected.mean((0, 2, 3)), abs=1e-4)
    assert data.info.std == pytest.approx(expected.std((0, 2, 3)), abs=1e-4)


def test_statistics_of_one_colour_keep_normalising_finite() -> None:
    assert min(channel_statistics(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)).std) > 0


# ------------------------------------------------------------------------ torchvision's disk form
def write_batches(folder: Path, files: dict[str, dict[str, object]]) -> dict[str, str]:
    folder.mkdir(parents=True)
    sums = {}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return sums


def cifar_batch(count: int, key: str, classes: int, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (count, 3072), np.uint8)
    return {"data": data, key: [i % classes for i in range(count)]}


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [f"data_batch_{i}" for i in range(1, 6)]
    files = {name: cifar_batch(40, "labels", 10, i) for i, name in enumerate(names)}
    files["test_batch"] = cifar_batch(20, "labels", 10, 9)
    files["batches.meta"] = {"label_names": [f"class{i}" for i in range(10)]}
    sums = write_batches(tmp_path / "root" / "cifar-10-batches-py", files)
    cls = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cls, "train_list", [[name, sums[name]] for name in names])
    monkeypatch.setattr(cls, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(cls, "meta", meta)
    return tmp_path / "root"


def test_cifar10_is_what_torchvision_reads(cifar10: Path) -> None:
    data = catalog.load("cifar10", DataOptions(root=cifar10))
    for split, is_train in ((data.full, True), (data.test, False)):
        truth = torchvision.datasets.CIFAR10(cifar10, train=is_train)
        assert np.array_equal(pixels(split).transpose(0, 2, 3, 1), truth.data)
        assert split.labels.tolist() == truth.targets
    assert data.info.classes == tuple(f"class{i}" for i in range(10))
    assert data.info.mean == (0.4914, 0.4822, 0.4465)
    check_parts(data)
    assert data.val.labels.bincount().tolist() == [2] * 10


def test_data_root_may_come_from_the_environment(
    cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(cifar10))
    assert len(catalog.load("cifar10").full) == 200


def test_cifar100_reads_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "train": cifar_batch(200, "fine_labels", 100, 0),
        "test": cifar_batch(100, "fine_labels", 100, 1),
        "meta": {"fine_label_names": [f"class{i}" for i in range(100)]},
    }
    sums = write_batches(tmp_path / "cifar-100-python", files)
    cls = torchvision.datasets.CIFAR100
    monkeypatch.setattr(cls, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(cls, "test_list", [["test", sums["test"]]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    monkeypatch.setattr(cls, "meta", meta)
    data = catalog.load("cifar100", DataOptions(root=tmp_path))
    assert data.info.num_classes == 100
    assert np.array_equal(pixels(data.full).reshape(200, -1), files["train"]["data"])
    check_parts(data)  # a tenth is 20 pictures, too few to hold 100 classes: not stratified


def test_stl10_is_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On disk STL-10 is column-major; a horizontal ramp must come out horizontal."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, None, None], (30, 3, 96, 96))
    for part in ("train", "test"):
        np.ascontiguousarray(ramp.transpose(0, 1, 3, 2)).tofile(folder / f"{part}_X.bin")
        (np.arange(30, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"class{i}" for i in range(10)))
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    data = catalog.load("stl10", DataOptions(root=tmp_path))
    assert np.array_equal(pixels(data.full), ramp)
    assert data.full.labels.tolist() == [i % 10 for i in range(30)]
    assert data.info.size == 96


@pytest.mark.parametrize("damaged", [False, True])
def test_absent_or_damaged_cifar10_without_network_says_what_to_put_where(
    cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    seen = []

    def closed(*args: object, **kwargs: object) -> None:
        seen.append(socket.getdefaulttimeout())
        raise URLError("network is unreachable")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", closed)
    root = cifar10 if damaged else tmp_path / "empty"
    if damaged:
        (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"short")
    with pytest.raises(BenchError) as error:
        catalog.load("cifar10", DataOptions(root=root))
    line = str(error.value)
    assert "\n" not in line
    for word in (str(root), "cifar-10-batches-py", "cifar-10-python.tar.gz", "--data-root"):
        assert word in line
    assert seen == [10.0]
    assert socket.getdefaulttimeout() is None


# --------------------------------------------------------------------------------- picture folders
def write_pictures(root: Path, part: str, classes: dict[str, int], side: int = 24) -> None:
    for number, (name, count) in enumerate(classes.items()):
        (root / part / name).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([number, i, len(part)])
            picture = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
            picture.save(root / part / name / f"{i:03}.png")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    write_pictures(root, "train", {"cat": 30, "dog": 20})
    write_pictures(root, "test", {"cat": 6, "dog": 4})
    (root / "train" / "cat" / "notes.txt").write_text("not a picture, and not called one")
    (root / "train" / "cat" / "._000.png").write_text("a Mac's note")
    (root / "train" / ".DS_Store").write_text("x")
    return root


def test_imagefolder_is_what_torchvision_reads(tree: Path) -> None:
    data = catalog.load(f"imagefolder:{tree}")
    truth = ImageFolder(tree / "train", is_valid_file=lambda path: "/0" in path)
    assert data.info.name == "imagefolder-pets"
    assert data.info.classes == tuple(truth.classes)
    assert data.info.size == 24
    assert data.full.labels.tolist() == truth.targets
    expected = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture, _ in truth])
    assert np.array_equal(pixels(data.full), expected)
    assert data.full.images.aspect is None  # all are square
    assert len(data.test) == 10
    check_parts(data)


def test_val_is_the_test_where_there_is_no_test(tree: Path) -> None:
    (tree / "test").rename(tree / "val")
    options = DataOptions()
    assert len(catalog.load(f"imagefolder:{tree}", options).test) == 10
    assert options.log == []


def test_val_beside_test_is_said_to_be_unused(tree: Path) -> None:
    write_pictures(tree, "val", {"cat": 2})
    options = DataOptions()
    assert len(catalog.load(f"imagefolder:{tree}", options).test) == 10
    assert "not used" in options.log[0]


def test_bare_class_folders_are_parted_and_it_is_said(tree: Path) -> None:
    options = DataOptions()
    first, again = (catalog.load(f"imagefolder:{tree / 'train'}", options) for _ in range(2))
    assert (len(first.full), len(first.test)) == (40, 10)
    assert first.test.labels.bincount().tolist() == [6, 4]
    assert first.info == again.info
    assert "10 of 50 were set apart" in options.log[0]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_pictures(tmp_path, "", {"bus": 20, "train": 20})
    assert catalog.load(f"imagefolder:{tmp_path}").info.classes == ("bus", "train")


def test_limit_of_a_folder_is_balanced(tree: Path) -> None:
    data = catalog.load(f"imagefolder:{tree}", DataOptions(limit=20))
    assert data.full.labels.bincount().tolist() == [12, 8]
    assert data.info.name == "imagefolder-pets-limit20"


def test_broken_pictures_are_left_out_with_their_labels(tree: Path) -> None:
    whole = catalog.load(f"imagefolder:{tree}")
    (tree / "train" / "cat" / "003.png").write_text("a text file among pictures")
    (tree / "train" / "dog" / "001.png").write_bytes(b"")
    options = DataOptions()
    data = catalog.load(f"imagefolder:{tree}", options)
    keep = [i for i in range(50) if i not in (3, 31)]
    assert np.array_equal(pixels(data.full), pixels(whole.full)[keep])
    assert torch.equal(data.full.labels, whole.full.labels[keep])
    assert data.info.n_train == 48
    assert options.log == [
        "left out a broken picture: train/cat/003.png (not a picture)",
        "left out a broken picture: train/dog/001.png (empty file)",
    ]
    with pytest.raises(BenchError, match=r"more than 1 pictures .*train/cat/003\.png"):
        catalog.load(f"imagefolder:{tree}", DataOptions(broken=1))


def test_folder_of_nothing_but_broken_pictures(tree: Path) -> None:
    for path in (tree / "train").glob("*/0*.png"):
        path.write_bytes(b"")
    with pytest.raises(BenchError, match="0 training and 10 test"):
        catalog.load(f"imagefolder:{tree}", DataOptions(broken=100))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagefolder:{root}/nowhere", "there is no folder .*nowhere"),
        ("imagefolder:{root}/train/cat", "no pictures in class folders"),
        ("imagefolder:{root}/train/.DS_Store", "there is no folder"),
        ("imagenet:{root}", "needs the folder .*val"),
        ("imagenet:{root}/nowhere", "needs the folder .*train"),
    ],
)
def test_wrong_folders_are_one_clear_line(tree: Path, spec: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        catalog.load(spec.format(root=tree))


def test_a_link_to_nowhere_is_named(tree: Path) -> None:
    (tree / "train" / "cat" / "030.png").symlink_to(tree / "nowhere.png")
    with pytest.raises(BenchError, match=r"cat/030\.png cannot be read: No such file"):
        catalog.load(f"imagefolder:{tree}")


def test_test_class_unknown_in_training(tree: Path) -> None:
    write_pictures(tree, "test", {"zebra": 2})
    with pytest.raises(BenchError, match="zebra"):
        catalog.load(f"imagefolder:{tree}")


def test_imagenet_is_squashed_beside_its_aspect(tmp_path: Path) -> None:
    write_pictures(tmp_path, "train", {"n01": 10, "n02": 10})
    write_pictures(tmp_path, "val", {"n01": 2, "n02": 2})
    (tmp_path / "test").mkdir()  # ImageNet's own test pictures have no labels
    Image.new("RGB", (60, 40), "red").save(tmp_path / "train" / "n01" / "000.png")
    data = catalog.load(f"imagenet:{tmp_path}")
    assert data.info.size == 256
    assert data.info.mean == (0.485, 0.456, 0.406)
    assert data.full.images.aspect[:2].tolist() == [1.5, 1.0]
    assert len(data.test) == 4


def test_lazy_sets_hold_the_same_pictures(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = catalog.load(f"imagefolder:{tree}")
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    lazy = catalog.load(f"imagefolder:{tree}", DataOptions(workers=3))
    assert isinstance(lazy.train.images, FolderImages)
    assert np.array_equal(pixels(lazy.full), pixels(decoded.full))
    assert np.array_equal(pixels(lazy.train), pixels(lazy.full.take(kept_of(lazy))))
    assert lazy.info.digest == catalog.load(f"imagefolder:{tree}").info.digest
    (tree / "train" / "cat" / "000.png").write_bytes(b"another size")
    assert lazy.info.digest != catalog.load(f"imagefolder:{tree}").info.digest


def kept_of(data: DataSet) -> torch.Tensor:
    assert isinstance(data.full.images, FolderImages)
    assert isinstance(data.train.images, FolderImages)
    return torch.tensor([data.full.images.paths.index(path) for path in data.train.images.paths])


def test_digest_is_of_pixels_and_labels(tree: Path) -> None:
    before = catalog.load(f"imagefolder:{tree}").info.digest
    (tree / "train" / "cat" / "000.png").rename(tree / "train" / "cat" / "000b.png")
    assert catalog.load(f"imagefolder:{tree}").info.digest == before
    (tree / "train" / "cat" / "029.png").rename(tree / "train" / "dog" / "!.png")
    assert catalog.load(f"imagefolder:{tree}").info.digest != before


# --------------------------------------------------------------------------------- shared archives
@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setenv("BENCH_SHARED_DATA", str(folder))
    write_pictures(tmp_path / "mirror", "train", {"cat": 15, "dog": 15}, side=32)
    write_pictures(tmp_path / "mirror", "test", {"cat": 2, "dog": 2}, side=32)
    with tarfile.open(folder / "cifar10-jpeg75.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "mirror", "cifar10-jpeg75")
    digest = hashlib.sha256((folder / "cifar10-jpeg75.tar.xz").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  cifar10-jpeg75.tar.xz\n")
    return folder


def test_archive_is_unpacked_once(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = catalog.load("cifar10-jpeg75")
    assert (data.info.name, len(data.full), len(data.test)) == ("cifar10_jpeg75", 30, 4)
    monkeypatch.setattr(tarfile, "open", None)
    assert catalog.load("cifar10_jpeg75").info == data.info


def test_archive_is_found_beside_the_working_folder(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_SHARED_DATA")
    (tmp_path / "other" / "shared").mkdir(parents=True)
    shared.rename(tmp_path / "other" / "shared" / "data")
    (tmp_path / "other" / "project").mkdir()
    monkeypatch.chdir(tmp_path / "other" / "project")
    expected = tmp_path / "other" / "shared" / "data" / "cifar10-jpeg75.tar.xz"
    assert archive.find("cifar10-jpeg75.tar.xz") == expected


def test_damaged_archives_are_named(shared: Path) -> None:
    path = shared / "cifar10-jpeg75.tar.xz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match="is damaged: its sha256"):
        catalog.load("cifar10_jpeg75")
    (shared / "SHA256SUMS").unlink()
    with pytest.raises(BenchError, match="is damaged"):
        catalog.load("cifar10_jpeg75")
    left = list((shared.parent / "cache" / "data" / "archives").iterdir())
    assert left == []


def test_archive_that_reaches_outside_is_refused(shared: Path) -> None:
    with tarfile.open(shared / "imagenette96.tar.xz", "w:xz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    with pytest.raises(BenchError, match="is damaged"):
        catalog.load("imagenette96")


@pytest.mark.parametrize("name", ["imagenette96", "cifar10_lossless", "coco_voc20", "pennfudan"])
def test_absent_archives_are_one_clear_line(shared: Path, name: str) -> None:
    with pytest.raises(BenchError, match=r"is not in .*shared; .*\$BENCH_SHARED_DATA"):
        catalog.load(name)


def test_two_processes_may_unpack_at_once(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = tarfile.TarFile.extractall

    def slow(self: tarfile.TarFile, path: Path, **kwargs: object) -> None:
        extract(self, path, **kwargs)
        if monkeypatch_once:
            monkeypatch_once.pop()
            archive.unpacked("cifar10-jpeg75.tar.xz")  # another process is done meanwhile

    monkeypatch_once = [True]
    monkeypatch.setattr(tarfile.TarFile, "extractall", slow)
    folder = archive.unpacked("cifar10-jpeg75.tar.xz")
    assert len(list(folder.glob("train/*/*.png"))) == 30
    assert len(list(folder.parent.parent.iterdir())) == 1


def test_lossless_arrays(shared: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (120, 32, 32, 3), np.uint8), np.arange(120) % 10
    path = shared / "cifar10-lossless-subset.npz"
    np.savez(path, x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    data = catalog.load("cifar10_lossless")
    assert np.array_equal(pixels(data.full).transpose(0, 2, 3, 1), x[:100])
    assert np.array_equal(pixels(data.test).transpose(0, 2, 3, 1), x[100:])
    assert data.test.labels.tolist() == y[100:].tolist()
    check_parts(data)


# ------------------------------------------------------------------------------- the real pictures
def need(name: str) -> None:
    try:
        archive.find(name)
    except BenchError as error:
        pytest.skip(str(error))


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache for all real sets: unpacking is slow."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_real_cifar10_pixels() -> None:
    need("cifar10-lossless-subset.npz")
    data = catalog.load("cifar10_lossless")
    assert (len(data.full), len(data.train), len(data.test)) == (4660, 4194, 932)
    found = channel_statistics(torch.from_numpy(pixels(data.full)))
    assert found.mean == pytest.approx(data.info.mean, abs=0.01)
    assert found.std == pytest.approx(data.info.std, abs=0.01)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
def test_real_jpeg_mirror_resembles_the_true_pixels() -> None:
    need("cifar10-jpeg75.tar.xz")
    need("cifar10-lossless-subset.npz")
    mirror, truth = catalog.load("cifar10_jpeg75"), catalog.load("cifar10_lossless")
    assert mirror.info.classes == truth.info.classes
    assert mirror.full.labels.bincount().tolist() == [5000] * 10
    assert mirror.test.labels.bincount().tolist() == [1000] * 10
    # A true test picture has its mirror image in the same class, at about 30 dB.
    members = pixels(mirror.test.take((mirror.test.labels == 3).nonzero().flatten()))
    wanted = pixels(truth.test.take((truth.test.labels == 3).nonzero().flatten()))[:10]
    error = ((members[None].astype(np.float32) - wanted[:, None]) ** 2).mean((2, 3, 4)).min(1)
    assert np.median(10 * np.log10(255**2 / error)) > 28


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
def test_real_imagenette() -> None:
    need("imagenette96.tar.xz")
    data = catalog.load("imagenette96")
    assert (len(data.full), len(data.test), data.info.size) == (9469, 3925, 96)
    assert data.info.classes[0] == "n01440764"
    assert len(catalog.load("imagenette96", DataOptions(limit=1000)).full) == 1000


def test_grey_pictures_are_told_from_colour() -> None:
    assert "color" not in catalog.load("digits").info.has
    assert "color" in catalog.load("scenes:16", DataOptions(limit=24)).info.has
