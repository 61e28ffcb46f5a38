from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ucjax.ops import convolution
from ucjax.runtime import parallel

NHWC = ("NHWC", "HWIO", "NHWC")
NONE = ((0, 0), (0, 0))


def lax_conv2d(x, kernel, *, stride, padding):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=NHWC)


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def value_and_gradients(convolve, x, kernel):
    """Returns the output and the gradients of x and kernel for a fixed gradient of the output."""

    def all_of_them(x, kernel):
        y, pull = jax.vjp(convolve, x, kernel)
        return y, *pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return jax.jit(all_of_them)(x, kernel)


def assert_close(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=2e-5 * np.abs(their).max())


# batch, height, width, inputs, outputs, kernel, stride, padding (None: "SAME")
SHAPES = [
    (1, 9, 12, 16, 16, 1, 1, None),
    (3, 9, 12, 3, 64, 1, 2, None),
    (2, 8, 7, 64, 16, 1, 2, NONE),
    (1, 13, 16, 3, 16, 3, 1, None),
    (2, 13, 16, 16, 3, 3, 1, NONE),
    (2, 13, 16, 64, 64, 3, 1, None),
    (1, 26, 27, 64, 64, 3, 1, NONE),
    (11, 7, 7, 32, 64, 3, 1, ((0, 2), (2, 1))),
    (3, 2, 2, 64, 32, 3, 1, ((1, 1), (1, 1))),
    (1, 6, 5, 64, 64, 3, 1, None),
    (1, 13, 16, 3, 64, 3, 2, None),
    (2, 16, 13, 16, 16, 3, 2, ((1, 1), (1, 1))),
    (1, 12, 15, 64, 16, 3, 2, NONE),
    (3, 4, 4, 64, 64, 3, 2, None),
    (1, 15, 13, 3, 64, 7, 1, NONE),
    (2, 15, 13, 64, 3, 7, 1, ((3, 3), (3, 3))),
    (1, 9, 12, 16, 16, 7, 1, None),
    (2, 17, 20, 3, 16, 7, 2, ((3, 3), (3, 3))),
    (1, 17, 20, 16, 64, 7, 2, None),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_lax(shape):
    b, h, w, c, d, k, stride, padding = shape
    padding = padding or convolution.same_padding((h, w), k, stride)
    x, kernel = draw((b, h, w, c), (k, k, c, d))
    settings = {"stride": stride, "padding": padding}
    ours = value_and_gradients(partial(convolution.conv2d, **settings), x, kernel)
    assert_close(ours, value_and_gradients(partial(lax_conv2d, **settings), x, kernel))


def test_the_shapes_above_reach_every_form():
    forms = set()
    for b, h, w, c, d, k, stride, padding in SHAPES:
        padding = padding or convolution.same_padding((h, w), k, stride)
        forms.add(convolution._form(stride, padding, (b, h, w, c), (k, k, c, d)))
    assert forms == {"patches", "few outputs", "winograd", "lax"}


@pytest.mark.parametrize(("size", "kernel", "stride"), [((5, 8), 3, 2), ((7, 1), 5, 1)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    ours = convolution.same_padding(size, kernel, stride)
    theirs = lax.padtype_to_pads(size, (kernel, kernel), (stride, stride), "SAME")
    assert ours == tuple(theirs)


def test_transposed_convolution_scatters_the_kernel():
    x, kernel = draw((2, 3, 5, 4), (3, 3, 4, 2))
    expected = np.zeros((2, 8, 12, 2))
    for i, j in np.ndindex(3, 5):
        spread = np.einsum("bc,ijcd->bijd", x[:, i, j], kernel)
        expected[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += spread
    ours = convolution.conv2d_transposed_x2(x, kernel)
    np.testing.assert_allclose(ours, expected[:, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7, 4, 16, 3), (2, 6, 5, 32, 16)], ids=str)
def test_transposed_convolution_equals_lax(shape, monkeypatch):
    x, kernel = draw(shape[:4], (3, 3, *shape[3:]))
    ours = value_and_gradients(convolution.conv2d_transposed_x2, x, kernel)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_close(ours, value_and_gradients(convolution.conv2d_transposed_x2, x, kernel))


@pytest.mark.parametrize("settings", [(64, 3, 7, 1), (16, 32, 3, 2), (32, 32, 3, 1)], ids=str)
def test_a_stack_of_kernels_is_no_grouped_convolution(settings):
    c, d, k, stride = settings
    x, kernels = draw((3, 2, 16, 16, c), (3, k, k, c, d))
    padding = convolution.same_padding((16, 16), k, stride)
    one = partial(convolution.conv2d, stride=stride, padding=padding)
    together = jax.jit(jax.vmap(partial(value_and_gradients, one)))
    assert "feature_group_count = 3" not in together.lower(x, kernels).as_text()
    stacked, alone = together(x, kernels), jax.jit(partial(value_and_gradients, one))
    for i in range(3):
        assert_close([y[i] for y in stacked], alone(x[i], kernels[i]))


def test_accelerators_keep_lax(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = draw((1, 32, 32, 64), (3, 3, 64, 64))
    jaxpr = jax.make_jaxpr(partial(convolution.conv2d, padding=NONE))(x, kernel)
    assert [equation.primitive.name for equation in jaxpr.eqns] == ["conv_general_dilated"]


def test_results_do_not_depend_on_the_devices(mesh, one_device):
    x, kernel = draw((8, 16, 16, 32), (3, 3, 32, 32))

    def loss(x, kernel):
        return jnp.sum(convolution.conv2d(x, kernel, padding=((1, 1), (1, 1))) ** 2)

    sharded, replicated = parallel.SHARDED, parallel.REPLICATED
    results = [
        parallel.pmap(
            lambda x, kernel: lax.psum(jax.grad(loss, argnums=1)(x, kernel), parallel.AXIS),
            mesh=devices, in_specs=(sharded, replicated), out_specs=replicated,
        )(x, kernel)
        for devices in (mesh, one_device)
    ]  # fmt: skip
    assert_close(results[:1], results[1:])
