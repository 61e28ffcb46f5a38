"""The two sets of pictures of a cell: what a victim trains on, and what it is tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ucjax import config as settings
from ucjax.comparison.ground import Ground, named
from ucjax.comparison.rows import Row, slug
from ucjax.data import folder as folders
from ucjax.data.images import ImageSet, Item
from ucjax.errors import UserError
from ucjax.victims import defences, purify, table
from ucjax.victims.contract import Labelling, Labels, Victim

# Draws which files are protected apart from what else the seed draws.
_SHARE_STREAM = 0x5348
_PURIFIED = "purified"


def labels_of(victim: Victim, ground: Ground) -> Labels:
    """Returns the labels that a victim gives to the images.

    Raises:
      UserError: there are none, or the rule cannot be applied.
    """
    splits, config = ground.splits, ground.config

    def features(surrogate: str) -> tuple[np.ndarray, np.ndarray]:
        own = config.copy_and_resolve_references()
        own.surrogate.update(name=surrogate, path=settings.SURROGATES.get(surrogate, ""))
        place = ground.folder / "features"
        return (
            ground.features(own),
            ground.embed(splits.test, own, place / f"{named(own)}-test.safetensors"),
        )

    found = table.label(
        victim.labels,
        Labelling(
            argument="",
            train=splits.train,
            test=splits.test,
            seed=config.seed,
            features=features,
            mesh=ground.mesh,
            noise_surrogate=config.surrogate.name,
            clusters=config.clusters,
        ),
    )
    if min(found.train.min(), found.test.min(initial=0)) < 0:
        raise UserError(
            f"column {victim.name}: some images have no label: put them into one folder a class, "
            "or label them by a surrogate's clusters (labels=clusters-10)"
        )
    return found


def training_set(
    row: Row, clean: Sequence[Item], victim: Victim, labels: Labels, ground: Ground
) -> ImageSet:
    """Decodes what a victim trains on: a row's files, treated, mixed and labelled.

    Of the row `absent` it is the clean share alone.

    Args:
      row: the files.
      clean: the same images' clean files, for shares below 100 % and leaks.
      victim: whose treatments, share and geometry count.
      labels: of the images.
      ground: of the run.
    """
    items, given = row.items, labels.train
    if victim.share < 100:
        seed = ground.config.seed + _SHARE_STREAM
        classes = np.maximum(ground.splits.train.labels, 0).tolist()
        chosen = folders.stratified(classes, victim.share / 100, seed)
        pairs = zip(row.items, clean, chosen, strict=True)
        items = [ours if protected else theirs for ours, theirs, protected in pairs]
        if row.name.base == "absent":
            clean = items = [item for item, gone in zip(clean, chosen, strict=True) if not gone]
            given = given[~chosen]
    if victim.purify:
        items = purify.purified(items, victim.purify, ground.folder / _PURIFIED)
    items = defences.defend_all(items, given, victim.treatments, clean)
    decoded = ground.decode(slug(row.label), items, victim.spec.short_side)
    return dataclasses.replace(decoded, labels=given, class_names=labels.class_names)


def needs_clean(victim: Victim) -> bool:
    """Whether a victim of a row's files sees some of their clean files as well."""
    leaks = (table.TREATMENTS[table.treatment(part)[0]].leak for part in victim.treatments)
    return victim.share < 100 or victim.probe == "clean" or any(leaks)


def probe_set(clean: Sequence[Item], victim: Victim, labels: Labels, ground: Ground) -> ImageSet:
    """Decodes the clean files, from which a victim learns the labels of what it has seen."""
    decoded = ground.decode("clean", clean, victim.spec.short_side)
    return dataclasses.replace(decoded, labels=labels.train, class_names=labels.class_names)


def test_set(victim: Victim, labels: Labels, ground: Ground) -> ImageSet:
    """Decodes the clean test images as a victim sees them; treated only if it asks for that."""
    items = list(ground.splits.test_items)
    if victim.treat == "both":
        if victim.purify:
            items = purify.purified(items, victim.purify, ground.folder / _PURIFIED)
        items = [defences.defend(item, victim.treatments) for item in items]
    decoded = ground.decode("test", items, victim.spec.short_side)
    return dataclasses.replace(decoded, labels=labels.test, class_names=labels.class_names)
