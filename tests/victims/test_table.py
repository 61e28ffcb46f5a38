import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image
from test_training import SPEC, TEST, TRAIN

from ucjax import config, names
from ucjax.data.images import Item, build
from ucjax.errors import UserError
from ucjax.runtime.progress import MetricsFile
from ucjax.victims import defences, table, training
from ucjax.victims.contract import Labelling, Recipe


def resolved(text, **settings):
    shared = config.paper()
    shared.victim.update(settings)
    return table.resolve(names.parse(text, "column"), shared)


def test_a_plain_model_has_the_shared_settings():
    victim = resolved("resnet18", epochs=7, mean=(0.1, 0.2, 0.3))
    paper = config.paper().victim
    assert dataclasses.asdict(victim.spec) == {
        **paper, "model": "resnet18", "recipes": (), "epochs": 7, "mean": (0.1, 0.2, 0.3),
    }  # fmt: skip
    assert (victim.treatments, victim.treat, victim.labels, victim.share) == (
        (), "train", "given", 100,
    )  # fmt: skip


def test_victims_are_values():
    text = "resnet18+jpeg75+mixup:labels=random-5:share=60"
    one, other = resolved(text), resolved(text)
    assert one == other
    assert len({one, other, resolved("resnet18")}) == 2
    saved = json.loads(json.dumps(dataclasses.asdict(one)))
    assert saved["spec"]["recipes"] == ["mixup"]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("resnet18", "resnet18"),
        ("resnet18+mixup+jpeg075", "resnet18+jpeg75+mixup"),
        ("resnet18+cutout+grey+mixup+bits2", "resnet18+grey+bits2+cutout+mixup"),
        ("resnet18:labels=given:share=0100:treat=train", "resnet18"),
        ("resnet18:share=060:batch_size=032:labels=random-5",
         "resnet18:batch=32:labels=random-5:share=60"),
        ("resnet18:learning_rate=0.10:flip=False", "resnet18:flip=false:lr=0.1"),
        ("resnet18:mean=0.50,0,1", "resnet18:mean=0.5,0.0,1.0"),
        ("vit_tiny:px=064", "vit_tiny:px=64"),
    ],
)  # fmt: skip
def test_columns_have_one_spelling_which_reads_back(text, canonical):
    victim = resolved(text)
    assert str(victim.name) == canonical
    assert resolved(canonical) == victim


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("epochs=30", "epochs", 30),
        ("batch=64", "batch_size", 64),
        ("lr=1e-3", "learning_rate", 1e-3),
        ("final_learning_rate=0.01", "final_learning_rate", 0.01),
        ("width=16", "width", 16),
        ("wd=0", "weight_decay", 0.0),
        ("side=128", "short_side", 128),
        ("crop=112", "crop", 112),
        ("optimizer=adamw", "optimizer", "adamw"),
        ("flip=false", "flip", False),
        ("std=0.1,0.2,0.3", "std", (0.1, 0.2, 0.3)),
    ],
)
def test_a_key_sets_a_setting(setting, field, value):
    changed, plain = resolved(f"resnet18:{setting}"), resolved("resnet18")
    assert changed.spec == dataclasses.replace(plain.spec, **{field: value})


def test_px_is_the_published_geometry():
    for px, side in ((224, 256), (64, 73), (32, 37)):
        spec = resolved(f"resnet18:px={px}").spec
        assert (spec.crop, spec.short_side) == (px, side)


def test_the_column_precedes_the_model_and_the_model_the_shared_settings():
    vit = resolved("vit_tiny", learning_rate=3.0, momentum=0.7).spec
    assert (vit.optimizer, vit.learning_rate, vit.momentum) == ("adamw", 5e-4, 0.7)
    assert resolved("vit_tiny:lr=0.2:optimizer=sgd").spec == dataclasses.replace(
        resolved("vit_tiny").spec, learning_rate=0.2, optimizer="sgd"
    )


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(1, 0), (2, 1), (9, 1), (10, 2), (49, 9), (50, 10), (300, 10)]
)
def test_a_vit_s_warm_up_is_a_fifth_at_most(epochs, warmup):
    spec = resolved("vit_s16:width=2", epochs=epochs).spec
    assert (spec.warmup_epochs, spec.clip_norm) == (warmup, 1.0)
    training.check(spec, devices=1)
    assert resolved("vit_s16:warmup_epochs=3", epochs=epochs).spec.warmup_epochs == 3
    assert resolved("resnet18", epochs=epochs, warmup_epochs=5).spec.warmup_epochs == 5
    assert resolved("vit_s16:clip_norm=0").spec.clip_norm == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet81", "unknown model 'resnet81': did you mean resnet18"),
        ("resnet18+mixip", "unknown recipe or treatment 'mixip': did you mean mixup"),
        ("resnet18+gray", "'gray': did you mean grey"),
        ("resnet18+jpeg", "'jpeg' is written jpegN, with N from 1 to 100"),
        ("resnet18+grey+grey", "has grey twice"),
        ("resnet18+jpeg75+jpeg075", "has jpeg75 twice"),
        ("resnet18:epoch=3", "unknown key of column resnet18 'epoch': did you mean epochs"),
        ("resnet18:epochs=3.5", "epochs of column .* is '3.5': give a whole number"),
        ("resnet18:flip=maybe", "give true or false"),
        ("resnet18:mean=0.5", "give 3 numbers"),
        ("resnet18:batch=3:batch_size=3", "sets batch_size twice"),
        ("resnet18:crop=3:px=3", "sets crop twice"),
        ("resnet18:treat=all", "treat=all: choose train or both"),
        ("resnet18:share=0", "share=0: give a percentage, 1 to 100"),
        ("resnet18:share=101", "share=101"),
        ("resnet18:labels=random", "'' is no number of classes"),
        ("resnet18:labels=randm-3", "unknown label rule 'randm-3': did you mean random"),
        ("resnet18=8", "looks like MODEL"),
    ],
)
def test_mistakes_name_what_is_near(text, message):
    with pytest.raises(UserError, match=message):
        resolved(text)


def test_a_colon_in_a_path_of_labels(tmp_path):
    path = tmp_path / "a:b.json"
    path.write_text('{"x": "y"}')
    victim = resolved(f"resnet18:labels={path}".replace("a:b", "a%3Ab"))
    assert victim.labels == str(path)
    assert resolved(str(victim.name)) == victim


def test_two_losses_are_refused(restored):
    for name in ("one", "two"):
        table.RECIPES[name] = Recipe("", loss=lambda forward, images, targets, key: None)
    with pytest.raises(UserError, match="one and two both replace the loss"):
        resolved("resnet18+one+two")


def test_help_lists_every_name():
    lines = table.describe().splitlines()
    for kind in (table.MODELS, table.RECIPES, table.TREATMENTS, table.LABELS):
        for entry in kind.values():
            assert sum(line.endswith(f" {entry.sentence}") for line in lines) == 1


@pytest.fixture
def restored(monkeypatch):
    """Takes out of the tables what a test puts in; the dicts themselves stay."""
    kinds = (table.MODELS, table.RECIPES, table.TREATMENTS, table.LABELS)
    before = [dict(kind) for kind in kinds]
    yield
    for kind, entries in zip(kinds, before, strict=True):
        kind.clear()
        kind.update(entries)


THEIRS = '''
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import ImageOps

from ucjax.victims import defences, table
from ucjax.victims.contract import LabelRule, Labels, Model, Recipe, Treatment


class Linear(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.classes)(x.mean((1, 2)))


def initials(labelling):
    """Joins the classes that begin with the same letter."""
    letters = sorted({name[0] for name in labelling.train.class_names})
    new = np.array([letters.index(n[0]) for n in labelling.train.class_names], np.int32)
    return Labels(new[labelling.train.labels], new[labelling.test.labels], tuple(letters))


def dim(key, images, targets):
    return 0.9 * images, targets


table.MODELS["linear"] = Model(
    "mean colours", lambda classes, width: Linear(classes), {"learning_rate": 1.0}
)
table.RECIPES["dim"] = Recipe("darker", dim)
table.TREATMENTS["mirror"] = Treatment("left is right", lambda n: ImageOps.mirror)
table.LABELS["initials"] = LabelRule("by first letter", initials)
'''


def test_a_user_s_module_adds_one_of_each(restored, tmp_path, one_device):
    (tmp_path / "theirs.py").write_text(THEIRS)
    spec = importlib.util.spec_from_file_location("theirs", tmp_path / "theirs.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    ours = {"epochs": 8, "batch_size": 16, "short_side": 18, "crop": 16}
    victim = resolved("linear+dim+mirror:labels=initials", **ours)
    assert str(victim.name) == "linear+mirror+dim:labels=initials"
    assert victim.spec.learning_rate == 1.0
    renamed = [dataclasses.replace(x, class_names=("red", "rose", "blue")) for x in (TRAIN, TEST)]
    given = Labelling("", *renamed, 0, lambda name: (), one_device, "", config.paper().clusters)
    labels = table.label(victim.labels, given)
    assert labels.class_names == ("b", "r")
    sets = []
    for images, y in zip(renamed, (labels.train, labels.test), strict=True):
        pictures = [Image.fromarray(np.ascontiguousarray(images.image(i))) for i in range(len(y))]
        items = [
            defences.defend(Item(name, picture.copy, int(label), name), victim.treatments)
            for name, picture, label in zip(images.names, pictures, y, strict=True)
        ]
        treated = build(
            items, short_side=18, cache_dir=tmp_path, label="x", class_names=labels.class_names
        )
        np.testing.assert_array_equal(treated.image(3), images.image(3)[:, ::-1])
        sets.append(treated)
    result = training.train(
        *sets, victim.spec, seed=0, mesh=one_device, checkpoint=tmp_path / "v.safetensors",
        metrics=MetricsFile(tmp_path / "m.jsonl"),
    )  # fmt: skip
    assert result.peak >= 0.9
    bright = dataclasses.replace(victim.spec, recipes=())
    other = training.train(
        *sets, bright, seed=0, mesh=one_device, checkpoint=tmp_path / "w.safetensors",
        metrics=MetricsFile(tmp_path / "m.jsonl"),
    )  # fmt: skip
    assert other.curve != result.curve
    assert SPEC.recipes == ()
