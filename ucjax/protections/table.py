"""All protections by name. To add one: a file with its `fit`, and a line in `PROTECTIONS`.

A user's own module adds to the same table; `config.modules` and `--module` import it.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from ucjax import config as settings
from ucjax import names
from ucjax.errors import UserError
from ucjax.names import Name
from ucjax.protections import (
    aap,
    aue,
    controls,
    deepconfuse,
    em,
    em_frozen,
    gratings,
    lsp,
    pil,
    tap,
)
from ucjax.protections.contract import Protection
from ucjax.protections.uc import fit as uc
from ucjax.runtime import workdir

# Settings that rows share, by the short names under which a row may set them for itself.
_NOISE = {key: f"noise.{key}" for key in uc.KEYS}
SHARED = {
    "k": "clusters.k",
    "eps": "noise.epsilon_255",
    "surrogate": "surrogate.name",
    "weights": "surrogate.path",
    **_NOISE,
}
_CLUSTERS = ("k", "surrogate", "weights")

PROTECTIONS: dict[str, Protection] = {
    "clean": Protection(
        "no noise, written and read as every other row", controls.clean, drawn=False
    ),
    "clean_original": Protection("the untouched files, in their own geometry", None, drawn=False),
    "absent": Protection(
        "what a column's share would protect is not there: the clean share alone",
        None,
        drawn=False,
    ),
    "random": Protection(
        "random signs of each image's own: the null", controls.per_image, ("eps", "grain")
    ),
    "cluster_random": Protection(
        "a fixed random pattern per cluster: what fixed patterns do by themselves",
        controls.per_cluster,
        (*_CLUSTERS, "eps", "grain"),
    ),
    "cluster_untrained": Protection(
        "the noise of uc as it is before training", uc.untrained, (*_CLUSTERS, "eps", *_NOISE)
    ),
    "uc": Protection(
        "Unlearnable Clusters: a learnt noise per cluster that drags it to a wrong centre",
        uc.fit,
        (*_CLUSTERS, "eps", *_NOISE),
    ),
    "gratings": Protection(
        "a plane wave per cluster, of colour alone: drawn, not trained",
        gratings.fit,
        (*_CLUSTERS, "eps"),
        gratings.OPTIONS,
    ),
    "lsp": Protection(
        "baseline: linearly separable patches of each image's class, no network (SynPer)",
        lsp.fit,
        (*_CLUSTERS, "eps"),
        lsp.OPTIONS,
    ),
    "pil": Protection(
        "baseline: noise that turns a linear model of pixels to each image's class (PIL)",
        pil.fit,
        (*_CLUSTERS, "eps"),
        pil.OPTIONS,
    ),
    "em": Protection(
        "baseline: noise that leaves a network nothing to learn, trained in turn with it (EMinN)",
        em.fit,
        (*_CLUSTERS, "eps"),
        em.OPTIONS,
    ),
    "emax": Protection(
        "baseline: noise that raises the loss of a network trained on clean images (EMaxN)",
        em.fit_max,
        (*_CLUSTERS, "eps"),
        em.OPTIONS_MAX,
    ),
    "em_frozen": Protection(
        "baseline: noise that assures (direction=up: misleads) the surrogate's own classifier",
        em_frozen.fit,
        ("surrogate", "weights", "eps"),
        em_frozen.OPTIONS,
    ),
    "tap": Protection(
        "baseline: adversarial examples of the next class, against its own ResNet-18 (AdvPoison)",
        tap.fit,
        (*_CLUSTERS, "eps"),
        tap.OPTIONS,
    ),
    "aue": Protection(
        "baseline: as em, through the augmentations of contrastive learning (AUE)",
        aue.fit,
        (*_CLUSTERS, "eps"),
        aue.OPTIONS,
    ),
    "aap": Protection(
        "baseline: as tap, through the augmentations of contrastive learning (AAP)",
        aap.fit,
        (*_CLUSTERS, "eps"),
        aap.OPTIONS,
    ),
    "deepconfuse": Protection(
        "baseline: a generator trained against 30 classifiers of 5 epochs, where the paper has "
        "1000 of 20 (DeepConfuse)",
        deepconfuse.fit,
        (*_CLUSTERS, "eps"),
        deepconfuse.OPTIONS,
    ),
    "folder": Protection(
        "files that anybody protected", None, options={"label": ""}, drawn=False, value="PATH"
    ),
}


def find(row: Name) -> Protection:
    """Returns a row's entry.

    Raises:
      UserError: an unknown name or key; names the near ones.
    """
    entry = PROTECTIONS[names.known(row.base, PROTECTIONS, "protection")]
    if bool(row.value) != bool(entry.value) or row.parts:
        form = f"{row.base}={entry.value}" if entry.value else row.base
        raise UserError(f"row {str(row)!r} looks like {form}[:key=value]…")
    for key, _ in row.keys:
        names.known(key, (*entry.shared, *entry.options), f"key of row {row.base}")
    return entry


def resolve(row: Name, shared: ConfigDict) -> tuple[ConfigDict, dict[str, Any]]:
    """Returns the shared settings with those that the row sets, and the row's own settings.

    Raises:
      UserError: as `find`, or a value of another type than the setting's.
    """
    entry, keys = find(row), dict(row.keys)
    config, before = shared.copy_and_resolve_references(), workdir.flat(shared.to_dict())

    def value(key: str, default: Any) -> Any:
        return names.typed(keys[key], default, f"{key} of row {row}") if key in keys else default

    changed = {SHARED[key]: value(key, before[SHARED[key]]) for key in entry.shared if key in keys}
    if "surrogate" in keys and "weights" not in keys:
        changed[SHARED["weights"]] = settings.SURROGATES.get(keys["surrogate"], "")
    settings.with_settings(config, changed)
    return config, {key: value(key, default) for key, default in entry.options.items()}
