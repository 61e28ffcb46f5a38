"""Strings name rows and columns: one parser, and a printer that is its inverse."""

import random

import pytest

from ucjax import names
from ucjax.errors import UserError
from ucjax.names import Name

TABLE = [
    ("uc", Name("uc")),
    (" uc ", Name("uc")),
    ("uc:k=20:eps=8", Name("uc", keys=(("eps", "8"), ("k", "20")))),
    ("folder=/a b/c=d", Name("folder", "/a b/c=d")),
    ("folder=a+b:label=x", Name("folder", "a+b", keys=(("label", "x"),))),
    ("folder=C%3A/photos", Name("folder", "C:/photos")),
    ("folder=C%3a/100%25", Name("folder", "C:/100%")),
    ("folder=%253A", Name("folder", "%3A")),
    (
        "resnet18+jpeg75+mixup:labels=random-5:share=60",
        Name("resnet18", "", ("jpeg75", "mixup"), (("labels", "random-5"), ("share", "60"))),
    ),
    ("vit:labels=a=b.csv", Name("vit", keys=(("labels", "a=b.csv"),))),
]


@pytest.mark.parametrize(("text", "name"), TABLE, ids=[text for text, _ in TABLE])
def test_a_name_is_read(text, name):
    assert names.parse(text, "row") == name
    assert names.parse(str(name), "row") == name


def draw(rng):
    """Returns a name of random words, with values that hold what separates them."""

    def word():
        head = rng.choice("abcXYZ_")
        return head + "".join(rng.choices("abz09_.-", k=rng.randrange(5)))

    def value():
        return "".join(rng.choices("ab/ =+:%3A25ü.,-", k=rng.randrange(1, 9)))

    keys = tuple(sorted({word(): value() for _ in range(rng.randrange(4))}.items()))
    if rng.random() < 0.5:
        return Name(word(), value(), (), keys)
    return Name(word(), "", tuple(word() for _ in range(rng.randrange(4))), keys)


def test_printing_and_parsing_are_inverse():
    rng = random.Random(0)
    drawn = [draw(rng) for _ in range(2000)]
    for name in drawn:
        name = stripped(name)
        assert names.parse(str(name), "row") == name
    assert len({str(stripped(name)) for name in drawn}) == len({stripped(n) for n in drawn})


def stripped(name):
    """Without white space at the end of the last value, which no command line keeps apart."""
    if name.keys:
        *others, (key, value) = name.keys
        return Name(name.base, name.value, name.parts, (*others, (key, f"{value}.")))
    return Name(name.base, f"{name.value}." if name.value else "", name.parts, ())


def test_a_key_more_keeps_the_order():
    assert str(names.parse("uc:k=3", "row").with_key("eps", "8")) == "uc:eps=8:k=3"
    assert str(names.parse("uc:k=3", "row").with_key("k", "8")) == "uc:k=8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"row '' has no name in ''.*NAME\[:key=value\]"),
        ("folder=", "has no name in 'folder='"),
        ("=x", "has no name in '=x'"),
        ("a b", "has no name in 'a b'"),
        ("uc++x", "has no name in 'uc[+][+]x'"),
        ("uc:k", "'k' is no key=value"),
        ("uc:k=", "'k=' is no key=value"),
        ("uc:=3", "'=3' is no key=value"),
        ("uc:k=1:k=2", "given twice"),
        ("folder=C:/photos", "a colon in a value is spelt %3A"),
    ],
)
def test_what_is_no_name_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        names.parse(text, "row")
    assert "\n" not in str(caught.value)


def test_the_near_ones_are_named_else_all():
    choices = ("clean", "cluster_random", "random", "uc")
    assert names.known("uc", choices, "protection") == "uc"
    with pytest.raises(UserError, match="unknown protection 'cleen': did you mean clean"):
        names.known("cleen", choices, "protection")
    with pytest.raises(UserError, match=r"'x': choose one of clean, cluster_random, random, uc$"):
        names.known("x", choices, "protection")


def test_values_have_the_type_of_the_default():
    assert names.typed("8", 16, "eps") == 8
    assert names.typed("1e-4", 0.1, "lr") == 1e-4
    assert names.typed("False", True, "flip") is False
    assert names.typed("kl", "l2", "distance") == "kl"
    for text, default, message in [
        ("8.5", 16, "eps is '8.5': give a whole number"),
        ("many", 0.1, "eps is 'many': give a number"),
        ("yes", True, "eps is 'yes': give true or false"),
    ]:
        with pytest.raises(UserError, match=message):
            names.typed(text, default, "eps")
