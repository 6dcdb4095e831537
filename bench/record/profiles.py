"""The profiles in `results/profile/<kind>/<id>.json`.

Unlike a result, a profile is measured again and never reproduced, and the newest is shown. It is
written after every few rows, so that a killed one can go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from bench.files import write_text
from bench.record.profile import DataProfile, LossProfile, Profile, StepProfile
from bench.record.schema import EnvironmentRecord, Json, now, run_id
from bench.record.store import PROFILES, load_each

Kind = TypeVar("Kind", StepProfile, LossProfile, DataProfile)
PACKAGES = (
    "triton",
    "numpy",
    "pillow",
    "lightly",
    "kornia",
    "open_clip_torch",
    "pytorch-metric-learning",
    "inf-cl",
    "liger-kernel",
)
_ANY: TypeAdapter[Profile] = TypeAdapter(Annotated[Profile, Field(discriminator="kind")])


def begin(
    root: Path,
    kind: type[Kind],
    settings: Json,
    environment: EnvironmentRecord,
    *,
    resume: bool = True,
) -> Kind:
    """A profile to add rows to: the newest unfinished one of the same settings, or a new one.

    Args:
        root: the results folder.
        kind: of profile.
        settings: all that was asked for.
        environment: where it runs; in another one, commit and versions of peers included, it is
            another profile. Code that differs from its commit may be any: none is gone on with.
        resume: whether to go on with an unfinished one.
    """
    new = kind(
        id="0" * 12,
        created=now(),
        settings=settings,
        environment=environment,
        packages=dict(_packages()),
    )
    for _, old in reversed(load(root)[0] if resume and not environment.dirty else []):
        if isinstance(old, kind) and not old.complete and _same(old) == _same(new):
            return old
    identity = new.model_dump(mode="json", exclude={"id"})
    return new.model_copy(update={"id": run_id(identity)})


def _same(profile: Profile) -> tuple[object, ...]:
    return profile.settings, profile.environment, profile.packages


def _packages() -> Iterator[tuple[str, str]]:
    """Those of PACKAGES that are installed, with their versions."""
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def path_of(root: Path, profile: Profile) -> Path:
    """Where under `root` a profile lives."""
    return root / PROFILES / profile.kind / f"{profile.id}.json"


def write(root: Path, profile: Profile) -> Path:
    """Write `profile` as it is now, over what was there of it; returns its path."""
    path = path_of(root, profile)
    write_text(path, profile.model_dump_json(indent=2) + "\n")
    return path


def load(root: Path) -> tuple[list[tuple[Path, Profile]], list[str]]:
    """Every profile under `root` with its path, oldest first, and a line on each foreign file."""
    paths = sorted((root / PROFILES).rglob("*.json"))
    found, problems = load_each(root, paths, _ANY.validate_json, path_of)
    return sorted(found, key=lambda item: (item[1].created, item[1].id)), problems
