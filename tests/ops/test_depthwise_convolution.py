"""The CPU form of `depthwise_conv2d`, held to `lax`'s grouped convolution."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import lax

from ucjax.ops import convolution


def reference(x, kernel, *, stride, padding):
    return lax.conv_general_dilated(
        x, kernel[:, :, None, :], (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
    )  # fmt: skip


def value_and_gradients(convolve, settings, x, weights, g):
    def all_of_them(x, weights, g):
        y, pull = jax.vjp(partial(convolve, **settings), x, weights)
        return y, *pull(g)

    return jax.jit(all_of_them)(x, weights, g)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [((8, 8), 3, 1), ((2, 1), 5, 1), ((7, 10), 5, 1), ((8, 9), 3, 2), ((9, 8), 5, 2),
     ((2, 3), 5, 2), ((11, 12), 5, 3)],
)  # fmt: skip
def test_value_and_gradients_equal_the_grouped_convolution(size, kernel, stride):
    random = np.random.default_rng(0)
    x = random.standard_normal((2, *size, 4), np.float32)
    weights = random.standard_normal((kernel, kernel, 4), np.float32)
    g = random.standard_normal((2, *(-(-n // stride) for n in size), 4), np.float32)
    settings = {"stride": stride, "padding": convolution.same_padding(size, kernel, stride)}
    ours = value_and_gradients(convolution.depthwise_conv2d, settings, x, weights, g)
    theirs = value_and_gradients(reference, settings, x, weights, g)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=2e-5)


def test_padding_of_any_kind():
    random = np.random.default_rng(1)
    x = random.standard_normal((1, 9, 9, 2), np.float32)
    weights = random.standard_normal((3, 3, 2), np.float32)
    for padding in (((0, 0), (0, 0)), ((3, 0), (1, 4)), ((-1, 2), (2, -2))):
        y = convolution.depthwise_conv2d(x, weights, stride=2, padding=padding)
        expected = reference(x, weights, stride=2, padding=padding)
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_kernel_smaller_than_the_stride():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    one, none = np.ones((1, 1, 1), np.float32), ((0, 0), (0, 0))
    y = convolution.depthwise_conv2d(x, one, stride=2, padding=none)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 2], [8, 10]])


@pytest.mark.parametrize(("images", "at_a_time"), [(1, 1), (4, 4), (6, 3), (7, 7), (8, 4), (10, 2)])
def test_slices_change_nothing(images, at_a_time, monkeypatch):
    monkeypatch.setattr(convolution, "_SLICE", 4 * 2 * 2)
    x = np.random.default_rng(images).standard_normal((images, 2, 2, 3), np.float32)
    seen = []

    def square(part):
        seen.append(len(part))
        return part[:, 0, 0] ** 2

    y = convolution.in_slices(square, x)
    np.testing.assert_array_equal(y, x[:, 0, 0] ** 2)
    assert set(seen) == {at_a_time}
