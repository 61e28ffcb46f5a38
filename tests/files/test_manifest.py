import unicodedata

import numpy as np
import pytest

from ucjax.errors import UserError
from ucjax.files.manifest import output_names


def test_outputs_keep_stems_and_never_collide():
    names = ["x/a.jpg", "x/a.png", "x/A.gif", "x/a_jpg.webp", "y/a.jpg", "b.c.tif", "no", "no.bmp"]
    chosen = output_names(names)
    assert chosen == output_names(names[::-1])
    assert chosen["x/a.png"] == "x/a.png"
    assert chosen["y/a.jpg"] == "y/a.png"
    assert chosen["b.c.tif"] == "b.c.png"
    assert (chosen["no"], chosen["no.bmp"]) == ("no.png", "no_bmp.png")
    assert len({output.casefold() for output in chosen.values()}) == len(names)
    assert all(output.endswith(".png") for output in chosen.values())


def test_names_of_any_stems_and_extensions_stay_distinct():
    rng = np.random.default_rng(0)
    for _ in range(200):
        stems = rng.choice(["a", "A", "a_jpg", "a_png", "a_jpg_2"], size=12)
        extensions = rng.choice([".jpg", ".png", ".JPG", ".jpg.png", ""], size=12)
        names = sorted({f"{stem}{ext}" for stem, ext in zip(stems, extensions, strict=True)})
        chosen = output_names(names)
        assert chosen == output_names(list(rng.permutation(names)))
        assert len({output.casefold() for output in chosen.values()}) == len(names)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../a.jpg", "leads out of its folder"),
        ("a/../../b.jpg", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("/etc/a.jpg", "is no relative path"),
        ("", "is no name"),
        ("C:/a.jpg", "begins with a drive letter"),
        ("a\0.jpg", "holds a NUL"),
        ("\ud800.jpg", "is no file name"),
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(name, reason):
    with pytest.raises(UserError, match=reason):
        output_names(["fine.jpg", name])


def test_outputs_differ_in_more_than_the_form_of_a_letter():
    chosen = output_names(["caf\u00e9.jpg", "cafe\u0301.jpg"])
    assert len({unicodedata.normalize("NFC", output) for output in chosen.values()}) == 2
