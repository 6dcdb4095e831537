"""Features of a frozen encoder, extracted once and kept on disk under everything they depend on.

A feature file's key is a hash of the encoder's weights and code, the layer and its pooling, the
view, the data and the dtype: a second protocol on the same run re-extracts nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from bench import rng
from bench.api import DataInfo, Encoder, EvalData, EvalSplit, View
from bench.data.dataset import DataSet, Split, resident
from bench.data.views import eval_view, render
from bench.errors import BenchError
from bench.files import write_atomic
from bench.progress import Reporter

BATCH = 256
KEEP_BYTES = 20 * 2**30  # the oldest features are removed beyond this; they can be made again


def weights_digest(module: nn.Module) -> str:
    """A hexadecimal sha256 of every parameter and buffer, names included."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A hexadecimal sha256 of tensors and their names, in whatever order they come."""
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        # Raw bytes, since numpy has no bfloat16.
        state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


class FeatureStore:
    """The feature files of one encoder, and a count of what was extracted and what was reused.

    `identity` names what the weights do not tell: the method with its version and settings.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        identity: str,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.folder, self.device, self.reporter = folder, device, reporter
        self.identity = f"{identity}/{weights_digest(encoder)}"
        self.extracted = self.reused = 0

    def get(
        self,
        encoder: Encoder,
        split: Split,
        layers: Sequence[str],
        max_dim: int,
        view: View,
        copies: int,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Features by layer `[copies * N, D]`, and the positions `[N]` that their rows stand for.

        N falls short of the split's length by its undecodable pictures.
        """
        paths = {
            layer: self._path(split, layer, max_dim, view, copies)
            for layer in dict.fromkeys(layers)
        }
        found = {layer: _read(path) for layer, path in paths.items()}
        missing = [layer for layer, file in found.items() if file is None]
        self.reused += len(paths) - len(missing)
        self.extracted += len(missing)
        if missing:
            fresh, index = self._extract(encoder, split, missing, max_dim, view, copies)
            for layer in missing:
                found[layer] = {"features": fresh[layer], "index": index}
                data = save({"features": fresh[layer], "index": index})
                write_atomic(paths[layer], lambda file, data=data: file.write(data))  # type: ignore[misc]
            _prune(self.folder)
        files = {layer: file for layer, file in found.items() if file is not None}
        index = next(iter(files.values()))["index"]
        return {k: file["features"].to(self.device) for k, file in files.items()}, index

    def _path(self, split: Split, layer: str, max_dim: int, view: View, copies: int) -> Path:
        pooled = "" if layer == "output" else str(max_dim)
        ops = [f"{type(op).__name__}{op.model_dump_json()}" for op in view.ops]
        parts = [self.identity, split.digest, layer, pooled, str(view.size), *ops, str(copies)]
        key = hashlib.sha256("\x1f".join([*parts, "float32"]).encode()).hexdigest()[:24]
        return self.folder / f"{key}.safetensors"

    @torch.no_grad()  # not inference mode: views render in threads, where it does not hold
    def _extract(
        self,
        encoder: Encoder,
        split: Split,
        layers: Sequence[str],
        max_dim: int,
        view: View,
        copies: int,
    ) -> tuple[dict[str, Tensor], Tensor]:
        encoder.to(self.device).eval()
        images, chunks = split.images, torch.arange(len(split)).split(BATCH)
        rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        kept: list[Tensor] = []
        with self.reporter.bar(f"{split.name} feats", copies * len(chunks)) as bar:
            for copy in range(copies):
                for index, pixels in images.stream(chunks):
                    names = ("features", split.digest, copy, int(index[0]) if len(index) else 0)
                    draw = rng.generator(*names, device=self.device)
                    aspect = images.aspect
                    aspect = None if aspect is None else aspect[index].to(self.device)
                    (x,) = render(view, pixels.to(self.device), draw, aspect)
                    outputs = _forward(encoder, x, layers)
                    for layer in layers:
                        out = outputs[layer]
                        rows[layer].append((out if layer == "output" else pool(out, max_dim)).cpu())
                    if copy == 0:
                        kept.append(index)
                    bar.advance()
        return {layer: torch.cat(parts) for layer, parts in rows.items()}, torch.cat(kept)


def _forward(encoder: Encoder, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    if set(layers) == {"output"}:
        return {"output": encoder(x).float()}
    output, maps = encoder.tap(x) if "output" in layers else (None, encoder.maps(x))
    unknown = [layer for layer in layers if layer != "output" and layer not in maps]
    if unknown:
        raise BenchError(f"the encoder has no layer {unknown[0]}; it has {', '.join(maps)}")
    outputs = {layer: maps[layer].float() for layer in layers if layer != "output"}
    if output is not None:
        outputs["output"] = output.float()
    return outputs


def pool(maps: Tensor, max_dim: int) -> Tensor:
    """Average-pool `[B, C, h, w]` to the largest k x k grid with C * k * k <= max_dim; flatten."""
    side = max(1, math.isqrt(max_dim // maps.shape[1])) if maps.shape[1] <= max_dim else 1
    side = min(side, *maps.shape[2:])
    return F.adaptive_avg_pool2d(maps, side).flatten(1)


class _CachedSplit(EvalSplit):
    def __init__(self, split: Split, info: DataInfo, store: FeatureStore) -> None:
        self.split, self.info, self._store = split, info, store
        self.device = store.device
        self._kept: Tensor | None = None

    @property
    def labels(self) -> Tensor:
        """`[N]` class of each picture that `features` returns a row for."""
        if self.split.labels is None:
            raise BenchError(f"{self.info.name} has no class labels")
        labels = self.split.labels
        return (labels if self._kept is None else labels[self._kept]).to(self._store.device)

    def features(
        self,
        encoder: Encoder,
        layers: Sequence[str] = ("output",),
        *,
        max_dim: int = 2048,
        view: View | None = None,
        copies: int = 1,
    ) -> dict[str, Tensor]:
        """Features by layer, from the store or extracted now."""
        view = view or eval_view(self.info)
        features, self._kept = self._store.get(encoder, self.split, layers, max_dim, view, copies)
        return features

    def batches(
        self, order: Iterable[Tensor], view: View | None = None, *name: str | int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions and rendered pictures for each tensor of positions in `order`."""
        view, images = view or eval_view(self.info), resident(self.split.images, self.device)
        for number, (index, pixels) in enumerate(images.stream(order)):
            draw = rng.generator(*name, "batch", number, view.name, device=self.device)
            aspect = None if images.aspect is None else images.aspect[index].to(self.device)
            (x,) = render(view, pixels.to(self.device), draw, aspect)
            yield index.to(self.device), x


class Evaluation(EvalData):
    """A data set's splits as protocols see them, over one feature store."""

    def __init__(self, data: DataSet, store: FeatureStore) -> None:
        self.info = data.info
        self.train = _CachedSplit(data.train, data.info, store)
        self.val = _CachedSplit(data.val, data.info, store)
        self.full = _CachedSplit(data.full, data.info, store)
        self._test = _CachedSplit(data.test, data.info, store)
        self.test_was_read = False

    def read_test(self) -> EvalSplit:
        """The test split, once.

        Raises:
            RuntimeError: it was read before.
        """
        if self.test_was_read:
            raise RuntimeError("the test split may be read once, after every choice is made")
        self.test_was_read = True
        return self._test


def _read(path: Path) -> dict[str, Tensor] | None:
    """A feature file, or None where it is absent or damaged (it is made again then)."""
    if not path.exists():
        return None
    try:
        file: dict[str, Tensor] = load_file(path)
    except Exception:  # safetensors has no common error; whatever it is, the file can be remade
        path.unlink(missing_ok=True)
        return None
    with contextlib.suppress(FileNotFoundError):  # pruned by another run
        os.utime(path)  # recently used
    return file


def _prune(folder: Path) -> None:
    found = []
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another run may be pruning too
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > KEEP_BYTES:
            path.unlink(missing_ok=True)
