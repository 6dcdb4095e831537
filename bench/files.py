"""Where things are kept, and how files are written: atomically, or not at all."""

from __future__ import annotations

import ast
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from bench.errors import BenchError


def cache_root() -> Path:
    """The folder for rendered data, checkpoints and features (`$BENCH_CACHE`)."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "ssl-bench")


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    A reader, a kill or a full disk sees the old file or the new one, never a part.

    Raises:
        BenchError: the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            write(file)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(
                f"the disk is full: could not write {path}. Free some space and run the same "
                "command again; it continues where it stopped"
            ) from error
        raise BenchError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()))


def sha256_file(path: Path) -> str:
    """The hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary_of(path: Path) -> str:
    """The first line of a Python file's docstring, read without importing the file."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0]


def content_digests(settings: Mapping[str, object]) -> dict[str, str]:
    """A digest of every file or folder that a setting names, by setting.

    A file's is of its content, a folder's of its files' names and sizes. Only text that looks like
    a path counts: with a separator or a suffix.
    """
    found = {}
    for key, value in settings.items():
        if not isinstance(value, str) or not ("/" in value or Path(value).suffix):
            continue
        path = Path(value).expanduser()
        if path.is_file():
            found[key] = sha256_file(path)
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            told = [f"{file.relative_to(path)} {file.stat().st_size}" for file in files]
            found[key] = hashlib.sha256("\n".join(told).encode()).hexdigest()
    return found
