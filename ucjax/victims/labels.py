"""Whose labels a victim trains on: the paper's claim is that the owner need not know them.

A rule changes what training and test images are called, and nothing else.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from ucjax.clusters import kmeans
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.victims.contract import Labelling, Labels

# Parkhi et al., "Cats and Dogs", CVPR 2012 (Oxford-IIIT Pet): 12 breeds of cats, 25 of dogs.
_CATS = (
    "abyssinian bengal birman bombay british_shorthair egyptian_mau maine_coon persian ragdoll "
    "russian_blue siamese sphynx"
)
_DOGS = (
    "american_bulldog american_pit_bull_terrier basset_hound beagle boxer chihuahua "
    "english_cocker_spaniel english_setter german_shorthaired great_pyrenees havanese "
    "japanese_chin keeshond leonberger miniature_pinscher newfoundland pomeranian pug "
    "saint_bernard samoyed scottish_terrier shiba_inu staffordshire_bull_terrier wheaten_terrier "
    "yorkshire_terrier"
)
MAPPINGS = (".json", ".csv")
_DEFAULT = "efficientnet_lite0"


def given(labelling: Labelling) -> Labels:
    """Returns the images' own labels."""
    train, test = labelling.train, labelling.test
    return Labels(train.labels, test.labels, train.class_names)


def check_random(argument: str) -> None:
    """Refuses what is no number of groups.

    Raises:
      UserError: it is none.
    """
    _groups(argument, f"labels=random-{argument}")


def random(labelling: Labelling) -> Labels:
    """Joins the classes to groups at random, whose numbers of classes differ by one at most.

    Raises:
      UserError: there are fewer classes than groups, or images without a class.
    """
    n, classes = int(labelling.argument), len(labelling.train.class_names)
    if n > classes or min(labelling.train.labels.min(), labelling.test.labels.min()) < 0:
        raise UserError(
            f"labels=random-{n} joins classes to {n} groups, but there are {classes} classes"
            + ("" if n > classes else ", and images without any")
        )
    groups = np.random.default_rng(labelling.seed).permutation(np.arange(classes) % n)
    groups = groups.astype(np.int32)
    names = tuple(f"group {i}" for i in range(n))
    return Labels(groups[labelling.train.labels], groups[labelling.test.labels], names)


def species(labelling: Labelling) -> Labels:
    """Joins the breeds of Oxford-IIIT Pet to cats and dogs, by the names of the classes.

    Raises:
      UserError: a class has another name, or images have no class.
    """
    _check_classes(labelling, "species")
    of = {**dict.fromkeys(_CATS.split(), 0), **dict.fromkeys(_DOGS.split(), 1)}
    names = labelling.train.class_names
    spelled = [name.lower().replace(" ", "_").replace("-", "_") for name in names]
    if strange := [name for name, key in zip(names, spelled, strict=True) if key not in of]:
        raise UserError(
            f"labels=species knows the breeds of Oxford-IIIT Pet, and {len(strange)} of "
            f"{len(names)} classes are none, first {strange[0]!r}: name a file that maps classes "
            "to groups (labels=FILE.csv)"
        )
    group = np.array([of[key] for key in spelled], np.int32)
    return Labels(group[labelling.train.labels], group[labelling.test.labels], ("cat", "dog"))


def check_clusters(argument: str) -> None:
    """Refuses what is not "N" or "N-SURROGATE".

    Raises:
      UserError: it is neither.
    """
    _check_numbered("clusters", argument)


def clusters(labelling: Labelling) -> Labels:
    """Labels images by their cluster in the features of a surrogate other than the noise's.

    The centres are those of the training images; test images belong to the nearest.

    Raises:
      UserError: it is the noise's own surrogate.
    """
    number, _, surrogate = labelling.argument.partition("-")
    train, test = _features(labelling, surrogate, f"clusters-{number}")
    found = _kmeans(train, int(number), labelling)
    names = tuple(f"cluster {i}" for i in range(int(number)))
    return Labels(found.assignment, kmeans.assign(test, found.centers), names)


def check_kmeans(argument: str) -> None:
    """Refuses what is not "N" or "N-SURROGATE".

    Raises:
      UserError: it is neither.
    """
    _check_numbered("kmeans", argument)


def grouped(labelling: Labelling) -> Labels:
    """Joins classes whose mean features are near each other to N groups.

    Raises:
      UserError: the surrogate is the noise's own, there are fewer classes than groups, or images
        without a class.
    """
    number, _, surrogate = labelling.argument.partition("-")
    _check_classes(labelling, f"kmeans-{number}")
    train, _ = _features(labelling, surrogate, f"kmeans-{number}")
    labels, classes = labelling.train.labels, len(labelling.train.class_names)
    if int(number) > classes:
        raise UserError(
            f"labels=kmeans-{number} joins classes to {number} groups, but there are {classes} "
            "classes"
        )
    means = np.stack([train[labels == c].mean(0) for c in range(classes)])
    group = _kmeans(means, int(number), labelling).assignment
    names = tuple(f"group {i}" for i in range(int(number)))
    return Labels(group[labels], group[labelling.test.labels], names)


def check_fine(argument: str) -> None:
    """Accepts nothing or the name of a surrogate."""
    del argument


def fine(labelling: Labelling) -> Labels:
    """Splits each class in two by k-means; test images belong to the nearer half of their class.

    Raises:
      UserError: the surrogate is the noise's own, a class has fewer than two different images, or
        images have no class.
    """
    _check_classes(labelling, "fine")
    train, test = _features(labelling, labelling.argument, "fine")
    new = [np.empty(len(images), np.int32) for images in (labelling.train, labelling.test)]
    for c in range(len(labelling.train.class_names)):
        ours, theirs = labelling.train.labels == c, labelling.test.labels == c
        found = _kmeans(train[ours], 2, labelling)
        new[0][ours] = 2 * c + found.assignment
        if theirs.any():
            new[1][theirs] = 2 * c + kmeans.assign(test[theirs], found.centers)
    names = tuple(f"{name} {half}" for name in labelling.train.class_names for half in "ab")
    return Labels(new[0], new[1], names)


def _features(labelling: Labelling, surrogate: str, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sets' features by a surrogate that is not the noise's."""
    surrogate = surrogate or _DEFAULT
    if surrogate == labelling.noise_surrogate:
        raise UserError(
            f"labels={rule}: the clusters that the noise follows are made with {surrogate} too: "
            f"name another surrogate, as in {rule}-packaged_clip (whose weights are for "
            "non-commercial research and education)"
        )
    return labelling.features(surrogate)


def _kmeans(rows: np.ndarray, k: int, labelling: Labelling) -> kmeans.Clusters:
    settings = labelling.clusters
    return kmeans.fit(
        rows,
        k,
        seed=labelling.seed,
        mesh=labelling.mesh,
        n_init=settings.n_init,
        max_iterations=settings.max_iterations,
        tolerance=settings.tolerance,
    )


def _check_classes(labelling: Labelling, rule: str) -> None:
    """Refuses images without a class, and classes without training images."""
    train, test = labelling.train.labels, labelling.test.labels
    names = labelling.train.class_names
    if min(train.min(), test.min(initial=0)) < 0:
        raise UserError(f"labels={rule} changes classes, but some images have none")
    counts = np.bincount(train, minlength=len(names))
    if not counts.all():
        raise UserError(f"labels={rule}: no training image is in {names[int(np.argmin(counts))]!r}")


def _check_numbered(rule: str, argument: str) -> None:
    number, dash, surrogate = argument.partition("-")
    _groups(number, f"labels={rule}-{argument}")
    if dash and not surrogate:
        raise UserError(f"labels={rule}-{argument} names no surrogate after the dash")


def check_mapping(argument: str) -> None:
    """Refuses a mapping that cannot be read.

    Raises:
      UserError: as `read_mapping`.
    """
    read_mapping(Path(argument))


def mapping(labelling: Labelling) -> Labels:
    """Renames classes or single images as a file says; an image's own line counts first.

    Raises:
      UserError: an image has no new class.
    """
    changes = read_mapping(Path(labelling.argument))

    def renamed(images: ImageSet) -> list[str]:
        old = [images.class_names[y] if y >= 0 else "" for y in images.labels]
        new = [changes.get(n, changes.get(o, "")) for n, o in zip(images.names, old, strict=True)]
        if missing := [(n, o) for n, o, y in zip(images.names, old, new, strict=True) if not y]:
            name, of = missing[0]
            raise UserError(
                f"{labelling.argument} maps neither the image {name} nor its class {of!r} "
                f"({len(missing)} of {len(new)} images are in no class then)"
            )
        return new

    train, test = renamed(labelling.train), renamed(labelling.test)
    names = sorted({*train, *test})
    number = {name: i for i, name in enumerate(names)}
    y, z = (np.array([number[name] for name in new], np.int32) for new in (train, test))
    return Labels(y, z, tuple(names))


def read_mapping(path: Path) -> dict[str, str]:
    """Reads "class or image name" -> "new class" from a JSON object or two columns of CSV.

    Raises:
      UserError: it cannot be read, is of another form or gives a name two classes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: list[list[str]] = (
            json.loads(text, object_pairs_hook=lambda pairs: [list(pair) for pair in pairs])
            if path.suffix == ".json"
            else [row for row in csv.reader(text.splitlines()) if row]
        )
    except (OSError, ValueError) as error:
        raise UserError(f"labels={path} cannot be read ({error})") from error
    strange = not isinstance(rows, list) or any(
        not isinstance(row, list) or len(row) != 2 or not all(isinstance(x, str) for x in row)
        for row in rows
    )
    if strange or not rows or not all(new for _, new in rows):
        raise UserError(
            f"labels={path} is no mapping: write one JSON object of names to classes, or a CSV "
            "file of two columns"
        )
    changes: dict[str, str] = {}
    for old, new in rows:
        if changes.setdefault(old, new) != new:
            raise UserError(f"labels={path} maps {old!r} to {changes[old]!r} and to {new!r}")
    return changes


def _groups(number: str, what: str) -> int:
    if not number.isdecimal() or int(number) < 2:
        raise UserError(f"{what}: {number!r} is no number of classes; give 2 or more")
    return int(number)
