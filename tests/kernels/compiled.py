"""Compile a Triton kernel for a GPU that need not be there: what would it take of one?

    python compiled.py < '{"module": ..., "kernel": ..., "types": {...}, "constants": {...}, ...}'

Run as a program of its own, since Triton decides once whether its kernels are interpreted.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """What a compiled kernel takes: registers a thread, bytes of stack (spills) and of shared."""

    registers: int
    stack: int
    shared: int


def usage(
    module: str,
    kernel: str,
    types: dict[str, str],
    constants: dict[str, Any],
    warps: int,
    stages: int,
    capability: int = 90,
) -> Usage:
    """Compile `kernel` of `module`, in a process without interpreter, and read what it takes.

    Args:
        module: where it is defined.
        kernel: its name.
        types: of its arguments at run time, such as `{"x": "*bf16", "n": "i32"}`; all pointers are
            taken to be aligned to 16 bytes, as those of torch are, and "i32:16" is divisible by 16.
        constants: its constexpr arguments; a type of Triton is named as "tl.float32".
        warps: of a program.
        stages: of its loops' pipelines.
        capability: of the GPU, 90 for 9.0.
    """
    told = [module, kernel, types, constants, warps, stages, capability]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(told),
            env={**environment, "TRITON_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return Usage(*json.loads(done.stdout.splitlines()[-1]))


def _compile(
    module: str,
    kernel: str,
    types: dict[str, str],
    constants: dict[str, Any],
    warps: int,
    stages: int,
    capability: int,
) -> Usage:
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    fn = getattr(importlib.import_module(module), kernel)
    named = {
        key: getattr(tl, value[3:]) if str(value).startswith("tl.") else value
        for key, value in constants.items()
    }
    signature = {
        name: types[name].split(":")[0] if name in types and name not in named else "constexpr"
        for name in fn.arg_names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(fn.arg_names)
        if types.get(name, "").startswith("*") or types.get(name, "").endswith(":16")
    }
    source = ASTSource(fn, signature, constexprs=named, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages}
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(built.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        told = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", told)}
    return Usage(numbers["REG"], numbers["STACK"], built.metadata.shared)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2])]
    sys.stdout.write(json.dumps(_compile(*json.load(sys.stdin))))
