"""One run: configuration -> pretraining (or its reuse) -> frozen encoder -> protocol -> record."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bench import environment, files, pretraining, record, rng, spread
from bench.api import Classifier, DataInfo, Encoder, Method, Scores, View
from bench.data.dataset import DataSet, Split
from bench.engine import Trained
from bench.errors import BenchError
from bench.features import Evaluation, FeatureStore
from bench.kernels import dispatch
from bench.progress import Reporter
from bench.record import Record
from bench.resolve import Resolved, deviations


@dataclass
class Outcome:
    """A finished run: its record as stored, and the numbers of this very run beside it."""

    record: Record
    path: Path
    scores: Scores | None
    reproduced: bool = False  # the record was there before; it stands


def run(
    resolved: Resolved,
    data: DataSet,
    results: Path,
    reporter: Reporter,
    resume: bool = True,
    target: DataSet | None = None,
) -> Outcome:
    """Do what `resolved` says on `data`, and store the record under `results`.

    `resume=False` trains from the start, whatever an earlier run of the configuration left.
    The protocol measures on `target` where one is given, whose pictures the encoder then sees at
    the size and with the normalisation that it was trained with.

    Raises:
        BenchError: bad input, a full disk, or the same run going on in another process.
    """
    planned = plan(resolved, data, target)
    folder = files.cache_root() / "runs" / planned.pretraining_id
    done = _Done(planned.run_id, folder)
    method, split, on = planned.method, planned.split, planned.on
    with pretraining.locked(files.cache_root() / "running" / f"{planned.run_id}.lock"):
        try:
            with dispatch.using(resolved.engine.kernels) as done.kernels:
                _train_and_measure(done, method, split, resolved, on, reporter, resume)
        except torch.OutOfMemoryError:
            done.status = "oom"
            done.message = "out of memory; use a smaller --batch-size or --precision bf16"
        return _store(_record(done, method, split, resolved, on), done.scores, results)


@dataclass(frozen=True)
class Plan:
    """A run before it is done: its identities, the method at its initialisation, and its data."""

    run_id: str
    pretraining_id: str
    method: Method
    split: Split  # what the method trains on
    on: DataSet  # what the protocol measures on

    def path(self, results: Path, resolved: Resolved) -> Path:
        """Where the run's record lies once there is one."""
        names = (resolved.protocol_name, self.on.info.name, resolved.method_name)
        return record.path_for(results, *names, self.run_id)


def plan(resolved: Resolved, data: DataSet, target: DataSet | None = None) -> Plan:
    """What `run` would do, with nothing trained.

    Raises:
        BenchError: method, protocol and data do not fit together.
    """
    split = data.train if resolved.sees_labels else data.full
    on = _as_seen_by(data, target) if target else data
    _check_needs(resolved, data.info, on.info)
    method = pretraining.build(resolved, replace(data.info, n_train=len(split)))
    _check_encoder(resolved, method)
    if resolved.protocol.takes is Classifier and on.info.classes != data.info.classes:
        raise BenchError(
            f"protocol {resolved.protocol_name} measures the method's own classifier, of the "
            f"classes of {data.info.name}; those of {on.info.name} are others"
        )
    identity = pretraining.identity(resolved, split, method)
    pretraining_id = record.run_id(identity)
    identity |= {"protocol": resolved.tree()["protocol"], "test": on.test.digest}
    if told := files.content_digests(resolved.tree()["protocol"]["config"]):
        identity["protocol_files"] = told
    return Plan(record.run_id(identity), pretraining_id, method, split, on)


@dataclass
class _Done:
    """What a run has come to so far."""

    run_id: str
    folder: Path  # of the pretraining's checkpoints
    status: record.Status = "ok"
    message: str | None = None
    trained: Trained = field(default_factory=lambda: Trained("ok"))
    reused: bool = False
    collapse: record.CollapseRecord | None = None
    scores: Scores | None = None
    eval_seconds: float | None = None
    kernels: dict[str, str] = field(default_factory=dict)  # op -> implementation that ran here

    def logged(self) -> dict[str, float]:
        """What the last epoch of training logged."""
        last = self.trained.history[-1] if self.trained.history else {}
        return {key: value for key, value in last.items() if key != "epoch"}


def _train_and_measure(
    done: _Done,
    method: Method,
    split: Split,
    resolved: Resolved,
    data: DataSet,
    reporter: Reporter,
    resume: bool,
) -> None:
    device = resolved.engine.fabric().device
    if pretraining.learns(resolved):
        done.trained, done.reused = pretraining.pretrain(
            method, split, resolved, done.folder, reporter, resume
        )
    method.to(device)
    if done.trained.status == "diverged":
        done.status = "diverged"
        done.message = f"the loss is not finite; the last good checkpoint is in {done.folder.name}"
        return
    started = time.perf_counter()
    encoder = method.encoder().to(device).requires_grad_(False).eval()
    # The weights are hashed by the store; this names the code around them.
    tag = record.canonical([resolved.method_name, method.version, resolved.method_cfg, method.data])
    store = FeatureStore(files.cache_root() / "features", encoder, tag, device, reporter)
    evaluation = Evaluation(data, store)
    done.collapse = _collapse(encoder, evaluation)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(rng.fold(resolved.seed, "protocol", resolved.protocol_name))
        done.scores = resolved.protocol().run(
            encoder, evaluation, resolved.protocol_cfg, resolved.seed
        )
    done.eval_seconds = time.perf_counter() - started
    if store.extracted == 0:
        reporter.line("every feature came from the cache; nothing was extracted again")
    done.message = spread.collapse(done.collapse.feature_std * encoder.dim**0.5, done.logged())
    if done.message:
        done.status = "collapsed"


def _record(done: _Done, method: Method, split: Split, resolved: Resolved, data: DataSet) -> Record:
    cfg, trained, scores = resolved.method_cfg, done.trained, done.scores
    tree = resolved.tree()
    parts = (data.train, data.val, data.test)
    return Record(
        run_id=done.run_id,
        created=record.now(),
        status=done.status,
        seed=resolved.seed,
        method=record.MethodRecord(
            **tree["method"],
            deviations=(*deviations(resolved.method, cfg), *method.backbone.notes),
            changed=resolved.changed(),
            labels_used=method.uses_labels,
            text_used="text" in resolved.needs,
            source_sha256=pretraining.source_sha256(resolved.method),
        ),
        backbone=_backbone_name(resolved),
        pretraining=record.PretrainRecord(
            id=done.folder.name,
            data=method.data.name,
            data_digest=split.digest,
            split=split.name,
            pictures=len(split) if pretraining.learns(resolved) else 0,
            views=[_view(view) for view in method.views()],
            epochs=cfg.epochs,
            images_seen=trained.images_seen,
            batch_size=cfg.batch_size,
            precision=resolved.engine.precision,
        ),
        data=record.DataRecord(
            name=data.info.name,
            digest=data.info.digest,
            splits={p.name: record.SplitRecord(digest=p.digest, size=len(p)) for p in parts},
        ),
        protocol=record.ProtocolRecord(
            **tree["protocol"], selection=scores.selected if scores else {}
        ),
        metric=record.MetricRecord(**asdict(resolved.protocol.metric)),
        metrics=scores.metrics if scores else {},
        per_layer=scores.per_layer if scores else {},
        collapse=done.collapse,
        cost=record.CostRecord(
            pretrain_seconds=trained.seconds if pretraining.learns(resolved) else None,
            pretrain_images_per_second=trained.images_per_second if cfg.epochs else None,
            eval_seconds=done.eval_seconds,
            peak_memory_bytes=trained.peak_memory,
            warmup_excluded=True,
            reused_pretraining=done.reused,
        ),
        environment=environment.describe(
            resolved.engine.fabric().device, dispatch.merged(trained.kernels, done.kernels)
        ),
        checkpoint_sha256=pretraining.final_sha256(done.folder),
        log=done.logged(),
        history=_by_name(trained.history),
        message=done.message,
    )


def _store(made: Record, scores: Scores | None, results: Path) -> Outcome:
    """Write the record, unless this run was recorded before: the first account stands then."""
    path = record.path_of(results, made)
    if path.exists():
        before = record.read(path)
        if before.status == "ok":
            return Outcome(before, path, scores, reproduced=True)
    path = record.write(results, made, _beside(scores) if scores else None)
    return Outcome(record.read(path), path, scores)


def _beside(scores: Scores) -> record.Beside:
    predictions = None
    if scores.predictions is not None and scores.labels is not None:
        predictions = (scores.predictions.cpu().numpy(), scores.labels.cpu().numpy())
    arrays = {name: array.cpu().numpy() for name, array in scores.arrays.items()}
    return record.Beside(predictions, arrays, scores.figure)


def _as_seen_by(data: DataSet, target: DataSet) -> DataSet:
    own = data.info
    return replace(target, info=replace(target.info, size=own.size, mean=own.mean, std=own.std))


def _check_needs(resolved: Resolved, info: DataInfo, on: DataInfo) -> None:
    pretraining.check_needs(resolved, info)
    for need in sorted(resolved.protocol.requires):
        if need not in on.has:
            raise BenchError(
                f"protocol {resolved.protocol_name} needs {need}; {on.name} has none "
                "(--eval-data names other data to evaluate on)"
            )


def _check_encoder(resolved: Resolved, method: Method) -> None:
    takes = resolved.protocol.takes
    if not isinstance(method.encoder(), takes):
        raise BenchError(
            f"protocol {resolved.protocol_name} needs {takes.origin}; "
            f"{resolved.method_name} is not one"
        )


def _collapse(encoder: Encoder, evaluation: Evaluation) -> record.CollapseRecord:
    """Spread of the L2-normalised validation features, and RankMe's effective rank."""
    features = evaluation.val.features(encoder)["output"][:2048]
    return record.CollapseRecord(
        feature_std=spread.feature_std(features), effective_rank=spread.effective_rank(features)
    )


def _by_name(history: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """Logged values by name, one an epoch; None where an epoch has none, or not a finite one."""
    names = dict.fromkeys(name for row in history for name in row if name != "epoch")
    curves = {name: [row.get(name) for row in history] for name in names}
    return {
        name: [v if v is not None and math.isfinite(v) else None for v in values]
        for name, values in curves.items()
    }


def _backbone_name(resolved: Resolved) -> str:
    options = ",".join(f"{key}={value}" for key, value in resolved.backbone_options.items())
    return f"{resolved.backbone}({options})" if options else resolved.backbone


def _view(view: View) -> dict[str, Any]:
    ops = [{"op": type(op).__name__, **op.model_dump(mode="json")} for op in view.ops]
    return {"name": view.name, "size": view.size, "count": view.count, "ops": ops}
