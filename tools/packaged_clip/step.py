"""What the devices compute: a training step, the captions' mean embeddings, and the score."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from optax import contrib
from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

from tools.packaged_clip import model
from tools.packaged_clip.model import Recipe
from tools.packaged_clip.prompts import TEMPLATES, Prompts
from tools.packaged_clip.views import random_views
from ucjax.data import augment
from ucjax.runtime import parallel


class State(NamedTuple):
    """All that a step changes; equal on every device."""

    step: jax.Array  # shape=(), dtype=jnp.int32.
    params: Any
    optimizer: Any


class Programs(NamedTuple):
    """The compiled functions; arrays of images and labels lie over the devices."""

    init: Callable[[], State]
    # state, images u8 [b, s, s, 3], labels i32 [b], seed u32 [] -> state, [loss, accuracy]
    step: Callable[..., tuple[State, jax.Array]]
    classes: Callable[..., jax.Array]  # params -> unit vectors [classes, d]
    # params, classes [c, d], images u8 [b, s, s, 3], labels i32 [b], mask f32 [b] -> number correct
    score: Callable[..., jax.Array]


def compile_programs(
    recipe: Recipe, prompts: Prompts, module: FlaxCLIPModule, total_steps: int, mesh: Mesh
) -> Programs:
    """Builds the functions for a training of `total_steps` steps."""
    optimizer = make_optimizer(recipe, total_steps)
    whole, split = parallel.REPLICATED, parallel.SHARDED

    def init() -> State:
        params = parallel.replicate(model.init(module, recipe.seed), mesh)
        moments = jax.jit(optimizer.init, out_shardings=NamedSharding(mesh, whole))(params)
        return State(parallel.replicate(np.int32(0), mesh), params, moments)

    step = functools.partial(
        _step, recipe=recipe, prompts=prompts, module=module, optimizer=optimizer
    )
    return Programs(
        init,
        parallel.pmap(
            step, mesh=mesh, in_specs=(whole, split, split, whole), out_specs=whole,
            donate_argnums=(0,),
        ),
        jax.jit(functools.partial(_mean_embeddings, prompts=prompts, module=module)),
        parallel.pmap(
            functools.partial(_score, module=module), mesh=mesh,
            in_specs=(whole, whole, split, split, split), out_specs=whole,
        ),
    )  # fmt: skip


def make_optimizer(recipe: Recipe, total_steps: int) -> optax.GradientTransformation:
    """Muon (Jordan 2024, scaled as by Liu et al. 2025) with Adam, a warm-up and half a cosine.

    In a trial of one epoch each, on 2 CPU cores, AdamW reached 3.1 % zero-shot and this 6.1 %.
    """
    warmup = round(recipe.warmup_epochs / recipe.epochs * total_steps)

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, total_steps)

    return contrib.muon(
        schedule(recipe.learning_rate),
        adam_learning_rate=schedule(recipe.adam_learning_rate),
        adam_b2=0.98,
        weight_decay=recipe.weight_decay,
        consistent_rms=0.2,  # of Adam's updates, so that both take learning rates of one size
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(
            _layer_of_image_tower, params
        ),
    )


def _layer_of_image_tower(
    path: tuple[jax.tree_util.DictKey, ...], leaf: jax.Array
) -> contrib.MuonDimensionNumbers | None:
    inside = path[0].key == "vision_model" and path[-1].key == "kernel" and leaf.ndim == 2
    return contrib.MuonDimensionNumbers() if inside else None


def _step(
    state: State, images: jax.Array, labels: jax.Array, seed: jax.Array, *, recipe: Recipe,
    prompts: Prompts, module: FlaxCLIPModule, optimizer: optax.GradientTransformation,
) -> tuple[State, jax.Array]:  # fmt: skip
    key = jax.random.fold_in(jax.random.key(seed, impl="rbg"), state.step)
    view_key, caption_key = jax.random.split(key)
    views = random_views(
        view_key, augment.to_float(images), smallest_area=recipe.smallest_area, colour=recipe.colour
    )
    captions = _one_caption_each(caption_key, prompts)

    def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
        seen = model.embed_images(module, params, views)
        read = model.apart(model.embed_captions(module, params, captions))
        scale = jnp.minimum(jnp.exp(params["logit_scale"]), model.LARGEST_LOGIT_SCALE)
        logits = scale * seen @ read.T
        goal = optax.smooth_labels(jax.nn.one_hot(labels, len(read)), recipe.label_smoothing)
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        return jnp.mean(optax.softmax_cross_entropy(logits, goal)), accuracy

    (loss, accuracy), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    gradient, loss, accuracy = lax.pmean((gradient, loss, accuracy), parallel.AXIS)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(state.step + 1, params, moments), jnp.stack([loss, accuracy])


def _one_caption_each(key: jax.Array, prompts: Prompts) -> jax.Array:
    """Draws a synonym of every class and one template for all: int32 `[classes, length]`.

    With templates of their own, classes would at first differ mostly by these.
    """
    synonym_key, template_key = jax.random.split(key)
    templates = len(TEMPLATES)
    synonyms = (prompts.starts[1:] - prompts.starts[:-1]) // templates
    drawn = jax.random.randint(synonym_key, synonyms.shape, 0, synonyms)
    template = jax.random.randint(template_key, (1,), 0, templates)
    return jnp.asarray(prompts.ids)[prompts.starts[:-1] + drawn * templates + template]


def _mean_embeddings(params: Any, *, prompts: Prompts, module: FlaxCLIPModule) -> jax.Array:
    """The mean of each class's captions, as CLIP's zero-shot classifier ensembles them."""
    counts = prompts.starts[1:] - prompts.starts[:-1]
    owner = np.repeat(np.arange(len(counts)), counts)
    read = model.embed_captions(module, params, jnp.asarray(prompts.ids))
    return model.apart(jax.ops.segment_sum(read, owner, len(counts)) / counts[:, None])


def _score(
    params: Any, classes: jax.Array, images: jax.Array, labels: jax.Array, mask: jax.Array,
    *, module: FlaxCLIPModule,
) -> jax.Array:  # fmt: skip
    seen = model.embed_images(module, params, augment.to_float(images))
    correct = jnp.argmax(seen @ classes.T, axis=-1) == labels
    return lax.psum(jnp.sum(correct * mask), parallel.AXIS)
