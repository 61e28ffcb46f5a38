import pytest
from tiny import VICTIM

from ucjax.victims import step, table


@pytest.fixture(scope="module", autouse=True)
def tiny_victim():
    table.MODELS["tiny"] = VICTIM
    yield
    del table.MODELS["tiny"]
    step.compile_victim.cache_clear()
    step.compile_stack.cache_clear()
