import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from test_training import SPEC, TRAIN

from ucjax.runtime import parallel
from ucjax.surrogates import efficientnet_lite
from ucjax.victims import step
from ucjax.victims.models import lite0
from ucjax.victims.table import MODELS

SIDE = 64


@pytest.fixture(scope="module")
def started():
    """The network with the published head, by hand, instead of a new one."""
    net = lite0.network(1000, axis_name=None, tune=True)
    images = np.zeros((1, SIDE, SIDE, 3), np.float32)
    shapes = jax.eval_shape(lambda k: net.init(k, images, train=False), jax.random.key(0))
    variables = lite0.start(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    head = efficientnet_lite.published()
    variables["params"]["fc"] = {"kernel": head["_fc.weight"].T, "bias": head["_fc.bias"]}
    return net, variables


def test_logits_are_the_surrogates_features_times_the_published_head(started):
    net, variables = started
    images = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
    ours = jax.jit(lambda v, x: net.apply(v, x, train=False))(
        variables, (images - np.float32(lite0.MEAN)) / np.float32(lite0.STD)
    )
    surrogate = efficientnet_lite.load("", SIDE)
    features = np.asarray(surrogate.embed(surrogate.params, images))
    fc = variables["params"]["fc"]
    theirs = features @ fc["kernel"] + fc["bias"]
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_published_size(started):
    _, variables = started
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 4_652_008


@pytest.mark.parametrize("tune", [True, False])
def test_a_probe_sees_the_published_averages_of_batch_norm(started, tune):
    _, variables = started
    net = lite0.network(1000, axis_name=None, tune=tune)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    rngs = {"dropout": jax.random.key(0)}
    _, after = jax.jit(
        lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"], rngs=rngs)
    )(variables, images)
    before = flatten_dict(variables["batch_stats"])
    changed = {
        path for path, x in flatten_dict(after["batch_stats"]).items() if (x != before[path]).any()
    }
    assert changed == (set(before) if tune else set())


def test_a_probe_trains_the_new_head_alone(mesh):
    images, labels = TRAIN.center_crops(SPEC.crop, range(8)), TRAIN.labels[:8]
    defaults = {k: v for k, v in MODELS["lite0_probe"].defaults.items() if k != "epochs"}
    spec = dataclasses.replace(SPEC, model="lite0_probe", batch_size=8, **defaults)
    programs = step.make_programs(spec, 3, 4, mesh)
    seed = parallel.replicate(np.uint32(0), mesh)
    state = programs.init(seed)
    kept = parallel.to_host((state.params, state.batch_stats))
    before = flatten_dict(jax.tree.map(np.array, {"params": kept[0], "batch_stats": kept[1]}))
    state, _ = programs.step(state, *parallel.shard((images, labels), mesh), seed)
    after = {"params": parallel.to_host(state.params), "batch_stats": state.batch_stats}
    moved = {path for path, x in flatten_dict(after).items() if (x != before[path]).any()}
    assert moved == {("params", "fc", "kernel"), ("params", "fc", "bias")}
    published = efficientnet_lite.published()["_blocks.4._depthwise_conv.weight"]
    ours = before["params", "blocks_4", "depthwise_conv", "kernel"]
    np.testing.assert_array_equal(ours, published[:, 0].transpose(1, 2, 0))
