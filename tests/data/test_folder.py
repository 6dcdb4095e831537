"""Decoding picture files: colours, geometry, broken files, order and the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.v2 import functional as tvf

from bench.data import folder, stored
from bench.data.decode import UndecodableError, is_picture, read_rgb
from bench.data.folder import Broken, FolderImages
from bench.data.stored import store
from bench.errors import BenchError

SIZE = 16


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def noise(height: int = SIZE, width: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    """A picture that JPEG keeps nearly unchanged, brighter to the right, redder downwards."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    rgb = np.stack([255 * y, 255 * x, 127 * (x + y)], -1)
    return Image.fromarray(rgb.astype(np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for i in range(40):
        Image.fromarray(noise(SIZE + i % 3, SIZE, seed=i)).save(tmp_path / f"{i:02}.png")
    return [f"{i:02}.png" for i in range(40)]


def images(root: Path, paths: list[str], workers: int = 2, limit: int = 10) -> FolderImages:
    return FolderImages(root, paths, SIZE, Broken(limit, []), workers)


def everything(source: FolderImages, batch: int = 7) -> tuple[Tensor, Tensor]:
    batches = list(source.stream(torch.arange(len(source)).split(batch)))
    return torch.cat([index for index, _ in batches]), torch.cat([x for _, x in batches])


# ------------------------------------------------------------------------------------ one picture
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_png_of_every_mode_is_read_as_torchvision_reads_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(noise()).convert(mode).save(path)
    expected = read_image(str(path), ImageReadMode.RGB)
    assert torch.equal(torch.from_numpy(read_rgb(path, SIZE)[0].copy()), expected)


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    palette = Image.fromarray(noise()).convert("P")
    palette.save(path, transparency=bytes(range(256)))
    assert np.array_equal(
        read_rgb(path, SIZE)[0], np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    grey = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    Image.fromarray(grey).save(path)
    pixels, _ = read_rgb(path, SIZE)
    assert np.abs(pixels - grey / 65535 * 255).max() <= 1


def test_cmyk_jpeg_has_the_colours_of_the_rgb_one(tmp_path: Path) -> None:
    smooth(SIZE, SIZE).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    expected = np.asarray(smooth(SIZE, SIZE)).transpose(2, 0, 1).astype(int)
    assert np.abs(read_rgb(tmp_path / "cmyk.jpg", SIZE)[0] - expected).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(24, 48).save(path, exif=exif, quality=95)
    upright = read_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)
    expected = tvf.resize(upright, [SIZE, SIZE], antialias=True)
    pixels, aspect = read_rgb(path, SIZE)
    assert aspect == upright.shape[2] / upright.shape[1]
    assert (torch.from_numpy(pixels.copy()).int() - expected.int()).abs().max() <= 4


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert read_rgb(path, SIZE)[0].reshape(3, -1).T.tolist() == [[255, 0, 0]] * SIZE * SIZE


def test_squashing_is_antialiased_bilinear(tmp_path: Path) -> None:
    """Against torch's own resampling, which is another implementation than Pillow's."""
    path = tmp_path / "x.png"
    Image.fromarray(noise(90, 61)).save(path)
    pixels, aspect = read_rgb(path, SIZE)
    expected = tvf.resize(read_image(str(path)), [SIZE, SIZE], antialias=True)
    assert aspect == 61 / 90
    assert (torch.from_numpy(pixels.copy()).int() - expected.int()).abs().max() <= 1


def test_large_jpeg_is_decoded_smaller_without_a_visible_difference(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    smooth(800, 600).save(path, quality=95)
    expected = tvf.resize(read_image(str(path)), [SIZE, SIZE], antialias=True).int()
    pixels, aspect = read_rgb(path, SIZE)
    assert aspect == pytest.approx(0.75)
    assert (torch.from_numpy(pixels.copy()).int() - expected).abs().max() <= 3


def test_what_counts_as_a_picture() -> None:
    assert is_picture("a.JPEG") and is_picture("b.webp")
    assert not any(map(is_picture, ["notes.txt", ".DS_Store", "Thumbs.db", "._a.jpg", "a"]))


# --------------------------------------------------------------------------------- broken pictures
def break_some(root: Path) -> None:
    (root / "03.png").write_text("this is a text")
    (root / "17.png").write_bytes(b"")
    smooth(64, 64).save(root / "whole.jpg")
    (root / "21.png").write_bytes((root / "whole.jpg").read_bytes()[:400])


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"a text among pictures", "not a picture")]
)
def test_reason_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UndecodableError, match=reason):
        read_rgb(tmp_path / "x.jpg", SIZE)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif", "x.bmp", "x.tif"])
def test_truncated_files_of_every_format_are_broken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UndecodableError):
        read_rgb(path, SIZE)


def test_broken_pictures_are_left_out_and_named_once(tmp_path: Path, pictures: list[str]) -> None:
    break_some(tmp_path)
    source = images(tmp_path, pictures)
    index, pixels = everything(source)
    everything(source)
    assert index.tolist() == [i for i in range(40) if i not in (3, 17, 21)]
    assert len(pixels) == 37
    assert [line.split(": ")[1].split()[0] for line in source.broken.log] == [
        "03.png",
        "17.png",
        "21.png",
    ]
    assert source.aspect.isnan().nonzero().flatten().tolist() == [3, 17, 21]


def test_too_many_broken_pictures_are_an_error(tmp_path: Path, pictures: list[str]) -> None:
    break_some(tmp_path)
    with pytest.raises(BenchError, match=r"more than 2 .*03\.png \(not a picture\).*data\.broken"):
        everything(images(tmp_path, pictures, limit=2))


def test_batch_of_only_broken_pictures_is_empty(tmp_path: Path, pictures: list[str]) -> None:
    (tmp_path / "01.png").write_text("")
    batches = list(images(tmp_path, pictures).stream(torch.arange(3).split(1)))
    assert [index.tolist() for index, _ in batches] == [[0], [], [2]]
    assert [len(pixels) for _, pixels in batches] == [1, 0, 1]


# ------------------------------------------------------------------------------- order and workers
def test_result_does_not_depend_on_the_workers(tmp_path: Path, pictures: list[str]) -> None:
    break_some(tmp_path)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).repeat(2)
    alone, many = images(tmp_path, pictures, 1), images(tmp_path, pictures, 5)
    for (i, x), (j, y) in zip(
        alone.stream(order.split(9)), many.stream(order.split(9)), strict=True
    ):
        assert torch.equal(i, j)
        assert torch.equal(x, y)
    assert alone.broken.log == many.broken.log


def test_stream_keeps_the_order_asked_for(tmp_path: Path, pictures: list[str]) -> None:
    order = [torch.tensor([5, 2, 2]), torch.tensor([39]), torch.tensor([0, 5])]
    for asked, (index, pixels) in zip(order, images(tmp_path, pictures).stream(order), strict=True):
        assert torch.equal(index, asked)
        for row, position in enumerate(asked.tolist()):
            expected, _ = read_rgb(tmp_path / pictures[position], SIZE)
            assert np.array_equal(pixels[row].numpy(), expected)


def test_endless_orders_are_read_only_a_little_ahead(tmp_path: Path, pictures: list[str]) -> None:
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield torch.tensor([0])

    stream = images(tmp_path, pictures).stream(endless())
    for _ in range(5):
        next(stream)
    stream.close()
    assert 5 <= len(asked) <= 5 + folder.AHEAD


def test_aspect_is_there_when_a_batch_is_yielded(tmp_path: Path, pictures: list[str]) -> None:
    source = images(tmp_path, pictures)
    for index, _ in source.stream([torch.tensor([4, 5])]):
        expected = [SIZE / (SIZE + i % 3) for i in index.tolist()]
        assert source.aspect[index].tolist() == pytest.approx(expected)
    assert source.aspect[6].isnan()


def test_take_reads_the_same_pictures(tmp_path: Path, pictures: list[str]) -> None:
    source = images(tmp_path, pictures)
    _, pixels = everything(source)
    index = torch.tensor([7, 3, 39])
    taken = source.take(index)
    assert torch.equal(everything(taken)[1], pixels[index])
    assert torch.equal(taken.aspect, source.aspect[index])


# --------------------------------------------------------------------------------------- the cache
def test_small_sets_are_decoded_once(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_some(tmp_path)
    lazy = images(tmp_path, pictures)
    index, pixels = everything(lazy)
    first = store(images(tmp_path, pictures), "listing")
    monkeypatch.setattr(folder, "read_rgb", None)  # from here on nothing can be decoded
    again = images(tmp_path, pictures)
    second = store(again, "listing")
    for result in (first, second):
        assert torch.equal(result.kept, index)
        assert torch.equal(result.images.pixels, pixels)
        assert torch.equal(result.images.aspect, lazy.aspect[index])
    assert second.digest == first.digest
    assert again.broken.log == lazy.broken.log


def test_a_damaged_cache_is_named_and_decoded_anew(tmp_path: Path, pictures: list[str]) -> None:
    first = store(images(tmp_path, pictures), "listing")
    (pixel_file,) = tmp_path.glob("cache/data/pixels/*.npy")
    pixel_file.write_bytes(pixel_file.read_bytes()[:40])
    with pytest.raises(BenchError, match="is damaged; run again"):
        store(images(tmp_path, pictures), "listing")
    assert store(images(tmp_path, pictures), "listing").digest == first.digest


def test_cached_sets_still_obey_the_limit_of_broken_pictures(
    tmp_path: Path, pictures: list[str]
) -> None:
    break_some(tmp_path)
    store(images(tmp_path, pictures), "listing")
    with pytest.raises(BenchError, match="more than 1 pictures"):
        store(images(tmp_path, pictures, limit=1), "listing")


def test_a_picture_that_was_replaced_is_decoded_again(tmp_path: Path, pictures: list[str]) -> None:
    before = store(images(tmp_path, pictures), "listing")
    Image.fromarray(noise(seed=99)).save(tmp_path / "00.png")
    after = store(images(tmp_path, pictures), "listing")
    assert after.digest != before.digest
    assert not torch.equal(after.images.pixels[0], before.images.pixels[0])
    assert torch.equal(after.images.pixels[1:], before.images.pixels[1:])


def test_large_sets_stay_lazy_with_the_statistics_of_a_sample(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = store(images(tmp_path, pictures), "listing")
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    lazy = store(images(tmp_path, pictures), "listing")
    assert isinstance(lazy.images, FolderImages)
    assert lazy.digest == store(images(tmp_path, pictures), "listing").digest
    larger = FolderImages(tmp_path, pictures, 2 * SIZE, Broken(10, []), 2)
    assert lazy.digest not in (store(larger, "listing").digest, in_memory.digest)
    assert lazy.statistics == in_memory.statistics  # the sample is all forty
    monkeypatch.setattr(folder, "read_rgb", None)
    assert store(images(tmp_path, pictures), "listing").statistics == lazy.statistics
