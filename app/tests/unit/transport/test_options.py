"""Transport options."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options

URL = "kafka://a:9092//tasks"


def test_bound_partitions_are_strictly_ordered_unless_told_otherwise() -> None:
    assert Options.of(URL).ordering == "none"
    assert Options.of(URL, {"partitions": [3, 1, 3]}).ordering == "partition"
    assert Options.of(URL, {"partitions": [0], "ordering": "key"}).ordering == "key"


def test_partitions_are_a_sorted_set() -> None:
    assert Options.of(URL, {"partitions": [3, 1, 3]}).partitions == (1, 3)
    assert Options.of(URL, {"partitions": 2}).partitions == (2,)


@pytest.mark.parametrize(
    "given",
    [
        {"partitions": []},
        {"partitions": ["0"]},
        {"partitions": [-1]},
        {"partitions": [True]},
        {"partitions": "0,1"},
        {"ordering": "strict"},
        {"connect_timeout": 0},
        {"max_buffered": -1},
    ],
)
def test_bad_values_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Options.of(URL, given)


def test_a_misspelt_option_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Options.of(URL, {"partition": [0], "visibility_timeout": 3600})
    assert "did you mean 'partitions'" in caplog.text
    assert "visibility_timeout" not in caplog.text
