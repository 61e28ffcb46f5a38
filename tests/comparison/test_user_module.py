"""A user's own module adds one of each kind, through the same tables as ours, and is measured."""

import shutil
import sys
import textwrap

import pytest
from counted import Counted
from runs import fill, photos, tiny
from safetensors.numpy import load_file

from ucjax.cli.command import main
from ucjax.protections.table import PROTECTIONS
from ucjax.surrogates import SURROGATES
from ucjax.victims.table import LABELS, MODELS, RECIPES, TREATMENTS

MODULE = '''
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import ImageOps

from ucjax.protections.contract import Protection
from ucjax.protections.noise import Noise, Pixels
from ucjax.protections.table import PROTECTIONS
from ucjax.surrogates import SURROGATES, Preprocessing, Surrogate
from ucjax.victims.contract import LabelRule, Labels, Model, Recipe, Treatment
from ucjax.victims.table import LABELS, MODELS, RECIPES, TREATMENTS


def stripes(given):
    """Darkens every second row of pixels, by the image's cluster more or less often."""
    clusters, crop, eps = given.clusters(), given.config.data.crop, given.config.noise.epsilon_255
    period = given.options["period"]

    def pattern(row):
        noise = np.zeros((crop, crop, 3), np.float32)
        noise[:: period + row] = -eps / 255
        return noise

    patterns = Pixels(pattern, crop, given.config.data.short_side, eps)
    rows = clusters.assignment
    return Noise(patterns, rows, eps, clusters=rows)


class Pooled(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.classes)(x.mean((1, 2)))


def darken(key, images, targets):
    return images * 0.5, targets


def by_brightness(given):
    """Two classes: darker and brighter than most."""
    def means(images):
        return np.array([images.image(i).mean() for i in range(len(images))])

    middle = np.median(means(given.train))
    train, test = ((means(x) > middle).astype(np.int32) for x in (given.train, given.test))
    return Labels(train, test, ("dark", "bright"))


def corners(path, image_size, precision):
    """The pixels of the corners."""
    def embed(params, images):
        side = image_size // 4
        parts = [images[:, :side, :side], images[:, -side:, -side:]]
        return params["gain"].reshape(1, 1) * jnp.concatenate([x.mean((1, 2)) for x in parts], -1)

    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    weights = {"gain": np.ones(1, np.float32)}
    return Surrogate(embed, weights, image_size, plain, "corners", "0" * 64)


SURROGATES["corners"] = corners
PROTECTIONS["stripes"] = Protection(
    "every second row darkened", stripes, ("k", "surrogate", "eps"), {"period": 2}
)
MODELS["pooled"] = Model("a layer on the mean color", lambda classes, width: Pooled(classes))
RECIPES["darken"] = Recipe("half the light", darken)
TREATMENTS["negative"] = Treatment("inverted", lambda number: ImageOps.invert)
LABELS["brightness"] = LabelRule("dark or bright", by_brightness)
'''
ADDED = {
    "stripes": PROTECTIONS, "pooled": MODELS, "darken": RECIPES, "negative": TREATMENTS,
    "brightness": LABELS, "corners": SURROGATES,
}  # fmt: skip
ROWS = ("clean", "stripes", "stripes:eps=8:period=5", "cluster_random:surrogate=corners")
COLUMNS = ("pooled", "linear+darken", "linear+negative", "linear:labels=brightness")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that adds one of each kind; afterwards they are gone again."""
    (tmp_path / "my_protections.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_protections"
    sys.modules.pop("my_protections", None)
    for name, table in ADDED.items():
        table.pop(name, None)


def test_one_of_each_kind_is_measured(module, mesh, tmp_path, monkeypatch):
    assert not any(name in table for name, table in ADDED.items())
    config = tiny(tmp_path, modules=(module,), protections=ROWS, victims=COLUMNS)
    counted = Counted(monkeypatch)
    table = fill(config, tmp_path / "work", mesh).table
    assert all(name in table for name, table in ADDED.items())
    assert len(counted.labels) == len(set(counted.labels)) == len(ROWS) * len(COLUMNS)
    assert {(e.label, e.column) for e in table.entries} == {(r, c) for r in ROWS for c in COLUMNS}
    assert [line.max_delta_255 for line in table.lines] == [0, 16, 8, 16]
    assert table.line("stripes").mean_abs_delta_255 > table.line(ROWS[2]).mean_abs_delta_255 > 0
    assert [c.classes for c in table.columns[:3]] == [table.columns[0].classes] * 3
    assert table.columns[3].classes == ("dark", "bright")
    clean = [str(table.entry("clean", column).results) for column in COLUMNS]
    assert len(set(clean)) == len(COLUMNS)
    protector = tmp_path / "work" / "protections" / "stripes-seed0"
    assert (protector / "files" / "manifest.jsonl").is_file()
    features = [load_file(x) for x in sorted((tmp_path / "work" / "features").iterdir())]
    assert [x["features"].shape for x in features] == [(24, 6), (24, 48)]  # corners first
    fill(config, tmp_path / "work", mesh)
    assert len(counted.labels) == len(ROWS) * len(COLUMNS)


def test_the_command_takes_a_module_too(module, tmp_path, capsys):
    photos(tmp_path / "photos", 20)
    arguments = [
        "compare", tmp_path / "photos", "--module", module, "--protections", "stripes:k=2",
        "--victims", "pooled+darken:epochs=2", "--seeds", 2, "--workdir", tmp_path / "work",
        f"--config.data.cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    assert "stripes:k=2" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "work")
    arguments[3] = "no_such_module"
    assert main([str(argument) for argument in arguments]) == 2
    assert "--module no_such_module: No module named" in capsys.readouterr().err
