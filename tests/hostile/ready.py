"""A protector made without training, a few photos, and the command as an owner types it."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import odd_files

CROP, SHORT, CLUSTERS, EPS = 32, 36, 3, 16


def protector(folder: Path) -> Path:
    """Writes a protector of random signs for EfficientNet-Lite0 at 32 pixels."""
    from ucjax import surrogates
    from ucjax.protections import controls, protector
    from ucjax.runtime import workdir

    surrogate = surrogates.load("efficientnet_lite0", image_size=CROP)
    noise = controls.cluster_signs(0, CLUSTERS, CROP, EPS)
    made = protector.Protector(
        noise=np.asarray(noise, np.float32),
        centers=np.random.default_rng(0).normal(size=(CLUSTERS, 1280)).astype(np.float32),
        surrogate_name="efficientnet_lite0",
        surrogate_path="",
        surrogate_id=surrogate.id,
        surrogate_sha256=surrogate.sha256,
        mean=surrogate.preprocessing.mean,
        std=surrogate.preprocessing.std,
        epsilon_255=EPS,
        norm="linf",
        grain=1,
        short_side=SHORT,
        crop=CROP,
        seed=0,
        versions=workdir.versions(),
    )
    protector.save(made, folder)
    return folder


def photos(root: Path, count: int = 6) -> Path:
    """Writes photos in two class folders."""
    for number in range(count):
        path = root / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(60, 50 + number, seed=number).save(path, quality=95)
    return root


def ucjax(*arguments) -> tuple[int, str]:
    """Runs a command in this process; returns its exit code and what it printed."""
    from ucjax.cli.command import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue() + err.getvalue()


def start(*arguments, module: str = "ucjax", **options) -> subprocess.Popen:
    """Starts a command in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
    return subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, **options)


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def one_line(code: int, text: str, message: str, expected: int = 2) -> None:
    """Holds a command's end to a mistake: its exit code, one line, no trace."""
    assert code == expected, text
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    assert message in errors[0], errors[0]
    assert "Traceback" not in text


def edit_json(path: Path, change) -> None:
    """Applies `change` to a JSON file's value."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_line(out: Path, line: int, **fields) -> None:
    """Replaces fields of one line of the manifest."""
    path = out / "manifest.jsonl"
    records = [json.loads(x) for x in path.read_text().splitlines()]
    records[line - 1] |= fields
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def protect(folder: Path, *more) -> tuple[int, str]:
    """Protects `folder/photos` into `folder/out` with `folder/protector`."""
    command = ("protect", folder / "photos", folder / "out", "--protector", folder / "protector")
    return ucjax(*command, *more)
