"""Where a run happens: hardware, versions, and the commit of the code that runs."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
import torchvision

import bench
from bench.record import EnvironmentRecord


def describe(device: torch.device, kernels: Mapping[str, str] | None = None) -> EnvironmentRecord:
    """The environment of a run on `device`, in which `kernels` ran, op -> implementation."""
    gpu = device.type == "cuda"
    commit, dirty = _git()
    return EnvironmentRecord(
        device=torch.cuda.get_device_name(device) if gpu else "cpu",
        driver=_driver() if gpu else None,
        cpu=_cpu(),
        threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        timm=timm.__version__,
        bench=bench.__version__,
        commit=commit,
        dirty=dirty,
        kernels=dict(kernels or {}),
    )


@functools.cache
def _git() -> tuple[str | None, bool | None]:
    """The commit of the source tree, and whether its code differs from it."""
    root = Path(bench.__file__).parent.parent
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    if commit is None or not (root / ".git").exists():
        return None, None
    code = ("bench", "methods", "protocols", "pyproject.toml")
    changed = _output("git", "-C", str(root), "status", "--porcelain", "--", *code)
    return commit, bool(changed)


@functools.cache
def _cpu() -> str:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


@functools.cache
def _driver() -> str | None:
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    output = _output(*query)
    return output.splitlines()[0] if output else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
