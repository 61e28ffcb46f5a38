"""What a table says in words, and what it does not."""

from __future__ import annotations

import math
from typing import NamedTuple

from ucjax.comparison.availability import FEWEST, STEPS
from ucjax.comparison.table import Entry, Measure, Table, binomial, clean_of
from ucjax.names import parse

# The controls in the order in which they are named; each takes more of the protection away.
CONTROLS = {
    "clean": "the clean files",
    "clean_original": "the untouched files",
    "absent": "the clean share alone",
    "random": "random noise per image",
    "cluster_random": "a fixed random pattern per cluster",
    "cluster_untrained": "the same noise before training",
}
RULE = (
    "“Beyond the spread” means: every victim of the protected files scores below every victim of "
    "the control, and the means differ by more than twice the standard deviation of such a "
    "difference; in the last epoch and at the peak."
)
# Half the width of the test set's own 95 % interval past which differences drown in it.
_WIDEST = 0.10
# Clean victims this little above guessing have learnt nothing that could be protected.
_ABOVE_CHANCE = 0.05
# Clean victims that know less of their own training files have not been trained.
_TRAINED, _FITTED = 0.5, 0.9


class Verdict(NamedTuple):
    """What was measured, what it means, and whether protection is shown (None: cannot tell)."""

    result: str
    meaning: str
    shown: bool | None


def is_control(row: str) -> bool:
    """Whether a row is there to compare with."""
    return parse(row, "row").base in CONTROLS


def protected(table: Table) -> list[str]:
    """Returns the labels of the rows that are to be judged."""
    return [line.label for line in table.lines if not is_control(line.row)]


def lowest(table: Table, column: str, label: str | None = None) -> Entry | None:
    """Returns the protected row, or that of a label, whose victims score least in a column."""
    labels = [found for found in protected(table) if label in (None, found)]
    entries = [e for e in table.entries if e.column == column and e.label in labels]
    return min(entries, key=lambda entry: entry.mean(), default=None)


def judge(table: Table, label: str | None = None, column: str | None = None) -> Verdict:
    """States what a row's victims show, claiming no more than the controls support.

    Args:
      table: finished.
      label: of the row; None for the one whose victims score least in the column.
      column: None for the first.
    """
    if not table.entries:
        return Verdict(
            _seen(table),
            "No victim was trained, since the images have no labels, none are kept for testing, or "
            "none was asked for: how well the protection holds is not measured here.",
            None,
        )
    column = column or table.entries[0].column
    ours = lowest(table, column, label)
    if ours is None:
        return Verdict(
            "No protection was measured.", "The table holds clean files and controls only.", None
        )
    controls = _controls(table, column)
    result = _result(table, ours, controls)
    doubt = _doubt(table, ours, controls)
    if doubt:
        return Verdict(result, f"It cannot be told whether protection holds: {doubt}", None)
    meaning, shown = _meaning(ours, controls)
    return Verdict(result, meaning + _fitted(controls["clean"]), shown)


def advice(found: Verdict, table: Table) -> str:
    """Returns in one sentence what to do with a verdict of `judge` on a table."""
    if not table.entries:
        return (
            "Do next: train victims (ucjax evaluate without --quick, or ucjax compare) before you "
            "count on these files."
        )
    if not protected(table):
        return "Do next: name a protection (--protections uc), or files (--row LABEL=FOLDER)."
    if found.shown is None:
        fewest = min(len(entry.results) for entry in table.entries)
        lacking = "train three seeds (--seeds 3)" if fewest < 2 else "mend what is named above"
        return f"Do next: {lacking}, and treat the files as unprotected until then."
    if found.shown:
        return (
            "Do next: publish the protected copies and nothing else, and measure other victims "
            f"(--victims) before you count on more than {table.entries[0].column}."
        )
    return (
        "Do next: do not count on these files; publish them as if they were unprotected, or "
        "measure other rows, other budgets and other victims in the same way."
    )


def _seen(table: Table) -> str:
    """Says how early the noise of the protected rows is seen, before any victim."""
    said = []
    for line in table.lines:
        seen = line.availability
        if seen is not None and line.label in protected(table):
            told, clean = 100 * seen.row[1], 100 * seen.clean[1]
            said.append(
                f"After {STEPS[1]} steps a small network tells the cluster of {told:.0f} % of the "
                f"unseen files of {line.label}, of {clean:.0f} % of the clean ones (guessing "
                f"reaches {100 * seen.chance:.0f} %)."
            )
    if said:
        return " ".join(said)
    few = table.train_count < FEWEST
    why = f": {table.train_count} images are too few, it takes {FEWEST}" if few else ""
    return f"How early the noise is seen was not measured{why}."


def beyond_spread(entry: Entry, control: Entry, measure: Measure) -> bool:
    """Returns whether the victims of `entry` are below those of `control`, as `RULE` states."""
    separate = max(entry.values(measure)) < min(control.values(measure))
    gap = control.mean(measure) - entry.mean(measure)
    return separate and gap > 2 * math.hypot(entry.std(measure), control.std(measure))


def percent(entry: Entry, measure: Measure = "last") -> str:
    """Returns percent as mean ± std over the seeds; one seed has no spread to show."""
    mean, std = entry.mean(measure), entry.std(measure)
    return f"{100 * mean:.1f} ± {100 * std:.1f}" if len(entry.results) > 1 else f"{100 * mean:.1f}"


def _controls(table: Table, column: str) -> dict[str, Entry]:
    """Returns the controls' victims by what they are; "clean" stands for either kind of clean."""
    found: dict[str, Entry] = {}
    for line in table.lines:
        base, entry = parse(line.row, "row").base, table.entry(line.label, column)
        if base in CONTROLS and entry is not None:
            found.setdefault(base, entry)
    clean = clean_of(table, column)
    found.pop("clean_original", None)
    return {"clean": clean, **found} if clean is not None else found


def _result(table: Table, ours: Entry, controls: dict[str, Entry]) -> str:
    against = [f"{percent(entry)} % for {CONTROLS[name]}" for name, entry in controls.items()]
    counts = sorted({len(entry.results) for entry in (ours, *controls.values())})
    count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    spread = f"mean ± standard deviation over {count} seeds" if counts[-1] > 1 else "one seed"
    column = table.column(ours.column)
    return (
        f"Victims ({ours.column}) trained on {_called(ours.label)} reach {percent(ours)} % on "
        f"{column.test_count} clean test images{', against ' if against else ''}{listed(against)} "
        f"(last epoch, {spread}; guessing reaches {100 * column.chance:.1f} %)."
    )


def _called(label: str) -> str:
    return "the protected files" if label == "protected" else f"the files of {label}"


def _doubt(table: Table, ours: Entry, controls: dict[str, Entry]) -> str:
    """Returns why the numbers say nothing, or nothing."""
    if "clean" not in controls:
        return "no victim of the clean files was trained, so there is nothing to compare with."
    clean, column = controls["clean"], table.column(ours.column)
    if min(len(entry.results) for entry in (ours, *controls.values())) < 2:
        return "one seed shows no spread, and seeds move such results by several points."
    known = clean.train_accuracy()
    if known is not None and known < _TRAINED:
        return (
            f"the victims are untrained, since those of the clean files know "
            f"{100 * known:.0f} % of what they were trained on; train them longer "
            "(epochs=…)."
        )
    if clean.mean() - column.chance < _ABOVE_CHANCE:
        return (
            f"victims of the clean files are near guessing ({percent(clean)} %, guessing "
            f"{100 * column.chance:.1f} %): there is nothing to lose; take more images, or train "
            "longer."
        )
    low, high = binomial(clean.mean(), column.test_count)
    if high - low > 2 * _WIDEST:
        return (
            f"{column.test_count} test images leave the clean accuracy between {100 * low:.0f} and "
            f"{100 * high:.0f} %: keep more for testing (data.test_fraction)."
        )
    return ""


def _meaning(ours: Entry, controls: dict[str, Entry]) -> tuple[str, bool]:
    failed = [
        name
        for name, entry in controls.items()
        if not (beyond_spread(ours, entry, "last") and beyond_spread(ours, entry, "peak"))
    ]
    missing = [CONTROLS[name] for name in ("random", "cluster_random") if name not in controls]
    gap = f" Not measured in this run: {listed(missing)}." if missing else ""
    if not failed:
        name, nearest = min(controls.items(), key=lambda item: item[1].mean())
        points = 100 * (nearest.mean() - ours.mean())
        text = (
            f"Protection is shown: below {'every' if len(controls) > 1 else 'the'} control beyond "
            f"the spread between seeds; the nearest, {CONTROLS[name]}, is {points:.1f} points "
            "higher."
        )
        return text + gap, True
    if failed[0] == "clean":
        early = (
            " Only the last epoch is lower: whoever keeps the best epoch loses little."
            if beyond_spread(ours, controls["clean"], "last")
            else ""
        )
        text = "Protection is not shown: not below the clean files beyond the spread between seeds."
        return text + early + gap, False
    text = (
        "Victims lose accuracy against the clean files beyond the spread between seeds, but not "
        f"against {listed([CONTROLS[name] for name in failed])}: the protection is not shown to "
        "add anything to that."
    )
    return text + gap, False


def _fitted(clean: Entry) -> str:
    known = clean.train_accuracy()
    if known is None or known >= _FITTED:
        return ""
    return (
        f" After the last epoch the victims of the clean files know {100 * known:.0f} % of what "
        "they were trained on: an exploiter would train longer."
    )


def listed(phrases: list[str]) -> str:
    """Joins phrases with commas and "and"."""
    return " and ".join(filter(None, [", ".join(phrases[:-1]), *phrases[-1:]]))
