"""What a step of noise training computes, keeps and compiles, seen in its program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ucjax.clusters.kmeans import Clusters
from ucjax.data.images import ImageSet
from ucjax.protections.uc import perturbation
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.objective import Batch, make_objective
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile
from ucjax.surrogates import Preprocessing, Surrogate

SIZE, HIDDEN, FEATURES, P, BATCH = 8, 17, 6, 3, 16
GOAL = np.array([1, 2, 0], np.int32)
SPEC = NoiseSpec(
    scope="cluster", distance="l2", bound="tanh", target="offset", parametrization="direct",
    grain=1, norm="linf", epsilon_255=16, epochs=3, batch_size=BATCH, learning_rate=0.1,
    final_learning_rate=0.01, weight_decay=0.0, width=4, blocks=1, flip=True, order="shuffled",
    seed=0,
)  # fmt: skip


def embed(params, images):
    """Two products, whose weights no other array has the shapes of."""
    first, second = params
    return jnp.tanh(images.reshape(len(images), -1) @ first) @ second


@pytest.fixture(scope="module")
def surrogate():
    rng = np.random.default_rng(0)
    shapes = (SIZE * SIZE * 3, HIDDEN), (HIDDEN, FEATURES)
    params = tuple(rng.normal(size=shape).astype(np.float32) / 10 for shape in shapes)
    return Surrogate(embed, params, SIZE, Preprocessing((0, 0, 0), (1, 1, 1)), "dense", "none")


def prepare(surrogate, mesh, objective=None):
    """A step and its arguments."""
    objective = objective or make_objective(embed, distance="l2", scope="cluster")
    optimizer = perturbation.make_optimizer(SPEC, 10)
    state = perturbation.init(SPEC, optimizer, p=P, size=SIZE, mesh=mesh)
    centers = np.zeros((P, FEATURES), np.float32)
    fixed = parallel.replicate((surrogate.params, centers, GOAL), mesh)
    share = np.full(BATCH, 1 / BATCH, np.float32)
    pixels = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)
    rows = parallel.shard((pixels, np.arange(BATCH, dtype=np.int32) % P, share, share), mesh)
    step = noise.make_step(SPEC, objective, optimizer, mesh=mesh, state=state)
    return step, (state, fixed, Batch(*rows), parallel.replicate(np.int32(0), mesh))


def product_shapes(jaxpr):
    """Shapes of all matrix products of a program, those of inner functions too."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.add(equation.outvars[0].aval.shape)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= product_shapes(inner)
    return found


def test_the_surrogates_weights_get_no_gradient(surrogate, one_device):
    frozen = make_objective(embed, distance="l2", scope="cluster")

    def published(noise, params, *rest):
        """Makes gradients of the weights too, which nobody uses."""
        value = frozen(noise, params, *rest)
        unused = jax.grad(lambda params: frozen(noise, params, *rest).loss)(params)
        return value._replace(loss=value.loss + 0 * sum(jnp.sum(x) for x in unused))

    of_weights = {w.shape for w in surrogate.params} | {w.shape[::-1] for w in surrogate.params}
    found = []
    for objective in (frozen, published):
        step, arguments = prepare(surrogate, one_device, objective)
        found.append(product_shapes(jax.make_jaxpr(step)(*arguments).jaxpr))
    assert (BATCH, HIDDEN) in found[0]
    assert not found[0] & of_weights
    assert found[1] & of_weights, "the test would not see such gradients"


def test_a_step_gives_away_its_state_and_nothing_else(surrogate, mesh):
    step, (state, *rest) = prepare(surrogate, mesh)
    after, _ = step(state, *rest)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after, rest)))


class Compilations(MetricsFile):
    """Notes at the end of every epoch how many programs have been compiled so far."""

    def __init__(self, path):
        super().__init__(path)
        self.count, self.by_epoch = 0, []

    def listen(self, event, duration, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"

    def write(self, stage, step, **values):
        self.by_epoch.append(self.count)


@pytest.mark.parametrize("budget_bytes", [None, 0], ids=["resident", "streamed"])
def test_nothing_is_compiled_after_the_second_step(
    surrogate, mesh, tmp_path, monkeypatch, budget_bytes
):
    monkeypatch.setattr(noise, "SECONDS_BETWEEN_CHECKPOINTS", 3600)
    n, rng = 2 * BATCH - 1, np.random.default_rng(1)  # two steps an epoch, one of them padded
    pixels = rng.integers(0, 256, (n * 12, 10, 3), dtype=np.uint8)
    wide, labels = rng.random(n) < 0.5, np.zeros(n, np.int32)
    names = tuple(f"{i}.png" for i in range(n))
    images = ImageSet(pixels, np.arange(n + 1) * 12, wide, labels, names, ("a",))
    centers = rng.normal(size=(P, FEATURES)).astype(np.float32)
    clusters = Clusters(centers, np.arange(n, dtype=np.int32) % P, 0.0, 0)
    compilations = Compilations(tmp_path / "metrics.jsonl")
    jax.monitoring.register_event_duration_secs_listener(compilations.listen)
    noise.train(
        images, clusters, surrogate, SPEC, size=SIZE, mesh=mesh, metrics=compilations,
        checkpoint_file=tmp_path / "checkpoint.safetensors", budget_bytes=budget_bytes,
    )  # fmt: skip
    jax.monitoring.unregister_event_duration_listener(compilations.listen)
    first, *later = compilations.by_epoch
    assert first > 0
    assert later == [first] * (SPEC.epochs - 1)
