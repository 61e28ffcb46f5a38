"""Pages of a small OUT with hostile names."""

import shutil

import odd_files
import pytest
from made_pages import NAMES, publish

from ucjax.photos import preview
from ucjax.report import owner, previews


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """`photos` (one of them damaged), `out`, `preview.html`; not to be changed."""
    place = tmp_path_factory.mktemp("pages")
    photos, out = place / "photos", place / "out"
    for number, name in enumerate(NAMES):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(90 + number, 70, seed=number).save(photos / name)
    (photos / NAMES[1]).write_bytes(b"no picture")
    publish(photos, out)
    owner.write(photos, out)
    previews.write(preview.preview(photos, count=4), photos, place / "preview.html")
    return place


@pytest.fixture
def place(given, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(given, tmp_path / "place")
