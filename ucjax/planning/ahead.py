"""The child process of `targets.compile_for`: JSON in, the steps' costs for one topology out."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from jax.experimental import topologies
from ml_collections import ConfigDict

from ucjax import job
from ucjax.errors import UserError
from ucjax.planning import cost, stand_ins, steps
from ucjax.runtime import parallel, platforms


def main() -> None:
    """Answers the request on the standard input."""
    request = json.load(sys.stdin)
    config = ConfigDict(_tuples(request["config"]))
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=request["topology"], **_bounds(request["topology"])
        )
        this = job.check(config, Path(), parallel.make_mesh(list(described.devices)))
        data, spec = config.data, config.surrogate
        surrogate = stand_ins.load(spec.name, path=spec.path, image_size=data.crop)
        with platforms.traced_for("tpu"):
            built = steps.build(this, surrogate, steps.Images(*request["images"]))
            costs = {name: cost.compiled(step, run=False) for name, step in built.items()}
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"costs": {name: dataclasses.asdict(c) for name, c in costs.items()}}))


def _bounds(topology: str) -> dict[str, Any]:
    """A single chip has a host of its own, where libtpu expects four."""
    return {"chips_per_host_bounds": (1, 1, 1)} if topology.endswith(":1x1") else {}


def _tuples(value: Any) -> Any:
    """Undoes what JSON makes of tuples."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
