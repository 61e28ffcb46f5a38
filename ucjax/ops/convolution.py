"""Convolutions in the form the platform runs best; same parameters and same function on all.

XLA's CPU backend has slow convolutions (grouped ones, weight gradients of strided and
transposed ones), so each shape that is slow there has a CPU form made of matrix products or
shifted multiply-adds. Accelerators always get `lax.conv_general_dilated`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from ucjax.ops import winograd
from ucjax.ops.winograd import Padding
from ucjax.runtime.platforms import on_cpu


def same_padding(size: tuple[int, int], kernel: int, stride: int) -> Padding:
    """TensorFlow's "SAME" padding, `((top, bottom), (left, right))`, for an image of `size`."""

    def one(n: int) -> tuple[int, int]:
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        return total // 2, total - total // 2

    return one(size[0]), one(size[1])


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding) -> jax.Array:
    """Convolves `x` `[b, h, w, c]` with `kernel` `[kh, kw, c, d]`: `[b, h', w', d]`.

    On a CPU it has a reverse-mode derivative only, and `vmap` runs it as a loop.
    """
    if on_cpu():
        return _bilinear(
            partial(_convolve, stride, padding),
            partial(_input_gradient, _convolve_swapped, stride, padding, (x.shape[1], x.shape[2])),
            partial(_kernel_gradient, stride, padding, kernel.shape),
        )(x, kernel)
    return _lax_conv2d(stride, padding, x, kernel)


def depthwise_conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding
) -> jax.Array:
    """Convolves each channel of `x` `[b, h, w, c]` with its own `kernel` `[kh, kw, c]`.

    On a CPU it has a reverse-mode derivative only, and `vmap` runs it as a loop.
    """
    if on_cpu():
        return _bilinear(
            partial(_depthwise, stride, padding),
            partial(_input_gradient, _depthwise, stride, padding, (x.shape[1], x.shape[2])),
            partial(_depthwise_kernel_gradient, stride, padding, kernel.shape),
        )(x, kernel)
    return lax.conv_general_dilated(
        x, kernel[:, :, None, :], (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
    )  # fmt: skip


def conv2d_transposed_x2(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Doubles `x` `[b, h, w, c]` by a transposed 3x3 convolution: `[b, 2h, 2w, d]`.

    `kernel` is `[3, 3, c, d]`. Equals torch's `ConvTranspose2d(c, d, 3, stride=2, padding=1,
    output_padding=1)` with `weight[c, d, i, j] = kernel[i, j, c, d]`.
    """
    if on_cpu():
        # The input gradient of a stride-2 convolution, whose other parts are its derivatives.
        halving, size = (2, ((1, 1), (1, 1))), (2 * x.shape[1], 2 * x.shape[2])
        swapped = kernel.swapaxes(2, 3)
        return _bilinear(
            partial(_input_gradient, _convolve_swapped, *halving, size),
            partial(_convolve, *halving),
            lambda x, g: _kernel_gradient(*halving, swapped.shape, g, x),
        )(x, swapped)
    return lax.conv_general_dilated(
        x, jnp.flip(kernel, (0, 1)), (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2),
        dimension_numbers=_NHWC,
    )  # fmt: skip


# Pixels of a slice of the batch: EfficientNet-Lite0's gradient then needs about 30 MB.
_SLICE = 2**16


def in_slices(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies `function`, which treats each of the images `x` `[b, h, w, c]` alone, to all.

    On a CPU to a few at a time: what lies between the layers stays small, and no time goes into
    mapping fresh memory, which is half of a gradient of 32 images at once. If b has no fitting
    divisor, to all at once.
    """
    limit = -(-_SLICE // (x.shape[1] * x.shape[2]))
    size = next(n for n in range(min(limit, len(x)), 0, -1) if len(x) % n == 0)
    if not on_cpu() or size == len(x) or 2 * size < limit:
        return function(x)
    y = lax.map(function, x.reshape(-1, size, *x.shape[1:]))
    return y.reshape(len(x), *y.shape[2:])


_NHWC = ("NHWC", "HWIO", "NHWC")


def _lax_conv2d(stride: int, padding: Padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_NHWC)


def _bilinear(
    value: Callable[..., jax.Array],
    input_gradient: Callable[..., jax.Array],
    kernel_gradient: Callable[..., jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Gives `value(x, kernel)` its `input_gradient(g, kernel)` and `kernel_gradient(x, g)`.

    `vmap` becomes a loop: a batch of kernels would be a grouped convolution, the slowest of all.
    """
    loop = jax.custom_batching.sequential_vmap
    function = jax.custom_vjp(loop(value))
    function.defvjp(
        lambda x, kernel: (function(x, kernel), (x, kernel)),
        lambda saved, g: (loop(input_gradient)(g, saved[1]), loop(kernel_gradient)(saved[0], g)),
    )
    return function


# The CPU's parts, functions of two of x, kernel and the gradient g of the output; `_form` alone
# chooses how they are computed.


def _form(stride: int, padding: Padding, x: tuple[int, ...], kernel: tuple[int, ...]) -> str:
    """Names the fastest CPU form for these shapes, by benchmarks/convolutions.py."""
    (kh, kw, c, d), (h, w) = kernel, _output_size(stride, padding, x, kernel)
    tiles = x[0] * -(-h // 4) * -(-w // 4)
    if (kh, kw) == (1, 1) or (min(h, w) < 4 and c >= 32):
        return "patches"
    if stride == 1 and d <= 4 < c:
        return "few outputs"
    # Few pixels do not pay for transforming the kernel, nor half-empty tiles for theirs.
    pixels = x[0] * h * w
    if (kh, kw, stride) == (3, 3, 1) and min(c, d) >= 32 and pixels >= max(512, 8 * tiles):
        return "winograd"
    return "lax"


def _output_size(
    stride: int, padding: Padding, x: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[int, int]:
    h, w = (x[1 + i] + sum(padding[i]) - kernel[i] for i in range(2))
    return h // stride + 1, w // stride + 1


def _convolve(
    stride: int, padding: Padding, x: jax.Array, kernel: jax.Array, *, swapped: bool = False
) -> jax.Array:
    """Convolves with a kernel `[kh, kw, c, d]`, or `[kh, kw, d, c]` if `swapped`."""
    ordered = kernel.swapaxes(2, 3) if swapped else kernel
    form = _form(stride, padding, x.shape, ordered.shape)
    if form == "winograd":
        return winograd.convolve(padding, x, kernel, swapped=swapped)
    if form == "patches":
        patches = _patches(stride, padding, x, ordered.shape)
        return jnp.einsum("bhwk,kd->bhwd", patches, ordered.reshape(-1, ordered.shape[3]))
    return (_few_outputs if form == "few outputs" else _lax_conv2d)(stride, padding, x, ordered)


_convolve_swapped = partial(_convolve, swapped=True)


def _kernel_gradient(
    stride: int, padding: Padding, kernel: tuple[int, ...], x: jax.Array, g: jax.Array
) -> jax.Array:
    form = _form(stride, padding, x.shape, kernel)
    if form == "winograd":
        return winograd.kernel_gradient(padding, x, g)
    if form == "patches":
        patches = _patches(stride, padding, x, kernel)
        return jnp.einsum("bhwk,bhwd->kd", patches, g).reshape(kernel)
    if form == "few outputs":
        # Lag by lag the correlation of x with g is that of g with x, which has few inputs. The
        # barrier keeps XLA from seeing that and swapping them again.
        kh, kw, c, d = kernel
        (top, bottom), (left, right) = padding
        around = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
        g = lax.optimization_barrier(winograd.pad(around, g))
        lags = _lax_kernel_gradient(1, ((0, 0), (0, 0)), (kh, kw, d, c), g, x)
        return jnp.flip(lags, (0, 1)).swapaxes(2, 3)
    return _lax_kernel_gradient(stride, padding, kernel, x, g)


def _lax_kernel_gradient(
    stride: int, padding: Padding, kernel: tuple[int, ...], x: jax.Array, g: jax.Array
) -> jax.Array:
    """Correlates the channels of `x` with those of `g`, the images of a batch being features.

    JAX's own gradient leaves the transpositions to XLA, which does them outside loops only and
    within runs a naive convolution, 30 times slower.
    """

    def pad(i: int) -> tuple[int, int]:
        before, seen = padding[i][0], stride * (g.shape[1 + i] - 1) + kernel[i]
        return before, seen - x.shape[1 + i] - before

    if 8 <= x.shape[-1] <= 32:
        # XLA would compute `x` again within its transposition, slowly, as that reads it in leaps;
        # the result of a product it takes as it is.
        x = x @ jnp.eye(x.shape[-1], dtype=x.dtype)
    y = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), (1, 1), (pad(0), pad(1)),
        rhs_dilation=(stride, stride), dimension_numbers=_NHWC,
    )  # fmt: skip
    return y.transpose(1, 2, 0, 3)


def _input_gradient(
    convolve: Callable[..., jax.Array], stride: int, padding: Padding, size: tuple[int, int],
    g: jax.Array, kernel: jax.Array,
) -> jax.Array:  # fmt: skip
    """Makes each phase of the input, pixels `stride` apart, by the taps of the kernel it met.

    `convolve` is `_depthwise` or `_convolve_swapped`; `kernel` `[kh, kw, c, ...]` to match.
    """
    h, w = -(-size[0] // stride), -(-size[1] // stride)

    def taps(axis: int, count: int, phase: int) -> tuple[slice, tuple[int, int]]:
        shift, first = divmod(phase + padding[axis][0], stride)
        before = len(range(first, kernel.shape[axis], stride)) - 1 - shift
        return slice(first, None, stride), (before, count + shift - g.shape[1 + axis])

    def part(i: int, j: int) -> jax.Array:
        (rows, vertical), (columns, horizontal) = taps(0, h, i), taps(1, w, j)
        met = jnp.flip(kernel[rows, columns], (0, 1))
        if not met.size:
            return jnp.zeros((g.shape[0], h, w, met.shape[2]), g.dtype)
        return convolve(1, (vertical, horizontal), g, met)

    phases = [jnp.stack([part(i, j) for j in range(stride)], 3) for i in range(stride)]
    x = jnp.stack(phases, 2).reshape(g.shape[0], stride * h, stride * w, -1)
    return x[:, : size[0], : size[1]]


def _patches(stride: int, padding: Padding, x: jax.Array, kernel: tuple[int, ...]) -> jax.Array:
    """What each output pixel sees: `[b, h', w', kh * kw * c]`."""
    h, w = _output_size(stride, padding, x.shape, kernel)
    x = winograd.pad(padding, x)
    x = jnp.concatenate(winograd.shifts(x, 2, kernel[1], w, stride), axis=-1)
    return jnp.concatenate(winograd.shifts(x, 1, kernel[0], h, stride), axis=-1)


def _few_outputs(stride: int, padding: Padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves down the columns, giving each column of the kernel outputs of its own.

    XLA's product for three outputs is starved; with 7 x 3 of them it is not, and the sum of
    shifted slices that is left to do is small.
    """
    kh, kw, c, d = kernel.shape
    _, w = _output_size(stride, padding, x.shape, kernel.shape)
    columns = kernel.swapaxes(1, 2).reshape(kh, 1, c, kw * d)
    y = _lax_conv2d(stride, ((0, 0), (0, 0)), winograd.pad(padding, x), columns)
    return reduce(jnp.add, [y[:, :, j : j + w, j * d : (j + 1) * d] for j in range(kw)])


# Depthwise: kh * kw shifted multiply-adds, which XLA fuses into one loop; so is `_input_gradient`
# of it, where autodiff would write one padded array a tap.


def _taps(stride: int, padding: Padding, x: jax.Array, kernel: tuple[int, ...]) -> list[jax.Array]:
    """What each element of the kernel sees: kh * kw arrays `[b, h', w', c]`."""
    h, w = _output_size(stride, padding, x.shape, kernel)
    rows = winograd.shifts(winograd.pad(padding, x), 1, kernel[0], h, stride)
    return [tap for row in rows for tap in winograd.shifts(row, 2, kernel[1], w, stride)]


def _depthwise(stride: int, padding: Padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    factors = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    taps = _taps(stride, padding, x, kernel.shape)
    return reduce(jnp.add, [tap * factors[i] for i, tap in enumerate(taps)])


def _depthwise_kernel_gradient(
    stride: int, padding: Padding, kernel: tuple[int, ...], x: jax.Array, g: jax.Array
) -> jax.Array:
    taps = _taps(stride, padding, x, kernel)
    return jnp.stack([jnp.einsum("bhwc,bhwc->c", tap, g) for tap in taps]).reshape(kernel)
