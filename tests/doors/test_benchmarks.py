"""Benchmarks count and compare rightly; that they run from end to end is CI's own step."""

import jax
import numpy as np
import pytest

from benchmarks import flops, programs, rows, timing
from benchmarks.rows import B16, B32, L14, Scale
from benchmarks.timing import Taken


def test_sides_take_turns():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = timing.in_turns(runs, 2)
    assert calls == list("abab")
    assert [len(taken) for taken in times.values()] == [2, 2]
    timing.in_turns(runs, 1, warm=True)
    assert calls[4:] == list("aabb")


def test_a_ratio_counts_the_passes_of_the_other_scheme_for_one_of_ours():
    times = {"ucjax": [Taken(2, 9), Taken(4, 9)], "published": [Taken(1, 9), Taken(1, 9)]}
    row = {"times": times, "runs_for_one": {"published": 10}}
    assert rows.against(row, "published") == ([10, 10], [5, 2.5])


@pytest.mark.parametrize(("tower", "tokens"), [(B32, 50), (B16, 197), (L14, 257)])
def test_flops_are_those_of_the_transformer(tower, tokens):
    """Per token 12 d² products and sums a layer, and 2 t d for attention; backward as many."""
    surrogate = rows.clip_surrogate(Scale(), tower._replace(layers=1))

    def gradient(params, images):
        return jax.grad(lambda x: (surrogate.embed(params, x) ** 2).sum())(images)

    images = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    found = flops.written(lambda: jax.jit(gradient), (surrogate.params, images))
    d, patches = tower.width, 3 * tower.patch**2 * (tokens - 1)
    products = tokens * (12 * d * d + 2 * tokens * d) + patches * d + d * tower.dimensions
    # Attention's backward pass has two products where each of its forward ones has one.
    products = 2 * products + 2 * tokens * tokens * d
    assert found / 2 / 2 == pytest.approx(products, rel=0.03)


def test_loops_count_as_often_as_they_run():
    def multiply(x, length):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=length)[0]

    x = jax.ShapeDtypeStruct((64, 64), np.float32)
    for length in (1, 3, 40):
        program = jax.jit(lambda x, length=length: multiply(x, length))
        assert flops.written(lambda program=program: program, (x,)) == pytest.approx(
            length * 2 * 64**3, rel=0.02
        )


def test_random_weights_keep_features_of_order_one():
    surrogate = rows.clip_surrogate(rows.MINIATURE, B32)
    images = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    spread = np.std(surrogate.embed(surrogate.params, images))
    assert 0.1 < spread < 10
    assert programs.noise_spec(batch_size=8).batch_size == 8
