"""Sound data for every test of checks."""

from pathlib import Path

import pytest

from tests.data.checks.samples import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    (tmp_path / "data").mkdir()
    return Pair(tmp_path / "data")
