import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType

from ucjax.errors import UserError
from ucjax.runtime import parallel
from ucjax.runtime.parallel import AXIS, REPLICATED, SHARDED


def local_step(weights, noise, x, row):
    """A step in small: loss and gradients of replicated weights and of gathered noise."""

    def loss(weights, noise):
        every = lax.all_gather(noise, AXIS, tiled=True)
        hidden = jnp.tanh((x + every[row]) @ weights)
        return jnp.sum(hidden**3) / lax.psum(len(x), AXIS)

    value, (dweights, dnoise) = jax.value_and_grad(loss, (0, 1))(weights, noise)
    return lax.psum(value, AXIS), lax.psum(dweights, AXIS), dnoise


def step_inputs(rng):
    return (
        rng.normal(size=(5, 3)).astype(np.float32),
        rng.normal(size=(8, 5)).astype(np.float32),
        rng.normal(size=(12, 5)).astype(np.float32),
        rng.integers(8, size=12),
    )


def run_step(inputs, mesh):
    step = parallel.pmap(
        local_step,
        mesh=mesh,
        in_specs=(REPLICATED, SHARDED, SHARDED, SHARDED),
        out_specs=(REPLICATED, REPLICATED, SHARDED),
    )
    weights, *rest = inputs
    return parallel.to_host(step(parallel.replicate(weights, mesh), *parallel.shard(rest, mesh)))


@pytest.fixture
def inputs():
    return step_inputs(np.random.default_rng(0))


def test_pmap_equals_jax_pmap_bit_for_bit(mesh, inputs):
    loss, dweights, dnoise = run_step(inputs, mesh)
    weights, *rest = inputs
    split = [part.reshape(4, -1, *part.shape[1:]) for part in rest]
    oracle = jax.pmap(local_step, axis_name=AXIS, in_axes=(None, 0, 0, 0))(weights, *split)
    for device in range(4):
        assert loss.tobytes() == np.asarray(oracle[0][device]).tobytes()
        assert dweights.tobytes() == np.asarray(oracle[1][device]).tobytes()
    assert dnoise.tobytes() == np.asarray(oracle[2]).tobytes()


def test_gradients_through_the_gather_equal_those_of_one_device(mesh, one_device, inputs):
    four, one = run_step(inputs, mesh), run_step(inputs, one_device)
    for a, b in zip(four, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert np.abs(four[2]).max() > 0.01


def test_only_the_gradients_that_are_summed_cross_devices(mesh, inputs):
    weights, noise, x, row = inputs

    def noise_gradient(weights, noise, x, row):
        return local_step(weights, noise, x, row)[2]

    step = parallel.pmap(
        noise_gradient, mesh=mesh, in_specs=(REPLICATED, *3 * (SHARDED,)), out_specs=SHARDED
    )
    sharded = parallel.shard((noise, x, row), mesh)
    text = step.lower(parallel.replicate(weights, mesh), *sharded).as_text()
    counts = {name: text.count(f"stablehlo.{name}") for name in ("all_gather", "reduce_scatter")}
    assert counts == {"all_gather": 1, "reduce_scatter": 1}
    assert "all_reduce" not in text


def test_pmap_donates(mesh):
    x = parallel.shard(np.zeros((4, 2), np.float32), mesh)
    add = parallel.pmap(
        lambda x: x + 1, mesh=mesh, in_specs=SHARDED, out_specs=SHARDED, donate_argnums=(0,)
    )
    np.testing.assert_array_equal(add(x), np.ones((4, 2)))
    assert x.is_deleted()


def test_make_mesh_has_one_auto_axis_over_all_devices(mesh):
    assert mesh.axis_names == (AXIS,)
    assert mesh.axis_types == (AxisType.Auto,)
    assert list(mesh.devices) == jax.devices()
    assert list(parallel.make_mesh(jax.devices()[2:]).devices) == jax.devices()[2:]


def test_global_view_traces_gathers_and_segment_sums(mesh):
    x = np.arange(24, dtype=np.float32).reshape(12, 2)
    ids = np.arange(12) % 3
    sharded = parallel.shard((x, ids), mesh)
    sums = jax.jit(lambda x, ids: jax.ops.segment_sum(x, ids, 3)[ids])(*sharded)
    np.testing.assert_array_equal(sums, np.stack([x[ids == i].sum(axis=0) for i in ids]))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, bool, ml_dtypes.bfloat16])
def test_round_trips(mesh, dtype):
    tree = {"a": np.arange(24).reshape(8, 3).astype(dtype), "b": [np.arange(4).astype(dtype)]}
    for place in (parallel.replicate, parallel.shard):
        back = parallel.to_host(place(tree, mesh))
        jax.tree.map(np.testing.assert_array_equal, back, tree)
        assert back["a"].dtype == dtype


def test_where_the_rows_are(mesh):
    x = np.arange(8)
    sharded, replicated = parallel.shard(x, mesh), parallel.replicate(x, mesh)
    for i, device in enumerate(mesh.devices):
        parts = {shard.device: shard.data for shard in sharded.addressable_shards}
        copies = {shard.device: shard.data for shard in replicated.addressable_shards}
        np.testing.assert_array_equal(parts[device], [2 * i, 2 * i + 1])
        np.testing.assert_array_equal(copies[device], x)


def test_scalars_are_replicated(mesh):
    assert parallel.to_host(parallel.replicate({"step": 3}, mesh))["step"] == 3


def test_rows_that_do_not_divide_are_refused(mesh):
    with pytest.raises(ValueError, match="6 rows cannot be shared equally by 4 devices"):
        parallel.shard(np.zeros(6), mesh)


@pytest.mark.parametrize(("n", "padded"), [(0, 0), (1, 4), (4, 4), (5, 8)])
def test_pad(n, padded):
    x = np.arange(2 * n).reshape(n, 2)
    rows, mask = parallel.pad(x, 4)
    assert rows.shape == (padded, 2)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, np.arange(padded) < n)
    np.testing.assert_array_equal(rows[:n], x)
    np.testing.assert_array_equal(rows[n:], np.repeat(x[-1:], padded - n, axis=0))


def test_one_process_is_main_and_agrees_with_itself():
    assert parallel.is_main()
    assert parallel.agree(True) is True
    assert parallel.agree(False) is False
    parallel.barrier("alone")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"processes": 2, "process_id": 0}, "--processes=2 needs --coordinator"),
        ({"processes": 2, "process_id": 2, "coordinator": "h:1"}, "--process_id=2.*0 to 1"),
        ({"processes": 1, "process_id": -1}, "--process_id=-1.*0 to 0"),
    ],
)
def test_half_a_pod_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        parallel.initialize(**{"coordinator": "", "detect": False, **flags})


@pytest.mark.parametrize("chosen", [True, False])
def test_compiled_programs_are_kept_where_jax_was_told_or_privately(chosen, monkeypatch, tmp_path):
    monkeypatch.setenv("UCJAX_CACHE", str(tmp_path))
    if not chosen:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir
    try:
        parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
        private = str(tmp_path / "xla")
        assert jax.config.jax_compilation_cache_dir == (before if chosen else private)
        assert chosen or (tmp_path / "xla").stat().st_mode & 0o777 == 0o700
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UCJAX_CACHE", str(tmp_path))
    assert parallel.cache_folder() == tmp_path
    monkeypatch.setenv("UCJAX_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parallel.cache_folder() == tmp_path / ".cache" / "ucjax"
