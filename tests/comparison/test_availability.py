"""How early noise is seen: told before a victim trains, remembered, and only where it can be."""

import json

import pytest
from runs import fill, tiny

from ucjax.comparison import availability
from ucjax.runtime import checkpoint


@pytest.fixture(scope="module")
def measured(mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    config = tiny(
        folder,
        availability=True,
        data__train_count=100,
        clusters__k=4,
        noise__epsilon_255=64,
        protections=("clean", "random:grain=8", "cluster_random:grain=8"),
        victims=(),
    )
    return config, folder / "work", fill(config, folder / "work", mesh)


def test_a_pattern_per_cluster_is_seen_and_noise_per_image_is_not(measured):
    table = measured[2].table
    pattern = table.line("cluster_random:grain=8").availability
    noise = table.line("random:grain=8").availability
    # The clusters are those of mean colours, which a network soon tells from clean files, too.
    assert pattern.row[0] > max(0.95, pattern.clean[0] + 0.1)
    assert pattern.gain > 0.05
    assert noise.gain < pattern.gain - 0.05
    assert pattern.clean == noise.clean, "the same files and clusters, measured once"
    assert 0.25 <= pattern.chance < 1
    assert table.line("clean").availability is None
    assert table.entries == ()


def test_what_is_known_costs_nothing(measured, mesh, monkeypatch):
    config, workdir, filled = measured
    monkeypatch.setattr(availability, "_train", None)
    assert fill(config, workdir, mesh).table == filled.table
    saved = checkpoint.read_json(workdir / "table.json")
    lines = {line["label"]: line for line in saved["rows"]}
    assert len(json.dumps(lines["random:grain=8"]["availability"])) > 10


def test_few_images_are_not_measured(mesh, tmp_path):
    config = tiny(tmp_path, availability=True, protections=("clean", "random"), victims=())
    filled = fill(config, tmp_path / "work", mesh)
    assert filled.table.line("random").availability is None
