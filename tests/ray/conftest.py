"""One Ray for all tests of this tier."""

import pytest

from dytrack_platform.experiment.cluster import session


@pytest.fixture(scope="session")
def ray_session():
    with session(cpus=4):
        yield
