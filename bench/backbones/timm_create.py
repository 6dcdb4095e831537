"""timm models by name, with timm's many errors told as one clear line."""

from __future__ import annotations

import difflib
from typing import Any

import huggingface_hub
import timm
from huggingface_hub.constants import ENDPOINT
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, model_entrypoint
from torch import nn

from bench.backbones.catalog import CATALOG
from bench.errors import BenchError

ANY_SIZE_MODULES = frozenset({"vision_transformer", "deit", "eva"})  # know `dynamic_img_size`
REACH_SECONDS = 5.0
TIMM_ERRORS = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)


def create(name: str, size: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """A timm model without classifier, for square pictures of side `size`.

    Models that fix their picture size are built for `size`; vision transformers also take other
    sizes afterwards (small crops), by resampling their position embedding.

    Raises:
        BenchError: the name or an option is unknown, or pretrained weights cannot be had.
    """
    if not is_model(name):
        raise BenchError(f"there is no backbone {name!r}{_nearest(name)}")
    arguments: dict[str, Any] = {"num_classes": 0}
    try:
        cfg = get_pretrained_cfg(name)
        if cfg is not None and cfg.fixed_input_size:
            arguments["img_size"] = size
            if model_entrypoint(name).__module__.rpartition(".")[2] in ANY_SIZE_MODULES:
                arguments["dynamic_img_size"] = True
        if pretrained:
            arguments |= _source(name, cfg)
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **(arguments | options))
    except OSError as error:
        raise _no_download(name) from error
    except TIMM_ERRORS as error:
        raise BenchError(f"timm could not build {name}: {first_line(error)}") from error
    return model


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _nearest(name: str) -> str:
    known = [*CATALOG, *timm.list_models(), *timm.list_pretrained()]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    return f"; did you mean {', '.join(near)}?" if near else "; `bench list` shows the names"


def _source(name: str, cfg: PretrainedCfg | None) -> dict[str, Any]:
    """Take weights that were downloaded before; else make sure that a download can start.

    Asked first because the hub's client tries again for most of a minute, and timm then a second
    time for another file name, before a closed network becomes an error.
    """
    if cfg is None or not cfg.has_weights:
        raise BenchError(f"timm has no pretrained weights of {name}; name a file with --weights")
    if not cfg.hf_hub_id:
        return {}
    cached = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, "model.safetensors")
    if isinstance(cached, str):
        return {"pretrained_cfg_overlay": {"file": cached}}
    try:
        huggingface_hub.get_session().head(ENDPOINT, timeout=REACH_SECONDS)
    except Exception as error:  # the client is requests or httpx, with no error in common
        raise _no_download(name) from error
    return {}


def _no_download(name: str) -> BenchError:
    return BenchError(
        f"could not download the pretrained weights of {name} (no network?); get them elsewhere "
        "and name the local safetensors or torch file with --weights"
    )
