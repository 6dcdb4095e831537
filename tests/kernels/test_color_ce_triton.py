"""The cross-entropy of colours by the kernel, against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from choices import DEVICE, by, error, window
from compiled import usage
from sizes import compiles_for_any
from torch import Tensor

from bench import rng
from bench.data.color import rgb_to_lab
from bench.kernels import color_ce, dispatch
from bench.kernels.color_ce.reference import has_color, soft_labels
from bench.nn.color_bins import ColorBins

pytest.importorskip("triton", reason="Triton is not installed here")
from bench.kernels.color_ce import triton as kernels

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
BINS = {dtype: ColorBins().to(DEVICE, dtype) for dtype in (torch.float32, torch.float64)}


def drawn(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Logits, and colours of sRGB in float32: the second picture is grey, some pixels have ties.

    Colours on a bin, halfway between bins, and between four, have equally near bins at the tenth.
    """
    draw = rng.generator("color", count, height, width)
    rgb = torch.rand(count, 3, height, width, generator=draw, dtype=torch.float64)
    ab = rgb_to_lab(rgb)[:, 1:]
    tied = torch.tensor([[0.0, 0.0], [10.0, -20.0], [5.0, 0.0], [15.0, 5.0]], dtype=ab.dtype)
    ab.flatten(2)[0, :, :4] = tied.T[:, : height * width]
    if count > 1:
        ab[1] %= 4
    logits = 3 * torch.randn(count, 313, height, width, generator=draw, dtype=torch.float64)
    return logits.to(DEVICE), ab.float().to(DEVICE)


def weights() -> Tensor:
    return torch.rand(313, generator=rng.generator("weights")).to(DEVICE)


def loss_of(ab: Tensor, weights: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Of float64 logits in float64, else in float32; the colours are the same."""

    def loss(logits: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        own = None if weights is None else weights.to(dtype)
        return color_ce(logits, ab.to(dtype), BINS[dtype], own)

    return loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 8, 8), (2, 5, 13)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_in_either_order(
    dtype: torch.dtype, shape: tuple[int, int, int], order: torch.memory_format
) -> None:
    logits, ab = drawn(*shape)
    logits = logits.to(dtype, memory_format=order)
    for own in (None, weights()):
        assert error(loss_of(ab, own), [logits]) < TOLERANCE[dtype]


def test_the_gradient_is_in_the_logits_type_and_order() -> None:
    logits, ab = drawn(2, 4, 3)
    logits = logits.half().to(memory_format=torch.channels_last)
    _, gradient = by("triton", loss_of(ab, None), [logits])
    assert gradient.dtype == torch.float16
    assert gradient.stride() == logits.stride()


def test_gradients_are_those_of_finite_differences() -> None:
    logits, ab = drawn(2, 1, 2)
    with dispatch.using("triton"):
        loss = loss_of(ab, weights())
        assert torch.autograd.gradcheck(loss, logits.requires_grad_(), fast_mode=True)


def test_labels_are_the_references_bit_by_bit_where_bins_are_equally_near() -> None:
    """Colours on a lattice of fifths: most have several bins at the tenth's distance."""
    grid = torch.arange(-40, 40, 5.0)
    ab = torch.cartesian_prod(grid, grid).T.reshape(1, 2, 16, 16).to(DEVICE)
    bins = BINS[torch.float32]
    index, share = soft_labels(ab, bins)
    assert (share[:, 9] == share[:, 8]).any()  # there are equals
    expected = torch.zeros(1, 313, 16, 16, device=DEVICE).scatter(1, index, share)
    zeros = torch.zeros(1, 313, 16, 16, device=DEVICE)
    _, gradient = by("triton", lambda x: color_ce(x, ab, bins), [zeros])
    labels = 1 / 313 - gradient * 256
    torch.testing.assert_close(labels, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(labels > 1e-5, expected > 1e-5)


def test_any_bins_and_fewer_than_ten() -> None:
    class Few:
        centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], device=DEVICE)
        around = torch.arange(3, device=DEVICE).repeat(3, 1)

        def nearest(self, ab: Tensor) -> Tensor:
            return torch.zeros_like(ab[:, 0], dtype=torch.long)

    draw = rng.generator("few")
    ab = torch.rand(2, 2, 3, 3, generator=draw).to(DEVICE) * 12
    logits = torch.randn(2, 3, 3, 3, generator=draw).to(DEVICE)
    got, expected = (
        by(choice, lambda x: color_ce(x, ab, Few()), [logits]) for choice in ("triton", "reference")
    )
    torch.testing.assert_close(got, expected)


def test_nothing_outside_the_tensors_is_read() -> None:
    logits, ab = drawn(2, 5, 3)
    logits, own = logits.float(), weights()
    expected = by("triton", loss_of(ab, own), [logits])
    got = by("triton", loss_of(window(ab), window(own)), [window(logits)])
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_the_same_bits_every_time() -> None:
    logits, ab = drawn(2, 9, 9)
    first = by("triton", loss_of(ab, weights()), [logits.half()])
    for _ in range(9):
        again = by("triton", loss_of(ab, weights()), [logits.half()])
        torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_logits_far_apart_and_impossible_bins() -> None:
    logits, ab = drawn(2, 3, 3)
    logits = (logits * 3000).float()
    assert error(loss_of(ab, None), [logits]) < 1e-6
    ab %= 10
    for impossible in (slice(100), slice(220, 313)):  # none is near these colours
        logits[:, impossible] = -float("inf")
    got, expected = (by(c, loss_of(ab, None), [logits / 3000]) for c in ("triton", "reference"))
    torch.testing.assert_close(got, expected)
    assert expected[1].isfinite().all()


def arguments() -> tuple[Tensor, ...]:
    logits, ab = drawn(2, 3, 4)
    bins = BINS[torch.float32]
    around = (bins.nearest(ab), bins.centers, bins.around, weights(), has_color(ab))
    return logits.half(), ab, *around


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_custom_ops_are_told_rightly_to_the_compiler(order: torch.memory_format) -> None:
    logits, ab, cell, *rest = arguments()
    logits = logits.to(memory_format=order)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(kernels.color_entropy, (logits, ab, cell, *rest), test_utils=tests)
    _, stats = kernels.color_entropy(logits, ab, cell, *rest)
    grad = torch.ones((), device=DEVICE)
    torch.library.opcheck(kernels.color_grad, (grad, logits, ab, rest[0], stats), test_utils=tests)


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_torch_compile_takes_it_whole_and_at_any_size() -> None:
    own = weights()

    def loss(logits: Tensor) -> Tensor:
        return color_ce(logits, 20 * logits[:, :2].sin().detach(), BINS[torch.float32], own)

    sizes = ((2, 3, 4), (3, 5, 6), (4, 7, 8))
    compiles_for_any(loss, [[drawn(*size)[0].float()] for size in sizes])


def test_what_is_kept_is_five_numbers_a_pixel() -> None:
    logits, ab = drawn(2, 8, 8)
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with dispatch.using("triton"), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss_of(ab, None)(logits.half().requires_grad_())
    sizes = [x.numel() for x in kept if x.numel() not in (313 * 128, 2 * 128, 2 * 313)]
    assert sizes == [5 * 128]  # beside the logits, the colours and the bins


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["_entropy", "_grad"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("last", [True, False])
def test_they_compile_for_gpus_without_spilling(kernel: str, dtype: str, last: bool) -> None:
    types = {"logits": f"*{dtype}", "ab": "*fp32", "centers": "*fp32", "stats": "*fp32"}
    strides = ["logits"]
    constants: dict[str, object] = {"Q": 313, "WIDTH": 50.0, "ACC": "tl.float32", "pixels": 3136}
    constants |= {"BP": 16 if last else 64, "BQ": kernels.BINS}
    if kernel == "_entropy":
        types |= {"cell": "*i64", "around": "*i64", "colored": "*i1"}
        types |= dict.fromkeys(("near", "weights", "entropy"), "*fp32")
        constants |= {"AROUND": 37, "COUNT": 10, "BA": 64}
    else:
        types |= {"grad": "*fp32", "out": f"*{dtype}"}
        strides.append("out")
    for name in strides:
        constants |= {f"{name}_n": 313 * 3136, f"{name}_q": 1 if last else 3136}
        constants[f"{name}_p"] = 313 if last else 1
    assert usage(kernels.__name__, kernel, types, constants, 4, 3).stack == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_real_sizes(dtype: torch.dtype, order: torch.memory_format) -> None:
    """The paper's 40 pictures of 56 x 56 predicted pixels."""
    logits, ab = drawn(40, 56, 56)
    logits = logits.to(dtype, memory_format=order)
    assert error(loss_of(ab, weights()), [logits]) < TOLERANCE[dtype]
