"""The shared archives of real pictures: where they are, and unpacking them into the cache."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from bench.errors import AbsentError, BenchError
from bench.files import cache_root, sha256_file

_REPOSITORY = Path(__file__).parents[2]


def find(name: str) -> Path:
    """The shared file `name`, intact by the SHA256SUMS beside it (where there are any).

    It is looked for in `$BENCH_SHARED_DATA`, else in `../shared/data` as seen from the current
    folder or from the repository.

    Raises:
        BenchError: it is nowhere, or it is damaged.
    """
    return _checked(name)[0]


def unpacked(name: str) -> Path:
    """The one folder that the shared archive `name` holds, unpacked into the cache.

    Raises:
        BenchError: the archive is absent or damaged, or the cache cannot be written.
    """
    archive, digest = _checked(name)
    # Named by content, so that an archive that was replaced is unpacked anew.
    place = cache_root() / "data" / "archives" / f"{name.partition('.')[0]}-{digest[:12]}"
    if not place.exists():
        _unpack(archive, place)
    inside = [path for path in place.iterdir() if path.is_dir()]
    if len(inside) != 1:
        raise BenchError(f"{archive} should hold one folder, but holds {len(inside)}")
    return inside[0]


def _checked(name: str) -> tuple[Path, str]:
    given = os.environ.get("BENCH_SHARED_DATA")
    beside = [Path.cwd().parent, _REPOSITORY.parent]
    folders = [Path(given)] if given else [parent / "shared" / "data" for parent in beside]
    for folder in folders:
        path = folder / name
        if path.is_file():
            digest = sha256_file(path)
            if _expected(path) not in (None, digest):
                raise BenchError(f"{path} is damaged: its sha256 is not the one in SHA256SUMS")
            return path, digest
    raise AbsentError(
        f"{name} is not in {folders[0]}; name the folder that holds it with $BENCH_SHARED_DATA"
    )


def _expected(path: Path) -> str | None:
    sums = path.with_name("SHA256SUMS")
    for line in sums.read_text("utf-8").splitlines() if sums.exists() else ():
        digest, _, name = line.partition(" ")
        if name.lstrip(" *") == path.name:
            return digest
    return None


def _unpack(archive: Path, place: Path) -> None:
    """Unpack beside `place`, then move there: it is whole or absent, also with two at once."""
    temporary: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        temporary.chmod(0o755)
        try:
            temporary.rename(place)
        except OSError:
            if not place.exists():  # else another process was faster, and its copy is as good
                raise
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise BenchError(f"{archive} is damaged: {error}") from error
    except OSError as error:
        raise BenchError(f"could not unpack {archive} into {place.parent}: {error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
