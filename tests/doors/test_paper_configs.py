"""The paper's tables as configs: each is a table that can be filled, and so is its miniature."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

import configs
from ucjax import names
from ucjax.comparison import run
from ucjax.config import with_settings
from ucjax.data import tfds
from ucjax.planning import schedule
from ucjax.protections import table as protections
from ucjax.victims import table as victims

ROOT = Path(__file__).parents[2]
FILES = {
    f"{path.parent.name}/{path.stem}": path
    for room in ("paper", "beyond")
    for path in sorted((ROOT / "configs" / room).glob("[a-z]*.py"))
}
PACKAGED = {"efficientnet_lite0", "packaged_clip"}


def config_of(name, *argument):
    return importlib.import_module(f"configs.{name.replace('/', '.')}").get_config(*argument)


def surrogates(config):
    named = [dict(names.parse(row, "row").keys).get("surrogate", "") for row in config.protections]
    return {part for name in (config.surrogate.name, *named) for part in name.split("+") if part}


def resolved(config):
    """The plan of a config, without the time that checking a network a column takes."""
    rows = tuple(names.parse(row, "row") for row in config.protections)
    for row in rows:
        protections.resolve(row, config)
    columns = (names.parse(column, "column") for column in config.victims)
    return run.Plan(rows, tuple(victims.resolve(column, config) for column in columns))


def contents(plan):
    """What is in a table, whatever its sizes: rows, recipes, treatments, label rules."""
    sizes = {"surrogate", "k", "eps", *configs._LEAST}
    rows = {(row.base, *(pair for pair in row.keys if pair[0] not in sizes)) for row in plan.rows}
    parts = {part for v in plan.columns for part in (*v.spec.recipes, *v.treatments)}
    rules = {re.sub(r"-\d+", "", victim.labels) for victim in plan.columns} - {"species"}  # of pets
    rules |= {victim.probe for victim in plan.columns}
    shares = {victim.share for victim in plan.columns}
    words = {part if part in victims.RECIPES else part.rstrip("0123456789") for part in parts}
    words -= {"ueraser", "ueraser_max"}  # long programs, whose own tests run them
    return rows, words, rules, shares


@pytest.mark.parametrize("name", FILES)
def test_a_miniature_is_offline_and_holds_all_that_its_table_does(name, mesh):
    config, small = config_of(name), config_of(name, "miniature")
    full, tiny = resolved(config), run.check(small, mesh)
    run.check(with_settings(config, {"victims": (config.victims[0],)}), mesh)
    assert config.is_locked
    assert config.data.source == "tfds"
    assert small.is_locked
    assert small.data.source == "textures"
    assert surrogates(small) <= PACKAGED
    assert small.data.train_count * len(tiny.rows) * len(tiny.columns) <= 24 * 100
    (rows, *rest), (wanted, *others) = contents(tiny), contents(full)
    assert rows == {row for row in wanted if row[0] not in configs._COMPILED}
    assert rest == others


@pytest.mark.parametrize("argument", configs.DATA_SETS)
def test_a_table_is_that_of_the_data_set_named(argument):
    for name in FILES.keys() - {"beyond/scale"}:
        assert config_of(name, argument).data.name == configs.DATA_SETS[argument]


@pytest.mark.parametrize("name", FILES)
def test_what_it_is_said_to_cost_is_what_the_plan_counts(name, one_device):
    config = config_of(name)
    module = importlib.import_module(f"configs.{name.replace('/', '.')}")
    cost = re.search(r"Cost.*: ([\d.]+) million image passes of victims, ([\d.]+)", module.__doc__)
    count = int(re.search(r"--images=(\d+)", " ".join(module.__doc__.split()))[1])
    images = schedule.Images(count, 1000, 37, "given")
    passes = {"train": 0, "noise": 0}
    sizes = {"train": config.victim.batch_size, "noise": config.noise.batch_size}
    for stage in schedule.schedule(config, resolved(config), images, one_device):
        if (kind := stage.cost.split()[0].removeprefix("pre")) in passes:
            passes[kind] += stage.count * sizes[kind]
    assert [round(x / 1e6, 1) for x in passes.values()] == [float(x) for x in cost.groups()]


def test_data_sets_have_files_of_their_own():
    assert {*configs.DATA_SETS.values()} == {*tfds.SETS}
    for stem, name in configs.DATA_SETS.items():
        assert config_of(stem).data.name == name


def test_arguments_that_are_none():
    with pytest.raises(ValueError, match="'cat': choose one of pets, cars"):
        config_of("paper/epsilon", "cat")
    with pytest.raises(ValueError, match="invalid literal"):
        config_of("beyond/scale", "many")


def test_all_are_installed_with_the_wheel():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = wanted["tool"]["setuptools"]["packages"]["find"]["include"]
    found = {*find_packages(str(ROOT), include=include)}
    assert {"configs", "configs.paper", "configs.beyond"} <= found


def test_the_map_of_the_paper_names_every_config():
    text = (ROOT / "docs" / "paper.md").read_text()
    assert [name for name in FILES if f"configs/{name}.py" not in text] == []
    named = re.findall(r"configs/((?:paper|beyond)/\w+)\.py", text)
    assert [name for name in named if name not in FILES] == []
