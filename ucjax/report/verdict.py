"""What the numbers say in words, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ucjax.report.summary import Summary, Victims, mean_std
from ucjax.report.tables import accuracy

# The controls in the order in which they are named; each takes more of the protection away.
CONTROLS = {
    "clean": "the clean files",
    "random": "random noise per image",
    "cluster_random": "a fixed random pattern per cluster",
}
RULE = (
    "“Beyond the spread” means: every victim of the protected files scores below every victim of "
    "the control, and the means differ by more than twice the standard deviation of such a "
    "difference; in the last epoch and at the peak."
)

Measure = Literal["last", "peak"]


class Verdict(NamedTuple):
    """What was measured, what it means, and whether protection is shown (None: cannot tell)."""

    result: str
    meaning: str
    shown: bool | None


def judge(summary: Summary) -> Verdict:
    """States the result of a run without claiming more than its controls support."""
    trained = {arm.name: arm for arm in summary.arms if arm.victims}
    if "protected" not in trained:
        return _without_victims(summary)
    controls = [trained[name] for name in CONTROLS if name in trained]
    return compare(trained["protected"], controls, classes=len(summary.class_names))


def compare(protected: Victims, controls: Sequence[Victims], *, classes: int) -> Verdict:
    """States the result of the victims of two or more arms, controls in the order of `CONTROLS`."""
    return Verdict(_result(protected, controls, classes), *_meaning(protected, controls))


def beyond_spread(arm: Victims, control: Victims, measure: Measure) -> bool:
    """Returns whether the victims of `arm` are below those of `control`, as `RULE` states."""
    ours, theirs = _values(arm, measure), _values(control, measure)
    (mean, std), (control_mean, control_std) = mean_std(ours), mean_std(theirs)
    separate = max(ours) < min(theirs)
    return separate and control_mean - mean > 2 * math.hypot(std, control_std)


def _without_victims(summary: Summary) -> Verdict:
    shares = [
        f"{100 * arm.moved:.0f} % of the {arm.name.replace('_', ' ')} files"
        for arm in sorted(summary.arms, key=lambda arm: arm.name != "protected")
    ]
    return Verdict(
        f"In the surrogate's eyes, {_listed(shares)} now lie nearest to the wrong centre that "
        "the learnt noise aims at.",
        "No victim was trained on the protected files, because the images have no labels, none "
        "are kept for testing, or none was asked for. How well the protection holds is therefore "
        "not measured here.",
        None,
    )


def _result(protected: Victims, controls: Sequence[Victims], classes: int) -> str:
    against = [f"{accuracy(arm, 'last')} % for {CONTROLS[arm.name]}" for arm in controls]
    seeds = sorted({len(arm.victims) for arm in (protected, *controls)})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    spread = f"mean ± standard deviation over {count} seeds" if seeds[-1] > 1 else "one seed"
    guessing = f"; guessing reaches {100 / max(classes, 1):.1f} %"
    return (
        f"Victims trained on the protected files reach {accuracy(protected, 'last')} % on clean "
        f"test images{', against ' if against else ''}{_listed(against)} (last epoch, {spread}"
        f"{guessing if classes > 1 else ''})."
    )


def _meaning(protected: Victims, controls: Sequence[Victims]) -> tuple[str, bool | None]:
    names = [arm.name for arm in controls]
    if "clean" not in names:
        return "No victim of the clean files was trained: there is nothing to compare with.", None
    if min(len(arm.victims) for arm in (protected, *controls)) < 2:
        return (
            "One seed shows no spread, and seeds move such results by several points: this run "
            "alone proves nothing.",
            None,
        )
    missing = [phrase for name, phrase in CONTROLS.items() if name not in names]
    gap = f" Not measured in this run: {_listed(missing)}." if missing else ""
    at_last = [arm for arm in controls if not beyond_spread(protected, arm, "last")]
    at_peak = [arm for arm in controls if not beyond_spread(protected, arm, "peak")]
    failed = [arm for arm in controls if arm in at_last or arm in at_peak]
    unproven = _listed([CONTROLS[arm.name] for arm in failed])
    if not failed:
        nearest = min(controls, key=lambda arm: arm.last()[0])
        points = 100 * (nearest.last()[0] - protected.last()[0])
        text = (
            f"Protection is shown: below {'every' if len(controls) > 1 else 'the'} control beyond "
            f"the spread between seeds; the nearest, {CONTROLS[nearest.name]}, is "
            f"{points:.1f} points higher."
        )
        return text + gap, True
    if failed[0].name == "clean":
        early = (
            " Only the last epoch is lower: whoever keeps the best epoch loses little."
            if "clean" not in [arm.name for arm in at_last]
            else ""
        )
        text = "Protection is not shown: not below the clean files beyond the spread between seeds."
        return text + early + gap, False
    text = (
        "Victims lose accuracy against the clean files beyond the spread between seeds, but not "
        f"against {unproven}: the learnt noise is not shown to add anything to that."
    )
    return text + gap, False


def _values(arm: Victims, measure: Measure) -> list[float]:
    return [getattr(result, measure) for result in arm.victims.values()]


def _listed(phrases: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(phrases[:-1]), *phrases[-1:]]))
