"""The largest batch: measured, never beyond the stated memory, and said why it ended."""

from __future__ import annotations

from collections.abc import Callable

from bench.profiling import budget
from bench.profiling.budget import Ladder, Weighed
from bench.profiling.memory import Peak


def ladder(
    total: Callable[[int], int], memory: int, *, cautious: bool = True, seconds: float = 0.0
) -> tuple[Ladder, list[int]]:
    tried: list[int] = []

    def weigh(batch: int) -> Weighed:
        tried.append(batch)
        return Weighed(Peak(total(batch)), 0, total(batch), seconds)

    return Ladder(weigh, memory, cautious), tried


def square(batch: int) -> int:
    return batch * batch


def test_a_cpu_never_takes_more_than_was_stated() -> None:
    made, tried = ladder(square, 100 * 100)
    assert made.climb() == "128: out of memory: 16.0 KiB expected of the stated 9.77 KiB"
    assert made.largest() == 64
    assert tried == [2, 4, 8, 16, 32, 64]


def test_a_size_is_approached_from_below_and_refused_before_it_is_tried() -> None:
    made, tried = ladder(square, 100 * 100)
    assert isinstance(made.at(1000), str)
    assert max(tried) == 64
    assert made.at(48) == Weighed(Peak(48 * 48), 0, 48 * 48, 0.0)


def test_inputs_that_are_too_large_are_never_made() -> None:
    made, tried = ladder(square, 1000)
    made.inputs = lambda batch: 500 + batch
    assert made.at(64) == "out of memory: 0.980 KiB expected of the stated 0.977 KiB"
    assert made.climb().startswith("2: out of memory: ") and made.largest() is None
    assert tried == []


def test_memory_that_grows_with_the_cube_is_refused_too() -> None:
    made, tried = ladder(lambda n: n**3, 10**6)
    made.climb()
    assert max(n**3 for n in tried) <= 10**6


def test_a_gpu_tries_and_says_when_its_memory_is_used_up() -> None:
    def weigh(batch: int) -> Weighed:
        if batch > 100:
            return Weighed(Peak(None, failed="out of memory: could not allocate 1 GiB"), 0, None, 0)
        return Weighed(Peak(batch), 0, batch, 0.0)

    made = Ladder(weigh, 1000, cautious=False)
    assert made.at(128) == "out of memory: could not allocate 1 GiB"
    assert made.climb() == "128: out of memory: could not allocate 1 GiB"
    assert made.largest() == 64


def test_on_a_gpu_more_than_was_stated_is_timed_but_does_not_fit() -> None:
    made, _ = ladder(square, 100, cautious=False)
    assert isinstance(made.at(64), Weighed)
    assert made.climb() == "16: out of memory: takes 256 B of the stated 100 B"
    assert made.largest() == 8


def test_the_search_says_that_it_ended_by_time() -> None:
    made, _ = ladder(square, 10**9, seconds=budget.LONGEST / 3)
    assert made.climb().startswith("time: 4 may take 8 s, the search allows 6")
    assert made.largest() == 2


def test_what_is_compiled_for_each_size_follows_another() -> None:
    eager, _ = ladder(square, 100 * 100)

    def like(batch: int) -> int | None:
        found = eager.at(batch)
        return None if isinstance(found, str) else found.total

    made, tried = ladder(lambda n: n, 100 * 100)
    made.like = like
    assert isinstance(made.at(32), Weighed)
    assert made.climb() == "64: not tried: it would have to be compiled"
    assert made.at(128) == "not tried: what it is compiled from does not fit"
    assert tried == [32]


def test_nothing_fits() -> None:
    made, _ = ladder(square, 3)
    assert made.climb() == "2: out of memory: takes 4.00 B of the stated 3.00 B"
    assert made.largest() is None
