"""Weights from a local file, whoever trained them and whatever they were wrapped in."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Backbone

NESTS = ("teacher", "state_dict", "model", "model_state_dict", "module", "backbone", "encoder")
ENOUGH = 0.9  # of the backbone's tensors
OWN_PREFIX = "model."  # where our backbones hold a timm model
SHOWN = 3


def load_weights(backbone: Backbone, path: Path | str) -> tuple[str, ...]:
    """Load a safetensors or torch file into `backbone`; return the names of tensors it lacked.

    Nothing in the file is executed. Checkpoints that nest the network ("state_dict", "teacher",
    "model") or prefix its names ("module.", "backbone.", "encoder_q.") are unwrapped: the prefix
    under which most names match counts, the first of equals. What the file holds beyond the
    backbone (heads, optimisers) is ignored. Vision transformers' position and patch embeddings
    are resampled to the backbone's grid, as timm does.

    Raises:
        BenchError: the file is missing, damaged or of another kind, fewer than 90 % of the
            backbone's tensors are in it, or a tensor has another shape.
    """
    path = Path(path)
    own = {key.removeprefix(OWN_PREFIX): key for key in backbone.state_dict()}
    found = _unprefix(_unnest(_read(path)), own)
    try:
        found = _resample(backbone, found)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BenchError(f"{path}: the patch embedding cannot be resampled: {error}") from error
    target = backbone.state_dict()
    for name, key in own.items():
        if name in found and found[name].shape != target[key].shape:
            raise BenchError(
                f"{path}: {name} is {list(found[name].shape)}, but the backbone's is "
                f"{list(target[key].shape)}; build the backbone that the file was trained as "
                '(a ResNet with its own stem: stem="own")'
            )
    # Files from before PyTorch 0.4.1 have no counters, and evaluation needs none.
    missing = tuple(n for n in own if n not in found and not n.endswith("num_batches_tracked"))
    wanted = sum(not name.endswith("num_batches_tracked") for name in own)
    if len(missing) > (1 - ENOUGH) * wanted:
        extra = [name for name in found if name not in own]
        raise BenchError(
            f"{path} holds {wanted - len(missing)} of the backbone's {wanted} tensors; "
            f"missing {_some(missing)}; unexpected {_some(extra)}; is it another architecture?"
        )
    backbone.load_state_dict({own[n]: found[n] for n in own if n in found}, strict=False)
    return missing


def _read(path: Path) -> object:
    """Whatever the file holds: tensors, dictionaries and plain values, never code."""
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise BenchError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BenchError(
            f"{path} is not a weights file, or holds code that loading would run; save only its "
            "tensors (torch.save of a state_dict, or safetensors) and name that file"
        ) from error
    except Exception as error:  # torch reads a foreign file as instructions: any error can come
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"{path} is damaged or not a weights file: {why}") from error


def _unnest(content: object) -> dict[str, Tensor]:
    """The tensors of the network inside a training checkpoint."""
    import torch

    while isinstance(content, Mapping):
        inner = next((content[n] for n in NESTS if isinstance(content.get(n), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if torch.is_tensor(value)}


def _unprefix(found: dict[str, Tensor], own: Mapping[str, str]) -> dict[str, Tensor]:
    """`found` without the prefix under which most of the backbone's names are in it."""
    votes: Counter[str] = Counter()
    for name in found:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in own:
                votes["".join(f"{part}." for part in parts[:cut])] += 1
    prefix = max(votes, key=lambda key: votes[key], default="")
    return {name[len(prefix) :]: value for name, value in found.items() if name.startswith(prefix)}


def _resample(backbone: Backbone, found: dict[str, Tensor]) -> dict[str, Tensor]:
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    vit = getattr(backbone, "model", None)
    if not isinstance(vit, VisionTransformer) or "patch_embed.proj.weight" not in found:
        return found
    resampled: dict[str, Tensor] = checkpoint_filter_fn(found, vit)
    return resampled


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
