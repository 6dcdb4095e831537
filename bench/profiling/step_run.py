"""`bench profile step`: methods in turn, each written to the profile as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import environment, files, registry
from bench.data import catalog
from bench.data.dataset import DataSet
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.profiling import memory, peer_step, step, step_roof, step_table
from bench.profiling.step import Asked
from bench.record import profiles
from bench.record.profile import StepProfile, StepRow
from bench.resolve import data_options, validated
from bench.suite import Block

Tell = Callable[[str], None]


def run(
    methods: Sequence[str],
    options: Mapping[str, Any],
    asked: Asked,
    root: Path,
    tell: Tell,
    *,
    resume: bool = True,
) -> tuple[StepProfile, Path]:
    """Profile the step of every one of `methods`, and write the profile after each.

    Several are a table: where one cannot be profiled, its row says why. One alone is told.

    Args:
        methods: names of `bench list methods`, or files.
        options: those of `bench run`, of all methods.
        asked: how to profile.
        root: the results folder.
        tell: takes a line on each step that is done.
        resume: whether to go on with an unfinished profile of the same.

    Raises:
        BenchError: an unknown name or setting, or one method alone cannot be profiled.
    """
    blocks = [validated(Block, {**options, "methods": name}, "this profile") for name in methods]
    several = len(blocks) > 1
    for block in blocks:
        block.check_names()
    if asked.peer is not None:
        peer_step.check(asked.peer, None if several else blocks[0].methods[0])
    overrides = blocks[0].overrides()
    engine = validated(EngineConfig, overrides["engine"], "the engine").resolved()
    data = catalog.load(blocks[0].data, data_options(overrides["data"]))
    device = engine.fabric().device
    shared = blocks[0].model_dump(mode="json", exclude={"methods", "protocols", "eval_data"})
    settings = {
        "methods": [registry.plain_name(name) for name in methods],
        "seconds": asked.seconds,
        "peer": asked.peer,
        "files": {name: files.sha256_file(Path(name)) for name in methods if name.endswith(".py")},
        **shared,
        **engine.model_dump(mode="json"),
    }
    described = environment.describe(device)
    profile = profiles.begin(root, StepProfile, settings, described, resume=resume)
    tell("measuring what the device can do at most")  # in every sitting: it may be busier now
    profile = profile.model_copy(update={"roof": step_roof.measure(device)})
    asked = replace(asked, roof=profile.roof)
    done = {row.method for row in profile.rows}
    for block in blocks:
        if registry.plain_name(block.methods[0]) in done:
            continue
        rows = tuple(_rows(block, data, engine, asked, several))
        profile = profile.model_copy(update={"rows": (*profile.rows, *rows)})
        profiles.write(root, profile)
        for row in rows:
            tell(step_table.line(row))
    profile = profile.model_copy(update={"complete": True})
    return profile, profiles.write(root, profile)


def _rows(
    block: Block, data: DataSet, engine: EngineConfig, asked: Asked, several: bool
) -> Iterator[StepRow]:
    """A method's rows; where several are profiled, a method that cannot be is a row."""
    name = registry.plain_name(block.methods[0])
    if asked.peer is not None and not peer_step.offers(asked.peer, name):
        asked = replace(asked, peer=None)
    backbone, batch_size = block.backbones[0], 0
    try:
        (resolved,) = block.runs(data.info.size)
        backbone, batch_size = resolved.backbone, resolved.method_cfg.batch_size
        yield from step.profile(resolved, data, asked)
    except Exception as error:
        if not several:
            raise
        kind = "" if isinstance(error, BenchError) else f"{type(error).__name__}: "
        yield StepRow(
            method=name,
            backbone=backbone or "",
            data=data.info.name,
            size=data.info.size,
            batch_size=batch_size,
            precision=engine.precision,
            compiled=engine.compile,
            reason=kind + (str(error).strip().partition("\n")[0] or "failed"),
        )
    finally:
        memory.release()
