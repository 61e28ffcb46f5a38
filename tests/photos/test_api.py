import pydoc
import re
from typing import get_type_hints
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import odd_files
import pytest
from counted import Counted
from pictures import content

import ucjax
from ucjax.errors import UserError
from ucjax.files.manifest import read_manifest
from ucjax.photos.protect import load_surrogate, nearest_cluster
from ucjax.protections import protector as protectors

SETTINGS = {
    "protection": "uc",
    "data__short_side": 36,
    "data__crop": 32,
    "clusters__k": 3,
    "noise__epochs": 1,
    "noise__batch_size": 8,
}
VICTIM = {
    "victim__short_side": 36,
    "victim__crop": 32,
    "victim__width": 4,
    "victim__epochs": 2,
    "victim__batch_size": 8,
    "seeds": (0,),
    "availability": False,
    "victims": ("linear",),
}


def photos(count=12):
    return [np.asarray(odd_files.photo(40 + i, 50, seed=i)) for i in range(count)]


@pytest.fixture(scope="module")
def done():
    return ucjax.protect(photos(), **SETTINGS)


def test_arrays_in_arrays_out(done):
    clean = photos()
    assert [image.shape for image in done.images] == [image.shape for image in clean]
    found = ucjax.verify(done.images, clean)
    assert (found.files, found.failures, found.max_delta_255) == (12, (), 16)
    assert done.protector.noise.shape == (3, 32, 32, 3)
    assert done.clusters.shape == (12,)
    again = ucjax.protect(clean[3:5], protector=done.protector)
    for ours, before in zip(again.images, done.images[3:5], strict=True):
        np.testing.assert_array_equal(ours, before)
    np.testing.assert_array_equal(again.clusters, done.clusters[3:5])
    nearest = nearest_cluster(done.protector, load_surrogate(done.protector))
    assert nearest(clean[0][:32, :32]) in (0, 1, 2)


class Foreign:
    """An array of a library that NumPy knows nothing of but `__array__`."""

    def __init__(self, content):
        self.content = content

    def __array__(self, dtype=None, copy=None):
        return np.array(self.content, dtype)

    def __len__(self):
        return len(self.content)

    def __iter__(self):
        return map(Foreign, self.content)


@pytest.mark.parametrize("kind", [Foreign, jnp.asarray])
def test_arrays_are_of_any_library(done, kind):
    clean = photos()
    again = ucjax.protect([kind(x) for x in clean[3:5]], protector=done.protector)
    for ours, before in zip(again.images, done.images[3:5], strict=True):
        np.testing.assert_array_equal(ours, before)
    batch = np.stack([x[:, :40] for x in clean])
    assert ucjax.verify(kind(batch), batch).failures == ()
    assert ucjax.verify(kind(batch ^ 64), kind(batch)).max_delta_255 == 64


def test_what_can_be_called_is_listed_and_explained():
    names = {"compare", "evaluate", "load", "protect", "verify", "__version__"}
    assert names <= {*dir(ucjax)}
    said = pydoc.plain(pydoc.render_doc(ucjax))
    for name in names - {"__version__"}:
        assert f"    {name}(" in said
        assert get_type_hints(getattr(ucjax, name))["return"] is not type(None)


def test_results_are_shown_in_short_and_in_notebooks(done):
    assert repr(done) == (
        "<ProtectedImages: 12 with noise of <Protector: pixels of 3 clusters, eps 16/255, 32 of "
        f"36 px, {done.protector.surrogate_id}, seed 0>>"
    )
    cells = elements(done._repr_html_())
    assert cells["td"][0] == "12"
    assert (cells["img"], cells["table"]) == ([""], [""])
    assert repr(ucjax.verify(done.images, photos())) == (
        "<Verification: 12 files, 0 faults; largest change 16/255>"
    )


def test_what_was_written_is_loaded(done, tmp_path):
    for number, pixels in enumerate(photos()):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        odd_files.Image.fromarray(pixels).save(path)
    protectors.save(done.protector, tmp_path / "protector")
    assert repr(ucjax.load(tmp_path / "protector")) == repr(done.protector)
    written = ucjax.protect(tmp_path / "photos", tmp_path / "out", protector=tmp_path / "protector")
    with pytest.raises(UserError, match="no protector at"):
        ucjax.load(tmp_path / "out")
    protectors.save(done.protector, tmp_path / "out" / "protector")
    found = ucjax.load(str(tmp_path / "out"))
    assert repr(found) == repr(written)
    assert "protected 12, not 0, largest change 16/255, budget 16/255" in repr(found)
    assert elements(found._repr_html_())["td"][0] == "12"
    with pytest.raises(UserError, match="holds no table, no protector and no finished"):
        ucjax.load(tmp_path / "photos")


def elements(html):
    """The texts of a fragment by the elements they are in; fails if it is not well-formed."""
    found = {}
    html = re.sub(r"(<img [^>]*)>", r"\1/>", html)
    for element in ElementTree.fromstring(f"<div>{html}</div>").iter():
        found.setdefault(element.tag, []).append(element.text or "")
    return found


def test_folders_are_the_command_s(done, tmp_path):
    for number, pixels in enumerate(photos()):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.Image.fromarray(pixels).save(path)
    written = ucjax.protect(tmp_path / "photos", tmp_path / "out", protector=done.protector)
    assert written.written.count == 12
    assert ucjax.verify(str(tmp_path / "out"), str(tmp_path / "photos")).failures == ()
    before = content(tmp_path / "out")
    ucjax.protect(tmp_path / "photos", tmp_path / "out", protector=done.protector)
    assert content(tmp_path / "out") == before


def test_victims_are_trained_on_arrays(done, tmp_path):
    labels = [number % 2 for number in range(12)]
    other = ("protection", "noise__batch_size")
    small = {key: value for key, value in SETTINGS.items() if key not in other}
    found = ucjax.evaluate(
        photos(), done.images, labels=labels, workdir=tmp_path, **VICTIM, **small
    )
    table = found.table
    assert [line.label for line in table.lines] == [
        "clean",
        "random",
        "cluster_random",
        "protected",
    ]
    assert [line.max_delta_255 for line in table.lines] == [0, 16, 16, 16]
    assert len(table.entries) == 4
    column = table.columns[0]
    assert (column.classes, table.train_count, column.test_count) == (("0", "1"), 10, 2)
    assert found.verdict.shown is None  # one seed
    assert found.verdict.meaning in str(found)
    assert "guessing reaches 50.0" in str(found)
    assert repr(found) == "<Comparison: 4 rows × 1 columns; protection: cannot be told>"
    assert str(ucjax.load(tmp_path)) == str(found)
    shown = elements(found._repr_html_())
    assert shown["p"][1:3] == [found.verdict.result, found.verdict.meaning]
    assert shown["td"][0] == "clean"
    # Patterns follow clusters that were found in the pictures, and are not all of one.
    records = read_manifest(tmp_path / "protections" / "cluster_random-seed0" / "files")
    assert {record["cluster"] for record in records} == {0, 1, 2}
    assert len({(r["cluster"], r["noise_sha256"]) for r in records}) == 3


def test_comparisons_of_arrays_and_folders_share_their_cells(done, tmp_path, monkeypatch):
    labels = [number % 2 for number in range(12)]
    settings = {**VICTIM, "data__short_side": 36, "data__crop": 32}
    first = ucjax.compare(
        photos(), {"theirs": done.images}, labels=labels, workdir=tmp_path / "a", **settings
    )
    for name, pictures in (("clean", photos()), ("theirs", done.images)):
        for number, pixels in enumerate(pictures):
            path = tmp_path / name / f"{number % 2}" / f"{number:08}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            odd_files.Image.fromarray(pixels).save(path)
    counted = Counted(monkeypatch)
    second = ucjax.compare(
        tmp_path / "clean", {"theirs": tmp_path / "theirs"}, workdir=tmp_path / "b",
        reuse=[tmp_path / "a"], **settings,
    )  # fmt: skip
    assert counted.labels == []
    assert second.table.entries == first.table.entries
    assert second.verdict == first.verdict


def test_a_comparison_has_clean_victims_unasked(tmp_path):
    labels = [number % 2 for number in range(12)]
    settings = {**VICTIM, "data__short_side": 36, "data__crop": 32}
    found = ucjax.compare(photos(), protections=["random"], labels=labels, **settings)
    assert [entry.label for entry in found.table.entries] == ["clean", "random"]
    found = ucjax.compare(
        photos(), protections=["random", "clean_original"], labels=labels, **settings
    )
    assert [entry.label for entry in found.table.entries] == ["random", "clean_original"]


def test_folders_are_evaluated_as_by_the_command(done, tmp_path):
    for number, pixels in enumerate(photos()):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.Image.fromarray(pixels).save(path)
    ucjax.protect(tmp_path / "photos", tmp_path / "out", protector=done.protector)
    options = {key: value for key, value in VICTIM.items() if key != "victims"}
    found = ucjax.evaluate(
        tmp_path / "photos", tmp_path / "out", rows=("random",), columns=("linear",), **options
    )
    assert [line.label for line in found.table.lines] == ["clean", "random", "protected"]
    assert (tmp_path / "out" / "evaluation" / "table.json").is_file()


def test_a_broken_budget_is_found(done):
    clean = photos()
    failures = ucjax.verify(done.images, clean, epsilon_255=15).failures
    assert len(failures) == 12
    assert failures[0] == "image 0: changed by 16 levels, over 15"
    other = [*done.images[:-1], done.images[-1][1:]]
    assert "image 11: uint8 (49, 51, 3), its source uint8 (50, 51, 3)" in (
        ucjax.verify(other, clean).failures
    )


def test_mistakes(done):
    clean = photos(3)
    for call, message in [
        (lambda: ucjax.protect("photos"), "needs a folder for the copies"),
        (lambda: ucjax.protect([clean[0] / 255]), "give uint8"),
        (lambda: ucjax.protect(clean, noise__epocs=1), "did you mean 'epochs'"),
        (lambda: ucjax.protect(clean, clusters__k=7), "3 readable photos"),
        (lambda: ucjax.protect([clean[0][:1], clean[1]], protector=done.protector), "image 0 can"),
        (lambda: ucjax.verify(clean, clean[:2]), "3 protected images, 2 clean ones"),
        (lambda: ucjax.verify(clean, "photos"), "give two of a kind"),
        (lambda: ucjax.evaluate(clean, clean), "give two folders"),
        (
            lambda: ucjax.compare(clean, {"a": clean[:2]}, labels=[0, 1, 0]),
            "row 'a' holds 2 images",
        ),
        (lambda: ucjax.compare("photos", {"a": clean}), "as arrays too"),
        (lambda: ucjax.compare(clean, protections=["cleen"]), "did you mean clean"),
        (lambda: ucjax.evaluate(clean, clean, labels=[1]), "1 labels: give as many"),
    ]:
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ucjax.nothing
