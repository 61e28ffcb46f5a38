import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from test_training import SPEC, TEST, TRAIN

from ucjax.runtime.progress import MetricsFile
from ucjax.victims import training
from ucjax.victims.table import MODELS


def test_a_weight_a_pixel_and_class():
    net = MODELS["linear"].make(37, 64)
    x = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(lambda k: net.init(k, x, train=False), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == (8 * 8 * 3 + 1) * 37


def test_it_learns_colors_at_its_own_rate(tmp_path, mesh):
    defaults = MODELS["linear"].defaults
    spec = dataclasses.replace(SPEC, model="linear", epochs=5, **defaults)
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    result = training.train(
        TRAIN, TEST, spec, seed=0, mesh=mesh, checkpoint=tmp_path / "x", metrics=metrics
    )
    assert result.last > 0.9
    assert np.isfinite([record.train_loss for record in result.curve]).all()
