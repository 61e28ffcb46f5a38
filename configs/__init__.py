"""Experiments, one file each: data sets, in paper/ the paper's tables, in beyond/ later ones."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from ucjax import config
from ucjax.names import Name, parse

# The paper's data sets, by the names of their files here.
DATA_SETS = {
    "pets": "oxford_iiit_pet",
    "cars": "cars196",
    "flowers": "oxford_flowers102",
    "food": "food101",
    "sun397": "sun397",
    "imagenet100": "imagenet100",
    "cifar10": "cifar10",
}
MINIATURE = "miniature"
# Weights that come with ucjax, in place of those that are fetched.
_PACKAGED = ("efficientnet_lite0", "packaged_clip")
# Options of baselines that say how long they train, or how large a network.
_LEAST = dict.fromkeys(("epochs", "steps", "rounds", "updates", "trials"), "1") | {"width": "4"}
# Baselines that train networks of their own, each of which takes long to compile.
_COMPILED = ("em", "emax", "tap", "aue", "aap", "deepconfuse")
_MODELS = {"lite0": "lite0_probe", "lite0_probe": "lite0_probe", "simclr_rn50": "simclr_rn18"}
_KEPT = ("labels", "share", "treat", "probe")  # of a column's keys


def published_on(argument: str, default: str = "pets") -> ConfigDict:
    """Returns the authors' experiment (`config.published`) on a data set of `DATA_SETS`.

    Raises:
      ValueError: no such data set, which is not `MINIATURE` either (then: the default's).
    """
    name = default if argument == MINIATURE else argument
    if name not in DATA_SETS:
        raise ValueError(f"{name!r}: choose one of {', '.join([*DATA_SETS, MINIATURE])}")
    c = config.published()
    c.data.name = DATA_SETS[name]
    return c


def sized(c: ConfigDict, argument: str, surrogate: str = _PACKAGED[0]) -> ConfigDict:
    """Returns an experiment as it is, or for `MINIATURE` so small that it means nothing.

    Then rows and treatments are run on 24 textures of 32 px, with a linear model in place of
    victims that take long to compile: what the program does, in seconds, offline. Of a sweep over
    budgets or numbers of clusters two rows are left, and of baselines none that trains a network.

    Args:
      c: the experiment.
      argument: what was asked for.
      surrogate: the packaged one that stands for the experiment's own; others have the other.
    """
    if argument != MINIATURE:
        return c
    c.expected_time = "short, mostly compilation"
    c.data.update(source="textures", train_count=24, test_count=12, short_side=36, crop=32)
    other = next(name for name in _PACKAGED if name != surrogate)
    stands_for = dict.fromkeys(config.SURROGATES, other) | {c.surrogate.name: surrogate}
    c.surrogate.update(name=surrogate, path="", batch_size=8, precision="auto")
    c.clusters.update(k=3, n_init=2)
    c.noise.update(epochs=1, batch_size=8, width=4, blocks=1)
    c.victim.update(epochs=1, batch_size=8, width=4, short_side=36, crop=32)
    c.availability = False
    c.noise_seeds, c.seeds = (0,), (0,)
    kept = [row for text in c.protections if (row := parse(text, "row")).base not in _COMPILED]
    small = _once(_small_row(row, stands_for) for row in kept)
    c.protections = tuple(row for row in small if _place_in_sweep(row, small) < 2)
    c.victims = _once(_small_column(parse(column, "column")) for column in c.victims)
    return c


def _once(names: Iterable[Name]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, names)))


def _small_row(row: Name, stands_for: dict[str, str]) -> Name:
    from ucjax.protections.table import PROTECTIONS  # imports jax, which --help should not

    keys = dict(row.keys)
    if "surrogate" in keys:
        parts = [stands_for.get(part, part) for part in keys["surrogate"].split("+")]
        keys["surrogate"] = "+".join(dict.fromkeys(parts))
    if "k" in keys:
        keys["k"] = str(max(2, int(keys["k"]) // 5))
    keys |= {key: _LEAST[key] for key in PROTECTIONS[row.base].options if key in _LEAST}
    return Name(row.base, row.value, row.parts, tuple(sorted(keys.items())))


def _place_in_sweep(row: str, rows: tuple[str, ...]) -> int:
    """Returns how many rows come before one that differ from it in their sweep's key alone."""

    def without_sweep(text: str) -> Name:
        name = parse(text, "row")
        return Name(
            name.base, keys=tuple(pair for pair in name.keys if pair[0] not in ("eps", "k"))
        )

    alike = [other for other in rows if without_sweep(other) == without_sweep(row)]
    return alike.index(row)


def _small_column(column: Name) -> Name:
    model = _MODELS.get(column.base, "linear")
    keys = {key: value for key, value in column.keys if key in _KEPT}
    if model.startswith("simclr"):
        keys |= {"epochs": "1", "pretrain_epochs": "1"}
    return Name(model, column.value, column.parts, tuple(sorted(keys.items())))
