"""A slice of the campaign; `python tests/hostile/campaign.py` runs as much as is asked for."""

import campaign
import pytest

# Damaged files make decoders warn in their own words.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_slice_of_the_campaign():
    campaign.FAILURES.clear()
    found = campaign.run(kill_count=2, flip_count=30, rival_count=1, full_count=1, seed=7)
    assert campaign.FAILURES == []
    assert sum(count for (kind, _), count in found.items() if kind.startswith("kill")) >= 2
    assert sum(count for (kind, _), count in found.items() if " of a " in kind) >= 30
