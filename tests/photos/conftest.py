import pytest
import small


@pytest.fixture(autouse=True, scope="package")
def linear():
    with small.linear():
        yield
