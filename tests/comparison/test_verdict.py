"""The words follow the numbers, and claim no more than the controls support."""

import pytest
import tables
from tables import CLEAN, CLUSTER_RANDOM, RANDOM, UC, entry, line, table

from ucjax.comparison import verdict
from ucjax.comparison.availability import Availability


def test_protection_is_claimed_only_beyond_every_control():
    found = verdict.judge(table())
    assert found.shown is True
    assert "reach 31.3 ± 1.5 % on 1000 clean test images" in found.result
    assert "86.0 ± 1.0 % for the clean files" in found.result
    assert "over 3 seeds; guessing reaches 10.0 %" in found.result
    assert "30.7 points higher" in found.meaning
    assert "the nearest, a fixed random pattern per cluster," in found.meaning
    assert "Not measured" not in found.meaning


@pytest.mark.parametrize(
    ("entries", "shown", "words"),
    [
        ((CLEAN, RANDOM, entry("uc", 0.84, 0.86, 0.88)), False, "not shown: not below the clean"),
        ((CLEAN, entry("uc", 0.95, 0.96)), False, "not shown"),
        ((CLEAN, CLUSTER_RANDOM, entry("uc", 0.60, 0.61)), False, "a fixed random pattern per"),
        (
            (CLEAN, entry("random", 0.64, 0.63), CLUSTER_RANDOM, entry("uc", 0.62, 0.63)), False,
            "random noise per image and a fixed random pattern per cluster",
        ),
        ((CLEAN, entry("absent", 0.30, 0.32), UC), False, "but not against the clean share alone"),
        ((CLEAN, entry("cluster_untrained", 0.3, 0.3), UC), False, "the same noise before"),
        ((CLEAN, RANDOM, UC), True, "Not measured in this run: a fixed random pattern per cluster"),
        ((CLEAN, UC), True, "random noise per image and a fixed random pattern per cluster."),
        ((CLEAN, entry("uc", 0.3, 0.3, peaks=(0.86, 0.87))), False, "keeps the best epoch"),
        ((entry("clean_original", 0.85, 0.86), UC), True, "below the control"),
        ((entry("clean", 0.8, 0.81, train=0.7), UC), True, "know 70 % of what they were trained"),
    ],
)  # fmt: skip
def test_shown_or_not(entries, shown, words):
    found = verdict.judge(table(*entries))
    assert found.shown is shown
    assert words in found.meaning
    assert ("Protection is shown" in found.meaning) is shown


@pytest.mark.parametrize(
    ("entries", "changes", "words"),
    [
        ((CLEAN, entry("uc", 0.3)), {}, "one seed shows no spread"),
        ((entry("clean", 0.86), UC), {}, "one seed shows no spread"),
        ((CLEAN, entry("random", 0.8), UC), {}, "one seed shows no spread"),
        ((RANDOM, UC), {}, "no victim of the clean files was trained"),
        ((entry("clean", 0.85, 0.86, train=0.3), UC), {}, "the victims are untrained"),
        ((entry("clean", 0.13, 0.14), entry("uc", 0.01, 0.02)), {}, "near guessing"),
        ((entry("clean", 0.85, 0.86), UC), {"chance": 0.82}, "near guessing"),
        ((CLEAN, UC), {"test_count": 40}, "40 test images leave the clean accuracy between"),
    ],
)
def test_it_cannot_be_told(entries, changes, words):
    found = verdict.judge(table(*entries, **changes))
    assert found.shown is None
    assert found.meaning.startswith("It cannot be told whether protection holds: ")
    assert words in found.meaning
    assert "shown" not in found.meaning.replace("one seed shows", "")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((CLEAN, RANDOM, CLUSTER_RANDOM, UC), "before you count on more than resnet18"),
        ((CLEAN, RANDOM, entry("uc", 0.84, 0.86, 0.88)), "do not count on these files"),
        ((CLEAN, entry("uc", 0.3)), "train three seeds (--seeds 3)"),
        ((entry("clean", 0.85, 0.86, train=0.3), UC), "mend what is named above"),
        ((CLEAN, RANDOM), "name a protection"),
        ((entry("clean"), entry("uc")), "train victims"),
    ],
)
def test_every_verdict_ends_with_what_to_do_in_one_sentence(entries, words):
    found = table(*entries)
    said = verdict.advice(verdict.judge(found), found)
    assert words in said
    assert said.startswith("Do next: ")
    assert said.count(". ") == 0


def test_the_row_whose_victims_score_least_is_spoken_of():
    found = table(CLEAN, RANDOM, UC, entry("em", 0.2, 0.3, 0.2), entry("uc", 0.1, column="vgg6"))
    assert verdict.lowest(found, "resnet18").label == "em"
    assert verdict.lowest(found, "resnet18", "uc").label == "uc"
    assert verdict.lowest(found, "vgg6").label == "uc"
    assert verdict.lowest(table(CLEAN, RANDOM), "resnet18") is None
    assert " the files of em reach " in verdict.judge(found).result


def test_without_victims_or_protections_nothing_is_said():
    found = verdict.judge(table(entry("clean"), entry("uc")))
    unseen = "How early the noise is seen was not measured"
    assert (found.shown, found.result) == (None, f"{unseen}: 12 images are too few, it takes 50.")
    assert found.meaning.startswith("No victim was trained, since the images have no labels")
    enough = table(entry("clean"), entry("uc"), train_count=50)
    assert verdict.judge(enough).result == f"{unseen}."
    seen = Availability((0.2, 0.755, 0.9), (0.2, 0.3, 0.35), 0.25)
    lines = [line(label, availability=seen) for label in ("clean", "random", "uc")]
    found = verdict.judge(table(*(entry(x.label) for x in lines), rows=lines))
    assert found.result == (
        "After 100 steps a small network tells the cluster of 76 % of the unseen files of uc, of "
        "30 % of the clean ones (guessing reaches 25 %)."
    )
    found = verdict.judge(table(CLEAN, RANDOM))
    assert (found.shown, found.result) == (None, "No protection was measured.")


def test_the_row_and_column_are_the_first_column_s_strongest_unless_named():
    other = entry("uc:eps=8", 0.60, 0.61, 0.62)
    weak = [entry(x.label, *(0.8, 0.81), column="vit") for x in (CLEAN, UC)]
    found = table(CLEAN, RANDOM, other, UC, *weak)
    assert "the files of uc reach 31.3" in verdict.judge(found).result
    assert "the files of uc:eps=8 reach 61.0" in verdict.judge(found, "uc:eps=8").result
    assert verdict.judge(found, "uc", "vit").shown is False
    assert "(vit)" in verdict.judge(found, "uc", "vit").result


def test_controls_are_known_by_their_rows_and_not_by_their_labels():
    rows = (line("clean"), line("clean_x", row="folder=/x:label=clean_x"), line("uc"))
    found = table(CLEAN, entry("clean_x", 0.4, 0.41), UC, rows=rows)
    assert verdict.protected(found) == ["clean_x", "uc"]
    rows = (line("clean"), line("random:eps=8"), line("uc"))
    found = verdict.judge(table(CLEAN, entry("random:eps=8", 0.2, 0.2), UC, rows=rows))
    assert found.shown is False
    assert "random noise per image" in found.meaning
    rows = (line("clean"), line("protected", row="folder=/out:label=protected"))
    found = verdict.judge(table(CLEAN, entry("protected", 0.2, 0.2), rows=rows))
    assert "trained on the protected files reach" in found.result


def test_spread_needs_separate_seeds_and_a_wide_gap():
    high = entry("clean", 0.80, 0.82)
    assert verdict.beyond_spread(entry("uc", 0.70, 0.72), high, "last")
    assert not verdict.beyond_spread(entry("uc", 0.60, 0.81), high, "last")  # overlap
    assert not verdict.beyond_spread(entry("uc", 0.40, 0.78), high, "last")  # noisy
    assert not verdict.beyond_spread(high, high, "last")


def test_one_seed_has_no_spread_to_show():
    assert verdict.percent(entry("uc", 0.3)) == "30.0"
    assert verdict.percent(tables.CLEAN) == "86.0 ± 1.0"
    assert verdict.percent(entry("uc", 0.3, 0.3, peaks=(0.4, 0.6)), "peak") == "50.0 ± 14.1"
