import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

from ucjax.runtime import parallel  # noqa: E402


@pytest.fixture(scope="session")
def mesh():
    """All four fake devices: what tests run on unless they compare."""
    return parallel.make_mesh()


@pytest.fixture(scope="session")
def one_device():
    return parallel.make_mesh(jax.devices()[:1])
