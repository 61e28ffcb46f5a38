import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import lax

from benchmarks import scaling
from ucjax.runtime import parallel
from ucjax.runtime.parallel import AXIS, REPLICATED, SHARDED


def test_bytes_of_types():
    assert scaling.array_bytes("f32[2,3]{1,0}") == 24
    assert scaling.array_bytes("(bf16[4]{0}, pred[], /*index=2*/u8[7]{0}, s64[])") == 8 + 1 + 7 + 8
    assert scaling.array_bytes("f8e4m3fn[5]") == 5


def test_bytes_of_a_known_program(mesh):
    def step(x, y):
        gathered = lax.all_gather(x, AXIS, tiled=True)
        scattered = lax.psum_scatter(2 * gathered, AXIS, tiled=True)
        return scattered, lax.psum(y, AXIS)

    mapped = parallel.pmap(
        step, mesh=mesh, in_specs=(SHARDED, REPLICATED), out_specs=(SHARDED, REPLICATED)
    )
    x, y = parallel.shard(np.ones((8, 5), np.float32), mesh), np.ones(3, np.float16)
    hlo = mapped.lower(x, parallel.replicate(y, mesh)).compile().as_text()
    found = scaling.collective_bytes(hlo)
    assert found.pop("all-reduce") in (3 * 2, 3 * 4)  # XLA may add in float32
    assert found == {"all-gather": 2 * 5 * 4, "reduce-scatter": 8 * 5 * 4}


def test_bytes_of_asynchronous_collectives():
    hlo = """
  %a.1 = f32[2,5]{1,0} parameter(0)
  %start = (f32[2,5]{1,0}, f32[8,5]{1,0}) all-gather-start(%a.1), dimensions={0}
  ROOT %done = f32[8,5]{1,0} all-gather-done(%start)
"""
    assert scaling.collective_bytes(hlo) == {"all-gather": 40}


def test_no_collective_no_bytes():
    assert scaling.collective_bytes(jax.jit(lambda x: x @ x).lower(np.eye(3)).as_text("hlo")) == {}


def test_exponent():
    x = [1.0, 2.0, 4.0]
    assert scaling.exponent(x, [3 * a**1.5 for a in x]) == pytest.approx(1.5)


def test_only_noise_crosses_devices_and_their_number_does_not_matter(tmp_path):
    out = tmp_path / "scaling.json"
    command = [sys.executable, "-m", "benchmarks.scaling", "--miniature", f"--out={out}"]
    done = subprocess.run(command, cwd=scaling.ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert set(result["exponents"]) == {"images", "clusters", "size", "devices"}
    assert all(row["bytes"] == {} for row in result["rows"] if row["devices"] == 1)
    two = next(row for row in result["rows"] if row["devices"] == 2)
    noise = 4 * 8 * 8 * 3 * 4  # 3 clusters, padded to the devices, of 8 x 8 px
    assert two["bytes"] == {"all-gather": noise // 2, "reduce-scatter": noise, "all-reduce": 2 * 4}
    assert two["parameter_bytes"] > 100 * noise
    # Adam's first steps are of one length whatever the gradient, so rounding can show.
    assert two["difference"] < 0.1 / 255
