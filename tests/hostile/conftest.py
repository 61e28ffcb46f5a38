import shutil

import pytest
import ready


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """A protector, and photos with their copies; not to be changed."""
    folder = tmp_path_factory.mktemp("hostile")
    made = ready.protector(folder / "protector")
    photos = ready.photos(folder / "photos")
    code, text = ready.ucjax("protect", photos, folder / "out", "--protector", made)
    assert code == 0, text
    return folder


@pytest.fixture
def place(given, tmp_path):
    """The same, to be damaged: `protector`, `photos` and `out`."""
    shutil.copytree(given, tmp_path / "place")
    # The mark knows the photos by their place.
    folder = tmp_path / "place"
    code, text = ready.protect(folder)
    assert code == 0, text
    return folder
