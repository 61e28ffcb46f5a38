"""What a filled table says in numbers, and that it is read back as it was written."""

import csv
import io
import json
import math
import random

import numpy as np
import pytest
import tables
from scipy import stats

from ucjax.cli.command import main
from ucjax.comparison import table
from ucjax.comparison.availability import Availability
from ucjax.comparison.table import Entry
from ucjax.errors import UserError

COLUMNS = (
    "protection", "victim", "seeds", "last_mean", "last_std", "peak_mean", "peak_std", "drop",
)  # fmt: skip


def test_means_and_spreads_are_numpy_s():
    values = [0.2, 0.45, 0.3, 0.31]
    found = tables.entry("uc", *values, peaks=[0.5, 0.45, 0.4, 0.6])
    assert found.mean() == pytest.approx(np.mean(values))
    assert found.std() == pytest.approx(np.std(values, ddof=1))
    assert found.mean("peak") == pytest.approx(0.4875)
    assert tables.entry("uc", 0.5).std() == 0.0
    assert found.train_accuracy() == pytest.approx(0.97)


@pytest.mark.parametrize("count", [5, 12, 100, 3669])
def test_the_interval_of_the_test_set_is_wilson_s(count):
    for right in sorted({0, 1, count // 3, count - 1, count}):
        oracle = stats.binomtest(right, count).proportion_ci(method="wilson")
        found = table.binomial(right / count, count)
        # The oracle's quantile is 1.95996…
        assert found == pytest.approx((oracle.low, oracle.high), abs=2e-5)


def test_a_drop_has_the_interval_of_the_mean_over_seeds_and_test_images():
    clean, ours = (0.80, 0.82, 0.84), (0.30, 0.36, 0.33)
    found = tables.table(tables.entry("clean", *clean), tables.entry("uc", *ours), test_count=400)
    fell, low, high = table.drop(found, found.entries[1])
    variance = sum(
        np.var(x, ddof=1) / 3 + np.mean(x) * (1 - np.mean(x)) / 400 for x in (clean, ours)
    )
    half = stats.norm.ppf(0.975) * math.sqrt(variance)
    assert (fell, high - fell, fell - low) == pytest.approx((0.49, half, half), rel=1e-4)
    assert table.drop(found, found.entries[0])[0] == 0
    # A simulation: as often as it says, the interval holds the true difference.
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        drawn = [rng.binomial(400, rng.normal(mean, 0.02, 3)) / 400 for mean in (0.8, 0.4)]
        trial = tables.table(tables.entry("clean", *drawn[0]), tables.entry("uc", *drawn[1]))
        trial = tables.table(*trial.entries, test_count=400)
        _, low, high = table.drop(trial, trial.entries[1])
        held += low <= 0.4 <= high
    assert held / 400 > 0.9


def test_a_drop_is_from_the_clean_files_of_the_same_column():
    found = tables.table(
        tables.entry("clean_original", 0.9, 0.9), tables.entry("uc", 0.4, 0.4),
        tables.entry("uc", 0.4, 0.4, column="other"),
    )  # fmt: skip
    assert table.drop(found, found.entries[1])[0] == pytest.approx(0.5)
    assert table.drop(found, found.entries[2]) is None


def test_csv_has_a_line_an_entry():
    found = tables.table()
    lines = list(csv.DictReader(io.StringIO(found.csv())))
    assert list(lines[0])[:7] == list(COLUMNS[:7])
    assert {*COLUMNS, "drop_low", "drop_high", "test_low", "test_high"} <= lines[0].keys()
    assert [line["protection"] for line in lines] == ["clean", "random", "cluster_random", "uc"]
    ours = lines[-1]
    assert float(ours["last_mean"]) == pytest.approx(np.mean([0.30, 0.31, 0.33]), abs=1e-5)
    assert float(ours["last_std"]) == pytest.approx(np.std([0.30, 0.31, 0.33], ddof=1), abs=1e-5)
    assert float(ours["drop"]) == pytest.approx(0.86 - 0.94 / 3, abs=1e-5)
    assert float(ours["drop_low"]) < float(ours["drop"]) < float(ours["drop_high"])
    assert (ours["seeds"], ours["psnr_median"], ours["seconds"]) == ("3", "25.3", "2.0")
    assert (lines[0]["psnr_median"], lines[0]["seconds"], lines[0]["drop"]) == ("inf", "", "0.0")
    alone = tables.table(tables.UC)
    assert next(csv.DictReader(io.StringIO(alone.csv())))["drop"] == ""


def test_what_is_written_is_read_back():
    found = tables.table(tables.CLEAN, tables.UC, Entry("uc", "other", {}))
    text = json.dumps(found.to_json(), allow_nan=False)
    assert table.parse(json.loads(text)) == found
    assert found.line("clean").psnr_median == math.inf
    seen = Availability((0.2, 0.7, 0.9), (0.2, 0.3, 0.1), 0.25)
    lines = (tables.line("clean"), tables.line("uc", availability=seen))
    found = tables.table(tables.CLEAN, tables.UC, rows=lines)
    assert table.parse(json.loads(json.dumps(found.to_json()))) == found
    stated = [row["availability"] for row in csv.DictReader(io.StringIO(found.csv()))]
    assert stated == ["", "0.4"]
    seeds = {(n, s): tables.victim(0.1) for n in (0, 7) for s in (1, 2)}
    found = tables.table(tables.CLEAN, Entry("uc", tables.COLUMN, seeds))
    assert table.parse(found.to_json()).entry("uc", tables.COLUMN).results.keys() == seeds.keys()


def broken(change):
    value = json.loads(json.dumps(tables.table().to_json()))
    change(value)
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("rows"),
        lambda t: t["rows"][0].pop("ssim_median"),
        lambda t: t["rows"][0].update(unknown=1),
        lambda t: t["columns"][0].pop("chance"),
        lambda t: t["entries"][0].update(label="nobody"),
        lambda t: t["entries"][0].update(column="nothing"),
        lambda t: t["entries"][0]["victims"][0].update(last=1.5),
        lambda t: t["entries"][0]["victims"][0].update(curve=[]),
        lambda t: t["entries"][0]["victims"][0].pop("seed"),
        lambda t: t.update(entries=7),
    ],
)
def test_a_damaged_table_is_one_line(change, tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(broken(change)))
    with pytest.raises(
        UserError, match=r"table\.json is no table .*: run the comparison"
    ) as caught:
        table.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_table_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no finished table"):
        table.load(tmp_path)
    for content in ("{", "[]", "7", "\xff"):
        (tmp_path / "table.json").write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=r"table\.json"):
            table.load(tmp_path)


def test_the_leaderboard_has_the_largest_drop_first_and_none_last():
    one = tables.table(tables.CLEAN, tables.RANDOM, tables.UC)
    other = tables.table(tables.entry("clean", 0.5, 0.5), tables.entry("uc:k=3", 0.1, 0.2))
    alone = tables.table(tables.entry("uc:eps=8", 0.0, 0.0))
    runs = [alone, other, one]
    random.Random(0).shuffle(runs)
    ranked = table.leaderboard(runs)
    assert [entry.label for _, entry in ranked] == [
        "uc", "uc:k=3", "random", "clean", "clean", "uc:eps=8",
    ]  # fmt: skip
    drops = [table.drop(run, entry)[0] for run, entry in ranked[:-1]]
    assert drops == sorted(drops, reverse=True)


def test_runs_are_merged_by_the_command(tmp_path, capsys):
    for name, entries in (("a", (tables.CLEAN, tables.UC)), ("b", (tables.CLEAN, tables.RANDOM))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.json").write_text(json.dumps(tables.table(*entries).to_json()))
    assert main(["table", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["protection", "uc", "random", "clean", "clean"]
    assert "54.7" in lines[1]
    assert [line.split()[-1] for line in lines[1:3]] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["table", "--csv", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert [row[0] for row in rows] == ["protection", "uc", "random", "clean", "clean"]
    runs = [str(tmp_path / name) for name in ("a", "b")]
    assert [row[-1] for row in rows] == ["run", *runs, *runs]
    assert main(["table", str(tmp_path)]) == 2
    assert "holds no finished table" in capsys.readouterr().err
