"""What AWS's responses have to be: every field of its type, and what the commands need not missing."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.model import ShapeResolver
from botocore.session import Session

from scripts.edges import replies

SHAPES = {
    "all": {"type": "structure", "members": {"field": {"shape": "own"}}},
    "item": {"type": "integer"},
    "key": {"type": "string"},
}


@pytest.mark.parametrize(
    ("shape", "right", "wrong", "path"),
    [
        ({"type": "string"}, "x", 1, "$.field"),
        ({"type": "character"}, "x", 1, "$.field"),
        ({"type": "integer"}, 1, "1", "$.field"),
        ({"type": "integer"}, 0, False, "$.field"),
        ({"type": "long"}, 1, 1.5, "$.field"),
        ({"type": "float"}, 1.5, "1.5", "$.field"),
        ({"type": "float"}, 1, True, "$.field"),
        ({"type": "double"}, 1.5, None, "$.field"),
        ({"type": "boolean"}, True, 1, "$.field"),
        ({"type": "timestamp"}, datetime.now(UTC), "2026-01-01", "$.field"),
        ({"type": "list", "member": {"shape": "item"}}, [1, 2], {}, "$.field"),
        ({"type": "list", "member": {"shape": "item"}}, [], [1, "2"], "$.field[1]"),
        ({"type": "map", "key": {"shape": "key"}, "value": {"shape": "item"}}, {"a": 1}, [], "$.field"),
        ({"type": "map", "key": {"shape": "key"}, "value": {"shape": "item"}}, {}, {"a": 1, "b": "x"}, "$.field.b"),
        ({"type": "structure", "members": {"a": {"shape": "item"}}}, {"a": 1, "new": "x"}, {"a": "x"}, "$.field.a"),
    ],
)
def test_a_field_of_another_type_is_an_error_with_its_path(shape: Any, right: Any, wrong: Any, path: str) -> None:
    """As botocore's model has it. What the model does not know is left alone."""
    resolver = ShapeResolver({**SHAPES, "own": shape})
    model = SimpleNamespace(name="Any", output_shape=resolver.get_shape_by_name("all"))

    replies.check(model, {"field": right})
    replies.check(model, {"other": wrong})
    with pytest.raises(ValueError, match=r"^Expected `[a-z]+` at `") as error:
        replies.check(model, {"field": wrong})
    assert str(error.value).endswith(f" at `{path}`")


@pytest.mark.parametrize("value", [b"x", "x", True, object(), [1], {"a": 1}])
@pytest.mark.parametrize("own", [{"type": "blob"}, {"type": "structure", "members": {}, "document": True}])
def test_a_blob_and_a_document_may_be_anything(own: Any, value: object) -> None:
    """Bytes or a stream; and what somebody has configured, such as the details of a hook of a deployment."""
    shape = ShapeResolver({**SHAPES, "own": own}).get_shape_by_name("all")

    replies.check(SimpleNamespace(name="Any", output_shape=shape), {"field": value})
    replies.check(SimpleNamespace(name="Any", output_shape=None), {})


ROLLING = {"id": "x", "status": "PRIMARY", "taskDefinition": "x"}
SNAPSHOT = {"Status": "available", "DBSnapshotIdentifier": "x"}


@pytest.mark.parametrize(
    ("operation", "reply", "said"),
    [
        ("ecs DescribeServices", {}, ""),
        ("ecs DescribeServices", {"services": [{"deployments": [ROLLING]}]}, ""),
        ("ecs DescribeServices", {"services": [{"deployments": [{"id": "x", "status": "x"}]}]}, "`taskDefinition`"),
        ("ecs DescribeServices", {"services": [{"deployments": [{**ROLLING, "runningCount": -1}]}]}, ">= 0"),
        ("ecs DescribeTaskDefinition", {}, "`taskDefinition`"),
        ("ecr DescribeImages", {"imageDetails": [{}]}, "`imageDigest`"),
        ("ecr GetAuthorizationToken", {"authorizationData": [{}]}, "`authorizationToken`"),
        ("ecr DescribeImageScanFindings", {}, "`imageScanStatus`"),
        ("logs FilterLogEvents", {"events": [{"message": "x", "timestamp": 1}]}, "`logStreamName`"),
        ("rds DescribeDBSnapshots", {"DBSnapshots": [SNAPSHOT]}, ""),
        ("rds DescribeDBSnapshots", {}, "`DBSnapshots`"),
        ("rds DescribeDBSnapshots", {"DBSnapshots": [{"Status": "x"}]}, "`DBSnapshotIdentifier`"),
        ("rds DescribeDBSnapshots", {"DBSnapshots": [{**SNAPSHOT, "PercentProgress": -1}]}, ">= 0"),
        ("cloudfront CreateInvalidation", {"Invalidation": {"Id": "x"}}, "`Status`"),
        ("cloudfront GetInvalidation", {}, "`Invalidation`"),
    ],
)
def test_what_the_commands_need_is_not_missing(operation: str, reply: dict[str, Any], said: str) -> None:
    """And a count is not negative."""
    service, name = operation.split()
    model = Session().get_service_model(service).operation_model(name)

    if not said:
        replies.check(model, reply)
        return
    with pytest.raises(ValueError, match=r"at `|missing") as error:
        replies.check(model, reply)
    assert said in str(error.value)
