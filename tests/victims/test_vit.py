import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import ViTConfig
from transformers.models.vit.modeling_flax_vit import FlaxViTForImageClassificationModule

from ucjax.runtime import parallel
from ucjax.victims.models.dropout import Dropout
from ucjax.victims.models.vit import ViT
from ucjax.victims.table import MODELS

HEADS, WIDTH, DEPTH, CLASSES = 3, 4, 2, 5
D = HEADS * WIDTH


def parameters(name, classes, size=224):
    net = MODELS[name].make(classes, 64)
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(lambda k, x: net.init(k, x, train=False), jax.random.key(0), images)
    assert list(shapes) == ["params"]
    return sum(x.size for x in jax.tree.leaves(shapes))


def test_published_sizes():
    assert parameters("vit_b16", 1000) == 86_567_656  # torchvision's ViT_B_16_Weights.meta
    assert parameters("vit_b16", 37) == 85_827_109
    assert parameters("vit_s16", 1000) == 22_050_664  # DeiT-S, arXiv:2012.12877
    assert parameters("vit_tiny", 1000) == 5_717_416  # DeiT-Ti


@pytest.mark.parametrize(("size", "patches"), [(32, 64), (64, 64), (128, 64), (224, 196)])
def test_patches_grow_with_the_images(size, patches):
    net = MODELS["vit_tiny"].make(10, 64)
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(lambda k, x: net.init(k, x, train=False), jax.random.key(0), images)
    assert shapes["params"]["pos_embedding"].shape == (1, patches + 1, 192)


@pytest.fixture(scope="module")
def drawn():
    """A net, weights of order one everywhere (its own head is zero), and images."""
    net = ViT(CLASSES, WIDTH, HEADS, DEPTH, patch=4)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda k: net.init(k, images, train=False), jax.random.key(0))
    draw = lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32)  # noqa: E731
    return net, jax.tree.map(draw, shapes), images


def for_transformers(params):
    """The same weights under the names of Hugging Face's ViT."""
    ours, theirs = flatten_dict(params["params"], sep="/"), {}
    for name, x in ours.items():
        block, _, rest = name.partition("/")
        layer = f"vit/encoder/layer/{block.rsplit('_', 1)[-1]}"
        if name.startswith("conv_proj"):
            shape = (4, 4, 3, D) if name.endswith("kernel") else (D,)
            theirs[f"vit/embeddings/patch_embeddings/projection/{rest}"] = x.reshape(shape)
        elif name in ("class_token", "pos_embedding"):
            to = {"class_token": "cls_token", "pos_embedding": "position_embeddings"}[name]
            theirs[f"vit/embeddings/{to}"] = x
        elif "in_proj" in rest:
            parts = zip(("query", "key", "value"), np.split(x, 3, axis=-1), strict=True)
            for part, value in parts:
                theirs[f"{layer}/attention/attention/{part}/{rest.split('/')[-1]}"] = value
        elif block.startswith("encoder_layer"):
            to = {
                "self_attention/out_proj": "attention/output/dense",
                "ln_1": "layernorm_before",
                "ln_2": "layernorm_after",
                "mlp_0": "intermediate/dense",
                "mlp_3": "output/dense",
            }
            module, leaf = rest.rsplit("/", 1)
            theirs[f"{layer}/{to[module]}/{leaf}"] = x
        else:
            to = {"ln": "vit/layernorm", "head": "classifier"}[block]
            theirs[f"{to}/{rest}"] = x
    return {"params": unflatten_dict(theirs, sep="/")}


def test_logits_and_gradients_are_transformers_vit(drawn):
    net, params, images = drawn
    settings = ViTConfig(
        hidden_size=D, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * D,
        image_size=16, patch_size=4, layer_norm_eps=1e-6, hidden_act="gelu",
        num_labels=CLASSES,
    )  # fmt: skip
    theirs = FlaxViTForImageClassificationModule(settings)

    def mean_square(apply):
        def value(x):
            logits = apply(x)
            return jnp.mean(logits**2), logits

        return jax.jit(jax.value_and_grad(value, has_aux=True))(images)

    (_, expected), their_gradient = mean_square(
        lambda x: theirs.apply(for_transformers(params), x).logits
    )
    (_, logits), gradient = mean_square(lambda x: net.apply(params, x, train=True))
    assert np.ptp(logits) > 0.5
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    scale = np.abs(their_gradient).max()
    np.testing.assert_allclose(gradient / scale, their_gradient / scale, atol=1e-4)


def test_without_positions_the_order_of_patches_does_not_matter(drawn):
    net, params, images = drawn
    params = {"params": params["params"] | {"pos_embedding": jnp.zeros((1, 17, D))}}
    patches = images.reshape(2, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(2, 16, 4, 4, 3)
    shuffled = patches[:, np.random.default_rng(1).permutation(16)]
    shuffled = shuffled.reshape(2, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(images.shape)
    ours, theirs = (net.apply(params, x, train=False) for x in (images, shuffled))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(images - shuffled).max() > 1


def test_initialization_is_torchvisions():
    net = ViT(7, 16, 4, 1, patch=4)
    init = jax.jit(lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)), train=False))
    weights = flatten_dict(init(jax.random.key(3))["params"], sep="/")
    d, block = 64, "encoder_layer_0"
    deviations = {
        "conv_proj/kernel": 48**-0.5,
        "pos_embedding": 0.02,
        f"{block}/self_attention/in_proj/kernel": (2 / (d + 3 * d)) ** 0.5,
        f"{block}/self_attention/out_proj/kernel": (3 * d) ** -0.5,
        f"{block}/mlp_0/kernel": (2 / (5 * d)) ** 0.5,
        f"{block}/mlp_3/kernel": (2 / (5 * d)) ** 0.5,
        f"{block}/mlp_0/bias": 1e-6,
        f"{block}/mlp_3/bias": 1e-6,
    }
    for name, x in weights.items():
        if name in deviations:
            assert abs(np.std(x) / deviations[name] - 1) < 5 / np.sqrt(2 * x.size), name
        else:
            np.testing.assert_array_equal(x, 1.0 if name.endswith("scale") else 0.0, name)


class Dropped(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        return Dropout(0.25, self.axis_name)(x, train)


def test_dropout_does_not_depend_on_the_devices(mesh):
    x = np.arange(1, 1 + 8 * 500, dtype=np.float32).reshape(8, 500)
    key = jax.random.key(0)
    alone = Dropped().apply({}, x, True, rngs={"dropout": key})

    def share(x, key):
        return Dropped(parallel.AXIS).apply({}, x, True, rngs={"dropout": key})

    split = parallel.SHARDED
    spread = parallel.pmap(share, mesh=mesh, in_specs=(split, parallel.REPLICATED), out_specs=split)
    np.testing.assert_allclose(spread(x, key), alone, rtol=1e-6)
    kept = np.asarray(alone) != 0
    np.testing.assert_allclose(np.asarray(alone)[kept], (x / 0.75)[kept], rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 5 * (0.25 * 0.75 / x.size) ** 0.5
    assert (kept[0] != kept[1]).any()
    np.testing.assert_array_equal(Dropped().apply({}, x, False), x)
