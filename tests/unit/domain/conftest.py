"""What tests of the domain begin with."""

from __future__ import annotations

import pytest

from unit.domain.moment import Moment, quiet_moment


@pytest.fixture
def moment() -> Moment:
    """Two nodes with two workers each train, and all is well."""
    return quiet_moment()
