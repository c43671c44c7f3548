"""Settings of a near cache."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cache.cluster.structures.near import NearCache
from cache.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_bytes", 0),
        ("max_bytes", True),
        ("max_entries", 0),
        ("max_entries", 1.5),
        ("staleness_bound", 0.0),
        ("staleness_bound", 61),
        ("staleness_bound", math.nan),
        ("staleness_bound", "1s"),
        ("policy", "random"),
    ],
)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    """With its value, when the settings are made."""
    with pytest.raises(ConfigError, match=f"{field}="):
        NearCache(**{field: value})
