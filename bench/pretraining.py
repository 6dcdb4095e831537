"""Pretraining once: what identifies it, where its weights are kept, and when they are reused."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from bench import backbones, checkpoint, engine, files, rng
from bench.api import DataInfo, Method
from bench.data.dataset import Split
from bench.engine import EngineConfig, Trained
from bench.errors import BenchError, BusyError
from bench.features import tensors_digest, weights_digest
from bench.progress import Reporter
from bench.resolve import Resolved

ENGINE_VERSION = 1  # part of every pretraining's identity; bump when the loop's numbers change
CONFIG, FINAL, DONE = "config.json", "final.safetensors", "trained.json"


def identity(resolved: Resolved, split: Split, method: Method) -> dict[str, Any]:
    """Everything that the trained weights depend on; its hash names their folder."""
    tree = resolved.tree()
    parts = {
        "engine": ENGINE_VERSION,
        "method": tree["method"]["name"],
        "version": tree["method"]["version"],
        "config": tree["method"]["config"],
        "source": source_sha256(resolved.method),
        "backbone": tree["backbone"],
        "data": split.digest,
        "seed": resolved.seed,
        "device": resolved.engine.device,
        "precision": resolved.engine.precision,
        "compile": resolved.engine.compile,
    }
    if resolved.engine.kernels != "reference":  # their sums round otherwise
        parts["kernels"] = resolved.engine.kernels
    if "pretrained" in resolved.needs:
        parts["weights"] = weights_digest(method)  # a file's name says nothing of its content
    if "weights" not in parts and (told := files.content_digests(tree["method"]["config"])):
        parts["files"] = told  # lists of labels: a path says nothing of what is in it
    frozen = {name: p for name, p in method.named_parameters() if not p.requires_grad}
    if frozen and "weights" not in parts:  # those of a network that a loss is measured by
        parts["frozen"] = tensors_digest(frozen)
    return parts


def check_needs(resolved: Resolved, info: DataInfo) -> None:
    """Tell whether the data have what the method needs.

    Raises:
        BenchError: they lack labels, captions, or the like.
    """
    for need in sorted(resolved.needs - {"pretrained"}):
        if ("labels" if need == "labeled" else need) not in info.has:
            raise BenchError(f"method {resolved.method_name} needs {need}; {info.name} has none")


def build(resolved: Resolved, info: DataInfo) -> Method:
    """The method at its initialisation, which the seed alone decides.

    Raises:
        BenchError: a setting does not fit the method's views or optimisers.
    """
    pretrained = "pretrained" in resolved.needs
    cfg: Any = resolved.method_cfg
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(resolved.seed, "init"))
        backbone = backbones.build(
            resolved.backbone,
            cfg.input_size if pretrained else info.size,
            pretrained and cfg.weights is None,
            **resolved.backbone_options,
        )
        method = resolved.method(cfg, backbone, info)
    try:
        method.views()
        for phase in method.phases:
            method.optim(phase)
    except ValidationError as error:  # told now, in one line, and not once training begins
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BenchError(
            f"method {resolved.method_name}: a setting does not fit {error.title}.{where}: "
            f"{fault['msg']} (got {fault['input']!r})"
        ) from error
    return method


def learns(resolved: Resolved) -> bool:
    """Whether the method takes anything from the training pictures, by epochs or before them."""
    fits = resolved.method.initialize is not Method.initialize
    return fits or resolved.method_cfg.epochs > 0


def pretrain(
    method: Method,
    split: Split,
    resolved: Resolved,
    folder: Path,
    reporter: Reporter,
    resume: bool,
) -> tuple[Trained, bool]:
    """Train `method`, or take the finished weights of the same pretraining; the flag says which.

    Raises:
        BenchError: another process is training the same, or weights or checkpoints are damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        done = folder / DONE
        if not resume:
            done.unlink(missing_ok=True)
            checkpoint.clear(folder)
        if done.exists():
            trained = restore(method, folder, resolved.engine)
            reporter.line(f"pretraining {folder.name} was done before; nothing is trained again")
            return trained, True
        files.write_text(folder / CONFIG, json.dumps(resolved.tree(), indent=2) + "\n")
        trained = engine.fit(
            method,
            split,
            resolved.engine,
            seed=resolved.seed,
            folder=folder,
            reporter=reporter,
        )
        if trained.status == "ok":
            weights = to_safetensors(
                {k: v.detach().cpu().contiguous().clone() for k, v in method.state_dict().items()}
            )
            final = folder / FINAL
            files.write_atomic(final, lambda file: file.write(weights))
            summary = {**asdict(trained), "sha256": files.sha256_file(final)}
            files.write_text(done, json.dumps(summary, indent=2) + "\n")
            checkpoint.clear(folder)
        return trained, False


def final_sha256(folder: Path) -> str | None:
    """The sha256 of a pretraining's final weights, where it has any."""
    final = folder / FINAL
    return files.sha256_file(final) if final.exists() else None


def source_sha256(method: type[Method]) -> str | None:
    """The sha256 of a method's file where it is not one of ours."""
    if method.__module__.startswith("methods."):
        return None
    path = inspect.getsourcefile(method)
    return files.sha256_file(Path(path)) if path else None


def restore(method: Method, folder: Path, cfg: EngineConfig) -> Trained:
    """Load the finished weights in `folder` into `method`; what their training came to.

    Raises:
        BenchError: the weights are damaged.
    """
    try:
        summary = json.loads((folder / DONE).read_text())
        sha256 = summary.pop("sha256")
        trained = Trained(**summary)
        path = folder / FINAL
        if files.sha256_file(path) != sha256:
            raise ValueError(f"{path.name} does not have the sha256 it was written with")
        method.load_state_dict(load_file(path))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BenchError(
            f"the finished weights in {folder} are damaged: {reason}. "
            "Put back a good copy, or delete that folder to train again"
        ) from error
    method.to(cfg.fabric().device)
    return trained


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `file`.

    Raises:
        BusyError: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"another process is at this very configuration (lock {file}); "
            "wait for it and run again, the result will be reused"
        ) from error
    try:
        yield
    finally:
        lock.release()
