"""What botocore makes of a task definition, and what it loses."""

from typing import Any

import pytest

from ecs_manager import descriptions
from tests.conftest import EmbeddedCloud


@pytest.mark.parametrize(
    ("raw", "parsed", "lost"),
    [
        ({"cpu": 1}, {"cpu": 1}, []),
        ({"new": 0, "cpu": 1}, {"cpu": 1}, ["new"]),
        ({"new": False}, {}, ["new"]),
        ({"Xnew": "x"}, {}, ["Xnew"]),
        ({"a": None, "b": "", "c": [], "d": {}}, {}, []),
        ({"linux": {"new": {"a": 1}}}, {"linux": {}}, ["linux.new"]),
        ({"volumes": [{"a": 1}, {"b": 2, "new": 3}]}, {"volumes": [{"a": 1}, {"b": 2}]}, ["volumes.new"]),
        ({"policy": '{"a": 1}'}, {"policy": {"a": 1}}, []),
        ({"times": "1,2"}, {"times": ["1", "2"]}, []),
        ({"policy": {"a": 1}}, {"policy": '{"a": 1}'}, []),
        ({"times": [{"a": 1}]}, {"times": None}, []),
        (None, {"cpu": 1}, []),
    ],
)
def test_a_value_that_botocore_has_not_taken_over_is_lost(raw: Any, parsed: Any, lost: list[str]) -> None:
    """In whatever form it has taken it over. Null and what is empty are no values."""
    assert list(descriptions.unknown(raw, parsed, "")) == lost


def test_reading_a_task_definition_leaves_the_client_as_it_was(cloud: EmbeddedCloud) -> None:
    """A client is shared: it would hold the answer of every reading for as long as it lives."""
    ecs, event = cloud.client("ecs"), "before-parse.ecs.DescribeTaskDefinition"
    before = len(ecs.meta.events.emit(event, response_dict={"body": b"{}"}))

    definition, tags = descriptions.describe(ecs, "local-mint-app")

    assert (definition["family"], tags) == ("local-mint-app", [{"key": "project", "value": "mint-app"}])
    assert len(ecs.meta.events.emit(event, response_dict={"body": b"{}"})) == before
