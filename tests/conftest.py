import atexit
import os
import shutil
import tempfile

# Compiling is most of the suite's time. LLVM's later passes make small programs no faster, and what
# one process has compiled, the others and those that tests start take from a cache.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ucjax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

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
