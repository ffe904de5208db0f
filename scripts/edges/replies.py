"""Checks AWS's responses as they arrive.

botocore parses a response by the model of its service, but passes a value of another type on as it is: here each is
compared with the model. The records below say what must not be missing in some of them, and which numbers are counts.
"""

import datetime
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=0)]
Time = datetime.datetime | None


class Camel(Struct, rename="camel", frozen=True):
    """A structure of ECS, ECR or CloudWatch."""


class Pascal(Struct, rename="pascal", frozen=True):
    """A structure of RDS or CloudFront."""


class Breaker(Camel, frozen=True):
    enable: bool = False


class Configuration(Camel, frozen=True):
    deployment_circuit_breaker: Breaker = Breaker()


class Deployment(Camel, frozen=True):
    id: str
    status: str
    task_definition: str
    rollout_state: str = ""
    rollout_state_reason: str = ""
    created_at: Time = None
    desired_count: Count = 0
    running_count: Count = 0
    failed_tasks: Count = 0


class Event(Camel, frozen=True):
    message: str = ""
    created_at: Time = None


class Service(Camel, frozen=True):
    status: str = ""
    deployments: list[Deployment] = []
    events: list[Event] = []
    deployment_configuration: Configuration = Configuration()


class Services(Camel, frozen=True):
    services: list[Service] = []


class Logs(Camel, frozen=True):
    log_driver: str = ""
    options: dict[str, str] = {}


class Container(Camel, frozen=True):
    name: str
    image: str
    log_configuration: Logs = Logs()


class Definition(Camel, frozen=True):
    task_definition_arn: str
    container_definitions: list[Container]


class TaskDefinition(Camel, frozen=True):
    task_definition: Definition


class Image(Camel, frozen=True):
    image_digest: str


class Images(Camel, frozen=True):
    image_details: list[Image]


class Authorization(Camel, frozen=True):
    authorization_token: str


class Authorizations(Camel, frozen=True):
    authorization_data: list[Authorization]


class Attribute(Camel, frozen=True):
    key: str
    value: str = ""


class Basic(Camel, frozen=True):
    name: str = ""
    severity: str = ""
    uri: str = ""
    attributes: list[Attribute] = []


class Package(Camel, frozen=True):
    name: str = ""
    version: str = ""
    fixed_in_version: str = ""


class Vulnerability(Camel, frozen=True):
    vulnerability_id: str = ""
    source_url: str = ""
    vulnerable_packages: list[Package] = []


class Enhanced(Camel, frozen=True):
    title: str = ""
    status: str = ""
    severity: str = ""
    package_vulnerability_details: Vulnerability = Vulnerability()


class Findings(Camel, frozen=True):
    findings: list[Basic] = []
    enhanced_findings: list[Enhanced] = []


class Status(Camel, frozen=True):
    status: str
    description: str = ""


class Scan(Camel, frozen=True):
    image_scan_status: Status
    image_scan_findings: Findings = Findings()


class Line(Camel, frozen=True):
    message: str
    timestamp: int
    log_stream_name: str


class Lines(Camel, frozen=True):
    events: list[Line] = []


class Tag(Pascal, frozen=True):
    key: str
    value: str


class Snapshot(Pascal, frozen=True):
    status: str
    id: str = field(name="DBSnapshotIdentifier")
    percent_progress: Count = 0
    snapshot_create_time: Time = None
    snapshot_type: str = ""
    tag_list: list[Tag] = []


class Snapshots(Pascal, frozen=True):
    snapshots: list[Snapshot] = field(name="DBSnapshots")


class Invalidation(Pascal, frozen=True):
    id: str
    status: str


class Invalidated(Pascal, frozen=True):
    invalidation: Invalidation


# By the name of the operation.
REPLIES: dict[str, type[Struct]] = {
    "DescribeServices": Services,
    "DescribeTaskDefinition": TaskDefinition,
    "DescribeImages": Images,
    "GetAuthorizationToken": Authorizations,
    "DescribeImageScanFindings": Scan,
    "FilterLogEvents": Lines,
    "DescribeDBSnapshots": Snapshots,
    "CreateInvalidation": Invalidated,
    "GetInvalidation": Invalidated,
}


# Types of botocore's models. A blob may be bytes or a stream.
TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("string", "character"), str),
    **dict.fromkeys(("integer", "long"), int),
    **dict.fromkeys(("float", "double"), (int, float)),
    **dict.fromkeys(("structure", "map"), dict),
    "boolean": bool,
    "timestamp": datetime.datetime,
    "list": list,
    "blob": object,
}


def check(model: Any, reply: Any) -> None:
    """Check a response. model: botocore's, of the operation.

    Raises ValueError, with the field's path, if a field is of another type, or one that is needed is missing.
    """
    for path, wanted in _wrong(model.output_shape, reply, "$"):
        raise ValueError(f"Expected `{wanted}` at `{path}`")
    kind = REPLIES.get(model.name)
    if kind:
        msgspec.convert(reply, kind)


def _wrong(shape: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Path and expected type of each field that is of another type."""
    # A document is whatever a service puts there.
    name = "blob" if shape is None or getattr(shape, "is_document_type", False) else shape.type_name
    kind: Any = TYPES[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
        yield path, name
    elif name == "list":
        for number, item in enumerate(value):
            yield from _wrong(shape.member, item, f"{path}[{number}]")
    elif name == "map":
        for key, item in value.items():
            yield from _wrong(shape.value, item, f"{path}.{key}")
    elif name == "structure":
        for key in shape.members.keys() & value.keys():
            yield from _wrong(shape.members[key], value[key], f"{path}.{key}")
