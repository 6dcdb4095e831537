"""Views per second of SimCLR's augmentation: ours against lightly, torchvision and kornia.

Run on an otherwise idle machine:

    pytest tests/benchmarks/test_views_benchmark.py --benchmark-only

The contenders are those of `bench profile data`, timed in turn within every round.
"""

from __future__ import annotations

import statistics
import time

import pytest

from bench.profiling.view_cases import simclr
from bench.profiling.view_makers import LIBRARIES, maker, pictures

PICTURES = {32: 2048, 96: 512}  # by size: about as long
ROUNDS = 5


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("size", PICTURES)
def test_simclr_views(benchmark, request, capsys, size):
    pixels = pictures(PICTURES[size], size)
    contenders = {library: maker(library, simclr(size), pixels) for library in LIBRARIES}
    rates: dict[str, list[float]] = {name: [] for name in contenders}

    def one_round() -> None:
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            rates[name].append(2 * len(pixels) / (time.perf_counter() - start))

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    median = {name: statistics.median(rate[1:]) for name, rate in rates.items()}
    ratio = median["bench"] / max(rate for name, rate in median.items() if name != "bench")
    benchmark.extra_info.update(views_per_s=median, ratio_to_best=ratio)
    table = ", ".join(f"{name} {rate:,.0f}" for name, rate in median.items())
    report = request.config.pluginmanager.get_plugin("terminalreporter")
    with capsys.disabled():
        report.write_line(f"\n{size} px, views/s: {table}; {ratio:.1f} x the best of the others")
