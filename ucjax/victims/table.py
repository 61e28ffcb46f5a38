"""All victims by name. To add a model, recipe, treatment or label rule: a function, and a line.

A user's own module adds to the same tables; `config.modules` and `--module` import it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from ucjax import names
from ucjax.errors import UserError
from ucjax.names import Name
from ucjax.networks.resnet import ResNet18
from ucjax.runtime import parallel
from ucjax.victims import attacks, labels, purify, treatments
from ucjax.victims.contract import (
    Labelling,
    LabelRule,
    Labels,
    Model,
    Recipe,
    Treatment,
    Victim,
    VictimSpec,
)
from ucjax.victims.models import lite0, simclr
from ucjax.victims.models.efficientnet import EfficientNet, Style
from ucjax.victims.models.linear import Linear
from ucjax.victims.models.regnet import RegNet
from ucjax.victims.models.resnet50 import ResNet50
from ucjax.victims.models.simclr import Probed
from ucjax.victims.models.vgg import VGG6
from ucjax.victims.models.vit import ViT
from ucjax.victims.recipes import adversarial, crops, cutmix, cutout, gauss, mixup, ueraser

_VIT = {"optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 0.05, "clip_norm": 1.0}


def _vit(classes: int, width: int, *, heads: int, patch: int = 0) -> nn.Module:
    return ViT(classes, width, heads, patch=patch, axis_name=parallel.AXIS)


_PRETRAINED = {"learning_rate": 0.01, "epochs": 6, "mean": lite0.MEAN, "std": lite0.STD}


_PROBE = {"pretrain_epochs": 200, "epochs": 100, "learning_rate": 1.0, "weight_decay": 0.0}


def _lite0(classes: int, width: int, *, tune: bool) -> nn.Module:
    del width  # the weights have theirs
    return lite0.network(classes, axis_name=parallel.AXIS, tune=tune)


MODELS: dict[str, Model] = {
    "resnet18": Model(
        "ResNet-18 as torchvision's, the paper's victim",
        lambda classes, width: ResNet18(classes, width, axis_name=parallel.AXIS),
    ),
    "vgg6": Model(
        "six convolutions in three pairs with BatchNorm: a quick, shallow victim",
        lambda classes, width: VGG6(classes, width, axis_name=parallel.AXIS),
    ),
    "vit_tiny": Model(
        "ViT of 12 blocks with 3 heads, patches by the image's size; no BatchNorm",
        partial(_vit, heads=3),
        {**_VIT, "warmup_epochs": 1},
    ),
    "vit_s16": Model(
        "ViT-S/16: 12 blocks with 6 heads, a warm-up of 10 epochs (of fewer than 50, a fifth)",
        partial(_vit, heads=6, patch=16),
        {**_VIT, "warmup_epochs": 10},
    ),
    "vit_b16": Model(
        "ViT-B/16 as torchvision's: 12 blocks with 12 heads, the same warm-up",
        partial(_vit, heads=12, patch=16),
        {**_VIT, "warmup_epochs": 10},
    ),
    "lite0": Model(
        "EfficientNet-Lite0 fine-tuned from the ImageNet weights that come with ucjax",
        partial(_lite0, tune=True), _PRETRAINED, start=lite0.start,
    ),
    "lite0_probe": Model(
        "a linear probe: a new head on the same weights, frozen",
        partial(_lite0, tune=False), _PRETRAINED, start=lite0.start, trainable=lite0.in_head,
    ),
    "resnet50": Model(
        "ResNet-50 as torchvision's",
        lambda classes, width: ResNet50(classes, width, axis_name=parallel.AXIS),
    ),
    "regnetx_16gf": Model(
        "RegNetX-1.6GF as torchvision's; config.victim.width does not change it",
        lambda classes, width: RegNet(classes, axis_name=parallel.AXIS),
    ),
    "efficientnet_b1": Model(
        "EfficientNet-B1 as torchvision's, from scratch; config.victim.width does not change it",
        lambda classes, width: EfficientNet(classes, style=Style(axis_name=parallel.AXIS)),
    ),
    "simclr_rn18": Model(
        "ResNet-18 trained by SimCLR on the files without labels, then a linear probe",
        lambda classes, width: Probed(ResNet18(0, width, axis_name=parallel.AXIS), classes),
        _PROBE, trainable=simclr.in_head, contrast=True,
    ),
    "simclr_rn50": Model(
        "ResNet-50 trained by SimCLR on the files without labels, then a linear probe",
        lambda classes, width: Probed(ResNet50(0, width, axis_name=parallel.AXIS), classes),
        _PROBE, trainable=simclr.in_head, contrast=True,
    ),
    "linear": Model(
        "a linear classifier of pixels", lambda classes, width: Linear(classes),
        {"learning_rate": 1.0, "weight_decay": 0.0},
    ),
}  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "mixup": Recipe("images and labels mixed in pairs, lambda ~ Beta(1, 1)", mixup.mix),
    "mixup_paper": Recipe(
        "a tenth of another image laid over each, labels kept", mixup.mix_as_in_the_paper
    ),
    "cutout": Recipe("a square of half the side blackened in each image", cutout.cut),
    "cutout_paper": Recipe(
        "a square of 10 % of the area blackened, the same in a batch", cutout.cut_as_in_the_paper
    ),
    "cutmix": Recipe("a rectangle of another image in each, labels mixed alike", cutmix.mix),
    "cutmix_paper": Recipe(
        "a square of 10 % of the area of another image, labels kept", cutmix.mix_as_in_the_paper
    ),
    "rrc": Recipe("random resized crops of a quarter to all of the area", crops.crop),
    "gauss": Recipe("Gaussian smoothing with 3 x 3 pixels, sigma 1", gauss.smooth),
    "gauss_paper": Recipe(
        "Gaussian smoothing with 7 x 7 pixels, sigma 3", gauss.smooth_as_in_the_paper
    ),
    "ueraser": Recipe("fractals, JPEG and one strong change of each image, once", ueraser.change),
    "ueraser_max": Recipe("the worst of five such changes of each image", loss=ueraser.worst),
    **{
        f"at{eps}": Recipe(
            f"adversarial training within {eps}/255: ten steps", loss=adversarial.training(eps)
        )
        for eps in (4, 8, 16)
    },
}

TREATMENTS: dict[str, Treatment] = {
    "jpeg": Treatment("JPEG of quality N", treatments.jpeg, range(1, 101)),
    "grey": Treatment("luma in place of colour", treatments.grey),
    "bits": Treatment("the top N bits of every channel", treatments.bits, range(1, 9)),
    "lowpass": Treatment("reduced to 1/N and enlarged again", treatments.lowpass, range(2, 33)),
    "median": Treatment("median of N x N pixels (N odd)", treatments.median, range(3, 16, 2)),
    "blur": Treatment("Gaussian smoothing, sigma N pixels", treatments.blur, range(1, 17)),
    "resize": Treatment(
        "resized to a short side of N pixels and back", treatments.resize, range(8, 4097)
    ),
    "notch": Treatment(
        "peaks of the mean spectra of N groups removed", None, range(2, 257), attacks.notch
    ),
    "clustermean": Treatment(
        "what N groups have in common subtracted", None, range(2, 257), attacks.cluster_mean
    ),
    "pair_leak": Treatment(
        "the noise of N leaked pairs of clean and protected pictures subtracted",
        argument=range(1, 1025), leak=attacks.pair_leak,
    ),
    "ortho": Treatment(
        "directions that tell the classes apart, at N pixels a side, projected out",
        None,
        range(8, 513),
        attacks.orthogonal,
    ),
}  # fmt: skip

LABELS: dict[str, LabelRule] = {
    "given": LabelRule("the images' own", labels.given),
    "random": LabelRule(
        "classes joined to N groups at random", labels.random, labels.check_random, "random-N"
    ),
    "clusters": LabelRule(
        "N clusters in the features of a surrogate other than the noise's",
        labels.clusters, labels.check_clusters, "clusters-N[-SURROGATE]",
    ),
    "kmeans": LabelRule(
        "classes joined to N groups by their mean features in another surrogate",
        labels.grouped, labels.check_kmeans, "kmeans-N[-SURROGATE]",
    ),
    "fine": LabelRule(
        "each class split in two in the features of another surrogate",
        labels.fine, labels.check_fine, "fine[-SURROGATE]",
    ),
    "species": LabelRule("the breeds of Oxford-IIIT Pet joined to cats and dogs", labels.species),
    "mapping": LabelRule(
        "a file that maps names of classes or images to new classes",
        labels.mapping, labels.check_mapping, "PATH.json|PATH.csv",
    ),
}  # fmt: skip

# Short names of settings in `config.victim`, and the columns' own keys with their defaults.
SHORT = {
    "batch": "batch_size",
    "lr": "learning_rate",
    "wd": "weight_decay",
    "side": "short_side",
}
_OWN = {"labels": "given", "share": 100, "treat": "train", "px": 0, "probe": "files", "purify": ""}


def resolve(column: Name, shared: ConfigDict) -> Victim:
    """Returns the victim that a column names.

    Settings are those of `shared.victim`, but for the model's own (`Model.defaults`) and, above
    both, the column's.

    Args:
      column: as `names.parse` read it.
      shared: the experiment's settings.

    Raises:
      UserError: an unknown name or key (names the near ones), or a value that does not fit.
    """
    names.known(column.base, MODELS, "model")
    recipes, treated = _parts(column)
    own, settings, keys = _keys(column, shared.victim)
    if own["treat"] not in ("train", "both"):
        raise UserError(f"column {column}: treat={own['treat']}: choose train or both")
    for part in treated:
        if own["treat"] == "both" and TREATMENTS[treatment(part)[0]].make is None:
            raise UserError(
                f"column {column}: {part} is learned from the training pictures and changes no "
                "others: leave out treat=both"
            )
    if not 1 <= own["share"] <= 100:
        raise UserError(f"column {column}: share={own['share']}: give a percentage, 1 to 100")
    find_labels(own["labels"])
    if own["probe"] not in ("files", "clean") or (
        own["probe"] == "clean" and not MODELS[column.base].contrast
    ):
        raise UserError(
            f"column {column}: probe={own['probe']}: choose files or, for a model that is first "
            "trained without labels, clean"
        )
    if own["purify"]:
        purify.words(own["purify"])
    defaults = MODELS[column.base].defaults
    values = {**shared.victim, **defaults, **settings}
    if "warmup_epochs" in defaults and "warmup_epochs" not in settings:
        # The model's own is for its usual length.
        epochs = values["epochs"]
        shortest = min(max(epochs // 5, 1), epochs - 1)
        values["warmup_epochs"] = min(values["warmup_epochs"], max(shortest, 0))
    name = Name(column.base, "", (*treated, *recipes), tuple(sorted(keys.items())))
    spec = VictimSpec(model=column.base, recipes=recipes, **values)
    own = {key: own[key] for key in ("treat", "labels", "share", "probe", "purify")}
    return Victim(name, spec, treated, **own)


def _parts(column: Name) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns a column's recipes and its treatments in their canonical spelling."""
    if column.value:
        raise UserError(f"column {str(column)!r} looks like MODEL[+RECIPE]…[:key=value]…")
    recipes, treated = [], []
    for part in column.parts:
        if part in RECIPES:
            recipes.append(part)
        else:
            word, number = treatment(part)
            treated.append(word if number is None else f"{word}{number}")
    for part in {*recipes, *treated}:
        if (recipes + treated).count(part) > 1:
            raise UserError(f"column {str(column)!r} has {part} twice")
    losses = [recipe for recipe in recipes if RECIPES[recipe].loss]
    if len(losses) > 1:
        raise UserError(
            f"column {str(column)!r}: {' and '.join(losses)} both replace the loss, so one victim "
            "cannot have both"
        )
    return tuple(recipes), tuple(treated)


def treatment(part: str) -> tuple[str, int | None]:
    """Splits "jpeg75" into a key of `TREATMENTS` and its number.

    Raises:
      UserError: it is no such key, or has a number that it cannot have.
    """
    word, digits = part, ""
    if part not in TREATMENTS and (match := re.fullmatch(r"(.*?)(\d+)", part)):
        word, digits = match.groups()
    forms = {f"{name}N" if t.argument else name: name for name, t in TREATMENTS.items()}
    if word not in TREATMENTS:
        names.known(word, {*RECIPES, *TREATMENTS}, "recipe or treatment")
    allowed = TREATMENTS[word].argument
    form = next(form for form, name in forms.items() if name == word)
    if allowed is None and digits:
        raise UserError(f"treatment {part!r}: {form} takes no number")
    if allowed is not None and (not digits or int(digits) not in allowed):
        steps = f" in steps of {allowed.step}" if allowed.step > 1 else ""
        span = f"{allowed[0]} to {allowed[-1]}{steps}"
        raise UserError(f"treatment {part!r} is written {form}, with N from {span}")
    return word, int(digits) if digits else None


def _keys(
    column: Name, victim: ConfigDict
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Returns a column's own keys, with defaults, the settings it changes, and what it is to say.

    The last has the short names and one spelling of each value, without what is the default.
    """
    own, settings, canonical = dict(_OWN), dict[str, Any](), dict[str, str]()
    short = {setting: name for name, setting in SHORT.items()}
    for key, text in column.keys:
        names.known(key, (*_OWN, *SHORT, *victim), f"key of column {column.base}")
        setting, what = SHORT.get(key, key), f"{key} of column {column}"
        value = _value(text, _OWN[key] if key in _OWN else victim[setting], what)
        if key not in _OWN or value != _OWN[key]:
            canonical[short.get(key, key)] = _spelled(value)
        if key in _OWN:
            own[key] = value
        # Files are enlarged by a seventh and cropped, as the published victims do with 224 px.
        sides = {"crop": value, "short_side": round(value * 8 / 7)} if key == "px" else {}
        found = {setting: value} if key not in _OWN else sides
        if twice := found.keys() & settings.keys():
            raise UserError(f"column {column} sets {twice.pop()} twice")
        settings |= found
    return own, settings, canonical


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_spelled, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(text: str, default: Any, what: str) -> Any:
    """As `names.typed`, and "0.5,0.5,0.5" for tuples of numbers."""
    if not isinstance(default, tuple):
        return names.typed(text, default, what)
    values = tuple(names.typed(number, 0.0, what) for number in text.split(","))
    if len(values) != len(default):
        raise UserError(f"{what} is {text!r}: give {len(default)} numbers, as in 0.5,0.5,0.5")
    return values


def find_labels(text: str) -> tuple[LabelRule, str]:
    """Returns a column's label rule and its argument.

    Raises:
      UserError: an unknown rule, or an argument that it refuses.
    """
    fitting = [rule for rule in LABELS if text == rule or text.startswith(f"{rule}-")]
    if Path(text).suffix in labels.MAPPINGS:
        name, argument = "mapping", text
    else:
        name = max(fitting, key=len) if fitting else names.known(text, LABELS, "label rule")
        argument = text[len(name) + 1 :]
    rule = LABELS[name]
    if rule.check is not None:
        rule.check(argument)
    elif argument:
        raise UserError(f"labels={text}: {name} takes no argument")
    return rule, argument


def label(text: str, given: Labelling) -> Labels:
    """Returns the labels that a rule gives to `given`, whose `argument` it replaces.

    Raises:
      UserError: as `find_labels`, or the rule cannot be applied to these images.
    """
    rule, argument = find_labels(text)
    return rule.apply(dataclasses.replace(given, argument=argument))


def describe() -> str:
    """Returns all names with their sentences, for the terminal."""
    kinds: dict[str, Mapping[str, str]] = {
        "models": {name: entry.sentence for name, entry in MODELS.items()},
        "recipes (+NAME)": {name: entry.sentence for name, entry in RECIPES.items()},
        "treatments (+NAME)": {
            f"{name}N" if t.argument else name: t.sentence for name, t in TREATMENTS.items()
        },
        "label rules (:labels=NAME)": {r.form or name: r.sentence for name, r in LABELS.items()},
        "keys (:key=value)": {
            "share": "percent of the training files that are protected, the others are clean",
            "treat": "train or both: which pictures the treatments change",
            "probe": "files or clean: what simclr_rn18 and simclr_rn50 learn labels from",
            "purify": "a command, before the treatments: it reads the folder {in}, writes {out}",
            "px": "side of the crop in pixels; files are resized to 8/7 of it",
            **{short: f"config.victim.{setting}" for short, setting in SHORT.items()},
            "…": "any other key of config.victim",
        },
    }
    lines = []
    for kind, entries in kinds.items():
        lines += [f"{kind}:", *(f"  {name:<24}{text}" for name, text in entries.items())]
    return "\n".join(lines)
