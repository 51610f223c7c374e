"""Where MaxMind's own test databases are, if they are here."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def maxmind() -> Path:
    """The folder of the databases: $DATA/maxmind, else beside the repository."""
    data = Path(os.environ.get("DATA", REPOSITORY.parent / "shared" / "data"))  # noqa: TID251  # tests are told so
    folder = data / "maxmind"
    if not folder.is_dir():
        pytest.skip(f"MaxMind's test databases are not in {folder}; name their parent in $DATA")
    return folder


@pytest.fixture
def city_pairs() -> Path:
    """Measured round trips between cities: $DATA/rtt/city_pairs.csv."""
    data = Path(os.environ.get("DATA", REPOSITORY.parent / "shared" / "data"))  # noqa: TID251  # tests are told so
    path = data / "rtt" / "city_pairs.csv"
    if not path.is_file():
        pytest.skip(f"there is no {path}; name the folder above rtt in $DATA")
    return path
