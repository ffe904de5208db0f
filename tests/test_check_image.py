"""Which findings of an image count, and that an unclear result never passes as a clean image."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import check_image
from scripts.check_image import Check, Checked, Finding, Judged, Waiver
from scripts.ecs.manager import Invocation
from scripts.frame import settings, stop
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import aligned
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import Clock
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import Reply, StandIn, stand_in

TODAY = datetime.date(2030, 6, 15)
IMAGE = ("mint-backend", "v0")
HIGH = Finding("CVE-1", "HIGH", "openssl", "3.0.1")
MILD = Finding("CVE-2", "INFORMATIONAL", "zlib", "1.2")
ODD = Finding("CVE-3", "UNDEFINED", "bash", "5")


@pytest.fixture
def local(cloud: EmbeddedCloud) -> Environment:
    """The settings of the embedded AWS."""
    return settings.environment("local")


def basic(number: int, severity: str = "HIGH", package: str = "openssl") -> dict[str, Any]:
    """A finding of ECR's basic scanning."""
    return {
        "name": f"CVE-2030-{number}",
        "severity": severity,
        "uri": f"https://example.org/{number}",
        "attributes": [{"key": "package_name", "value": package}, {"key": "package_version", "value": "1.0"}],
    }


def find(cloud: EmbeddedCloud, *findings: dict[str, Any], tag: str = "v0", **more: Any) -> None:
    """Set the findings of an image's scan."""
    cloud.server.cloud.findings["mint-backend", tag] = {"findings": list(findings), **more}


def push(cloud: EmbeddedCloud, tag: str) -> None:
    """Push another image to the repository."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"digest": "sha256:" + tag[0] * 64, "size": 1},
        "layers": [],
    }
    cloud.client("ecr").put_image(repositoryName="mint-backend", imageTag=tag, imageManifest=json.dumps(manifest))


def check(local: Environment, plan: Check, cloud: EmbeddedCloud | None = None) -> Checked:
    """Check with a clock that advances the embedded AWS."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if cloud:
            cloud.advance(seconds)

    return check_image.check(local, plan, today=TODAY, clock=Clock(lambda: clock[0], sleep))


@pytest.mark.parametrize(
    ("plan", "known", "expected"),
    [
        (Check(*IMAGE, None), [], {"CVE-1": "", "CVE-2": "", "CVE-3": ""}),
        (Check(*IMAGE, None, fail_on="HIGH"), [], {"CVE-1": "", "CVE-2": "below HIGH", "CVE-3": ""}),
        (
            Check(*IMAGE, None, fail_on="CRITICAL"),
            [],
            {"CVE-1": "below CRITICAL", "CVE-2": "below CRITICAL", "CVE-3": ""},
        ),
        (Check(*IMAGE, None, running="old"), [HIGH], {"CVE-1": "runs already", "CVE-2": "", "CVE-3": ""}),
        (
            Check(*IMAGE, None, running="old"),
            [Finding("CVE-1", "HIGH", "another", "1")],
            {"CVE-1": "", "CVE-2": "", "CVE-3": ""},
        ),
        (
            Check(*IMAGE, None, running="old"),
            [Finding("CVE-1", "LOW", "openssl", "2")],
            {"CVE-1": "runs already", "CVE-2": "", "CVE-3": ""},
        ),
    ],
    ids=[
        "all count by default",
        "from HIGH up, and unknown severities",
        "from CRITICAL up, and unknown severities",
        "not if the running image has it",
        "if the running image has it in another package",
        "not if the running image has it in another version",
    ],
)
def test_which_findings_count(plan: Check, known: list[Finding], expected: dict[str, str]) -> None:
    """A finding with an empty reason counts."""
    judged = check_image.judge(plan, [MILD, HIGH, ODD], known, TODAY)

    assert {one.finding.name: one.why for one in judged} == expected
    assert all(one.counts == (not one.why) for one in judged)


WORST_FIRST = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL"]


@pytest.mark.parametrize("level", [None, *WORST_FIRST])
def test_findings_count_from_a_severity_upwards(level: str | None) -> None:
    """Without one all of them. It may be given in small letters."""
    plan = check_image.plan(settings.environment("dev"), tag="v0", fail_on=level and level.lower())
    judged = check_image.judge(plan, [Finding("CVE-1", severity) for severity in sorted(WORST_FIRST)], [], TODAY)

    assert [one.finding.severity for one in judged] == WORST_FIRST
    assert [one.counts for one in judged].count(True) == WORST_FIRST.index(level or "INFORMATIONAL") + 1


@pytest.mark.parametrize(
    ("waiver", "counts"),
    [
        (Waiver("CVE-1", TODAY, "r"), False),
        (Waiver("CVE-1", TODAY - datetime.timedelta(1), "r"), True),
        (Waiver("CVE-1", TODAY, "r", package="openssl", repository="mint-backend"), False),
        (Waiver("CVE-1", TODAY, "r", package="zlib"), True),
        (Waiver("CVE-1", TODAY, "r", repository="mint-db-migrate"), True),
        (Waiver("CVE-11", TODAY, "r"), True),
    ],
    ids=["on its last day", "a day later", "its package", "another package", "another repository", "another finding"],
)
def test_a_waiver_accepts_its_finding_until_its_last_day(waiver: Waiver, counts: bool) -> None:
    """And no other finding."""
    (judged,) = check_image.judge(Check(*IMAGE, None, waivers=(waiver,)), [HIGH], [], TODAY)

    assert judged.counts is counts


@pytest.mark.parametrize(
    ("waiver", "total", "said"),
    [
        (Waiver("CVE-2030-1", TODAY, "no fix yet"), 0, ""),
        (
            Waiver("CVE-2030-1", datetime.date(2030, 6, 14), "no fix yet"),
            1,
            "warning: The waiver of CVE-2030-1 ended on 2030-06-14: it counts again.\n",
        ),
        (Waiver("CVE-2030-2", datetime.date(2030, 6, 14), "no fix yet"), 1, ""),
    ],
    ids=["on its last day", "a day later", "of nothing that was found"],
)
def test_an_expired_waiver_is_reported(
    waiver: Waiver,
    total: int,
    said: str,
    cloud: EmbeddedCloud,
    local: Environment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If its finding counts again."""
    find(cloud, basic(1))

    assert check(local, Check(*IMAGE, None, waivers=(waiver,))).total == total
    assert "".join(line for line in capsys.readouterr().err.splitlines(keepends=True) if "warning" in line) == said


@pytest.mark.parametrize(("running", "total"), [("", 1), ("v0", 0)], ids=["nothing runs", "it runs itself"])
def test_the_scan_of_an_image_is_read_once(
    running: str, total: int, cloud: EmbeddedCloud, local: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the image itself has already is no news."""
    find(cloud, basic(1))

    assert check(local, Check(*IMAGE, None, running=running)).total == total
    assert len(cloud.requests("ecr", "DescribeImageScanFindings")) == 1
    shown = capsys.readouterr().err
    assert "warning" not in shown
    assert ("counts" if total else "runs already") in shown


def test_findings_of_all_pages_count(cloud: EmbeddedCloud, local: Environment) -> None:
    """ECR returns a hundred at a time."""
    find(cloud, *(basic(n, "LOW") for n in range(250)), basic(999, "CRITICAL"))

    checked = check(local, Check(*IMAGE, None, fail_on="CRITICAL"))

    assert (checked.total, len(checked.findings)) == (1, 251)
    assert checked.findings[0].finding == Finding(
        "CVE-2030-999", "CRITICAL", "openssl", "1.0", "", "https://example.org/999"
    )
    assert len(cloud.requests("ecr", "DescribeImageScanFindings")) == 3


@pytest.mark.parametrize("status", ["NONE", "FAILED", "UNSUPPORTED_IMAGE", "SCAN_ELIGIBILITY_EXPIRED", "A_NEW_ONE"])
def test_an_image_that_was_not_scanned_is_not_clean(cloud: EmbeddedCloud, local: Environment, status: str) -> None:
    """For any status of ECR: a failure that shows the status."""
    find(cloud, status=status)
    # ECR has a fault of its own for an image of which it knows no scan.
    shown = {"NONE": "NOT_SCANNED"}.get(status, status)

    with pytest.raises(DeployError, match=f"has no complete scan: {shown}. Scan it") as error:
        check(local, Check(*IMAGE, None), cloud)

    assert error.value.code == 1
    # A scan may appear shortly after the push.
    tries = len(cloud.requests("ecr", "DescribeImageScanFindings"))
    assert tries == (1 if shown == status else 16)


def test_a_missing_image_is_not_clean(cloud: EmbeddedCloud, local: Environment) -> None:
    """Nor is one in a missing repository."""
    for repository, tag in (("mint-backend", "absent"), ("absent", "v0")):
        with pytest.raises(DeployError, match=f"There is no {repository}:{tag} in the registry of local"):
            check(local, Check(repository, tag, None))


def test_it_waits_for_a_scan_in_progress(cloud: EmbeddedCloud, local: Environment) -> None:
    """Then its findings count."""
    find(cloud, basic(1), status="IN_PROGRESS", until=cloud.server.cloud.clock.now() + 60)

    assert check(local, Check(*IMAGE, None), cloud).total == 1


@pytest.mark.parametrize("status", ["IN_PROGRESS", "PENDING"])
def test_a_scan_that_has_not_ended_is_waited_for(cloud: EmbeddedCloud, local: Environment, status: str) -> None:
    """Up to the time-out: the outcome is unknown, exit code 3."""
    find(cloud, basic(1), status=status)

    with pytest.raises(OutcomeUnknown, match="The scan of mint-backend:v0 is not complete after 30 s") as error:
        check(local, Check(*IMAGE, None, timeout=30), cloud)

    assert error.value.code == 3
    assert 14 <= len(cloud.requests("ecr", "DescribeImageScanFindings")) <= 16


def test_without_a_scan_of_the_running_image_every_finding_counts(
    cloud: EmbeddedCloud, local: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a warning."""
    push(cloud, "new")
    find(cloud, basic(1), tag="new")
    find(cloud, status="FAILED")

    assert check(local, Check("mint-backend", "new", None, running="v0")).total == 1
    assert "so all findings count: mint-backend:v0 has no complete scan" in capsys.readouterr().err


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for AWS, to which the requests of dev go."""
    with stand_in(lambda *_: Reply(b"{}")) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def test_a_failed_scan_says_why(aws: StandIn) -> None:
    """In ECR's words."""
    body = {"imageScanStatus": {"status": "FAILED", "description": "The layers are too large."}}
    aws.answer = lambda *_: Reply(json.dumps(body).encode())

    with pytest.raises(DeployError, match=r"no complete scan: FAILED \(The layers are too large\.\)\. Scan it"):
        check(settings.environment("dev"), Check(*IMAGE, None))


COUNT = Invocation("count", "7", {"repository": "mint-backend", "imageTag": "v0"})
COUNTED = Reply(b'{"totalFindings": 2}')


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([COUNTED], 2),
        ([Reply(b"", drop=True), COUNTED], 2),
        (
            [Reply(b'{"errorMessage": "Task timed out after 3 s"}', headers={"X-Amz-Function-Error": "Unhandled"})],
            "timed out",
        ),
        ([Reply(b"", drop=True)] * 4, "Connection was closed"),
    ],
    ids=["a count", "a lost response and a count", "it timed out", "no response"],
)
def test_a_function_that_only_counts_may_be_called_again(
    replies: list[Reply], expected: int | str, aws: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lost response is a failure like others: nothing may still be happening."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    image = Reply(json.dumps({"imageDetails": [{"imageDigest": f"sha256:{'0' * 64}"}]}).encode())
    left = iter(replies)
    aws.answer = lambda _, path: next(left) if "/functions/" in path else image
    dev = settings.environment("dev")

    if isinstance(expected, str):
        with pytest.raises(DeployError, match=expected) as error:
            check(dev, Check(*IMAGE, COUNT))
        assert error.value.code == 1
    else:
        assert check(dev, Check(*IMAGE, COUNT)) == Checked("mint-backend:v0", expected)
    assert len(aws.lambda_calls()) == len(replies)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (basic(1), Finding("CVE-2030-1", "HIGH", "openssl", "1.0", "", "https://example.org/1")),
        ({}, Finding("?", "UNDEFINED")),
        ({"name": "CVE-1", "attributes": [{"key": "package_name"}]}, Finding("CVE-1", "UNDEFINED")),
    ],
)
def test_a_finding_of_basic_scanning_may_have_gaps(item: dict[str, Any], expected: Finding) -> None:
    """It counts nevertheless, as one of the worst."""
    assert check_image._basic(item) == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({}, [Finding("?", "UNTRIAGED")]),
        ({"title": "A title", "severity": "LOW"}, [Finding("A title", "LOW")]),
        (
            {"title": "A title", "packageVulnerabilityDetails": {"vulnerabilityId": "CVE-1", "sourceUrl": "u"}},
            [Finding("CVE-1", "UNTRIAGED", url="u")],
        ),
        (
            {"status": "ACTIVE", "packageVulnerabilityDetails": {"vulnerablePackages": [{"name": "a"}, {}]}},
            [Finding("?", "UNTRIAGED", "a"), Finding("?", "UNTRIAGED")],
        ),
        ({"status": "SUPPRESSED"}, []),
    ],
)
def test_a_finding_of_enhanced_scanning_may_have_gaps(item: dict[str, Any], expected: list[Finding]) -> None:
    """It counts unless it is suppressed or closed."""
    assert check_image._enhanced(item) == expected


@pytest.fixture
def inspector(aws: StandIn) -> StandIn:
    """A registry with enhanced scanning, with findings of Amazon Inspector."""

    def finding(severity: str, status: str, *packages: str) -> dict[str, Any]:
        named = [{"name": name, "version": "1", "fixedInVersion": "2"} for name in packages]
        details = {"vulnerabilityId": f"CVE-{severity}", "sourceUrl": "https://e.org", "vulnerablePackages": named}
        return {"severity": severity, "status": status, "packageVulnerabilityDetails": details}

    findings = [
        finding("HIGH", "ACTIVE", "a", "b"),
        finding("LOW", "SUPPRESSED", "c"),
        finding("MEDIUM", "CLOSED", "d"),
    ]
    body = {"imageScanStatus": {"status": "ACTIVE"}, "imageScanFindings": {"enhancedFindings": findings}}
    aws.answer = lambda *_: Reply(json.dumps(body).encode())
    return aws


def test_findings_of_enhanced_scanning_count_once_for_each_package(
    inspector: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scan's status is ACTIVE. Suppressed and closed findings do not count. It is said what mends them."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    checked = check(settings.environment("dev"), Check(*IMAGE, None))

    assert [one.finding for one in checked.findings] == [
        Finding("CVE-HIGH", "HIGH", name, "1", "2", "https://e.org") for name in ("a", "b")
    ]
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("::error")] == [
        f"::error title=HIGH CVE-HIGH::mint-backend:v0: {name} 1, fixed in 2 https://e.org" for name in ("a", "b")
    ]


WAIVER = '[[waiver]]\nfinding = "CVE-1"\nexpires = 2030-06-15\nreason = "no fix yet"\n'


def test_waivers_are_read_from_a_file(tmp_path: Path) -> None:
    """With a date, a reason, and optionally package and repository."""
    path = tmp_path / "waivers.toml"
    path.write_text(WAIVER + 'package = "openssl"\n')

    assert check_image.read_waivers(path) == (Waiver("CVE-1", TODAY, "no fix yet", package="openssl"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[waiver]", "Expected ']]'"),
        ("[waivers]", "unknown field `waivers`"),
        ("waiver = 3", r"Expected `array`, got `int` - at `\$.waiver`"),
        ("waiver = [3]", r"Expected `object`, got `int` - at `\$.waiver\[0\]`"),
        (WAIVER + WAIVER + 'until = "x"', r"unknown field `until` - at `\$.waiver\[1\]`"),
        (WAIVER.replace("finding", "# "), "missing required field `finding`"),
        (WAIVER.replace("expires", "# "), "missing required field `expires`"),
        (WAIVER.replace("reason", "# "), "missing required field `reason`"),
        (WAIVER.replace('"no fix yet"', '""'), r"length >= 1 - at `\$.waiver\[0\].reason`"),
        (WAIVER.replace("2030-06-15", '"2030-06-15"'), "Expected `date`, got `str`"),
        (WAIVER.replace("2030-06-15", "2030-06-15T00:00:00Z"), "Expected `date`, got `datetime`"),
        (WAIVER.replace('"CVE-1"', "1"), r"Expected `str`, got `int` - at `\$.waiver\[0\].finding`"),
        ("waiver = " + "[" * 5000, "recursion"),
        ("\udcff", "cannot be read"),
    ],
)
def test_an_invalid_file_of_waivers_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """No finding is accepted by mistake. The message has the waiver and the key."""
    path = tmp_path / "waivers.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(Refused, match=said):
        check_image.read_waivers(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"via": "inspector"}, "--via must be ecr or lambda, not 'inspector'"),
        ({"via": "lambda", "fail_on": "HIGH"}, "only counts"),
        ({"via": "lambda", "running": "x"}, "only counts"),
        ({"via": "lambda", "waivers": "x"}, "only counts"),
        ({"via": "lambda", "qualifier": ""}, "'' is not a version or an alias"),
        ({"qualifier": "7"}, "give --via=lambda too"),
        ({"function_name": "f"}, "give --via=lambda too"),
        ({"fail_on": "BAD"}, "'BAD' is not a severity"),
        ({"fail_on": ""}, "'' is not a severity"),
        ({"timeout": "soon"}, "--timeout must be a number of seconds between 0 and 86400"),
        ({"timeout": "0"}, "--timeout must be a number of seconds between 0 and 86400"),
        ({"timeout": "nan"}, "--timeout must be a number of seconds between 0 and 86400"),
        ({"image": "UPPER"}, "is not the name of an image's repository"),
        ({"tag": "a b"}, "is not a version"),
        ({"waivers": "nowhere.toml"}, "cannot be read"),
        ({"waivers": "no\0where"}, "cannot be read"),
    ],
    ids=lambda value: str(value),
)
def test_bad_input_is_refused(given: dict[str, Any], said: str) -> None:
    """Before any request."""
    with pytest.raises(Refused, match=said):
        check_image.plan(settings.environment("dev"), **{"tag": "v1", **given})


ACCEPTED = Waiver("CVE-1", TODAY, "no fix yet")
PAYLOAD = {"repository": "mint-backend", "imageTag": "v1"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["tag"], Check("mint-backend", "v1", None)),
        (["tag", "image", "fail_on", "waivers", "timeout"], Check("other", "v1", None, "LOW", "", (ACCEPTED,), 7)),
        (["tag", "against_running"], Check("mint-backend", "v1", None, running="unknown")),
        (["running"], Check("mint-backend", "unknown", None)),
        (["tag", "via"], Check("mint-backend", "v1", Invocation("ecr-scan-findings", "7", PAYLOAD))),
        (["tag", "via", "qualifier"], Check("mint-backend", "v1", Invocation("ecr-scan-findings", "3", PAYLOAD))),
        (["tag", "via", "function_name"], Check("mint-backend", "v1", Invocation("count", "$LATEST", PAYLOAD))),
        (
            ["tag", "via", "function_name", "qualifier"],
            Check("mint-backend", "v1", Invocation("count", "3", PAYLOAD)),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_checked_follows_from_the_flags(
    flags: list[str], expected: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run decides it also where no healthcheck says which version runs."""
    (tmp_path / "waivers.toml").write_text(WAIVER)
    values = {
        "tag": "v1",
        "image": "other",
        "fail_on": "low",
        "waivers": str(tmp_path / "waivers.toml"),
        "timeout": "7",
        "running": True,
        "against_running": True,
        "via": "lambda",
        "function_name": "count",
        "qualifier": "3",
    }
    # It is not asked twice.
    monkeypatch.setattr(check_image, "ANSWER_TIMEOUT", 0.1)
    dev = replace(settings.environment("dev", dry_run=True), healthcheck="http://127.0.0.1:9/")
    run = Run("check-image", dev, dry_run=True)

    assert check_image.check_image(run, **{flag: values[flag] for flag in flags}) is None  # type: ignore[arg-type]

    assert [step.plan for step in run.steps] == [expected]


def test_a_plan_says_what_does_not_count() -> None:
    """And until when it is accepted."""
    assert Check(*IMAGE, None, "HIGH", "old", (ACCEPTED,), 30).describe() == [
        "read what the scan of mint-backend:v0 found, and wait up to 30 s for it",
        "ignore findings that mint-backend:old, which runs, has too",
        "accept CVE-1 until 2030-06-15: no fix yet",
        "fail for every other finding of severity HIGH or higher",
    ]


@pytest.mark.parametrize("reply", [None, [], {}, {"totalFindings": None}, {"totalFindings": True}])
def test_a_reply_of_the_function_without_a_count_is_a_failure(reply: Any) -> None:
    """It is not a count of zero."""
    with pytest.raises(DeployError, match="did not return the number of findings"):
        check_image._count(reply, "ecr-scan-findings")


@pytest.mark.parametrize(
    ("total", "counting", "said"),
    [
        (0, [], ""),
        (3, [], "x:v1 has 3 findings."),
        (1, [1], "x:v1 has 1 finding: CVE-0 (HIGH)."),
        (1, [0, 1], "x:v1 has 1 finding (1 more do not count): CVE-1 (HIGH)."),
        (5, [1] * 5, "x:v1 has 5 findings: CVE-0 (HIGH), CVE-1 (HIGH), CVE-2 (HIGH), CVE-3 (HIGH), CVE-4 (HIGH)."),
        (6, [1] * 6, "x:v1 has 6 findings: CVE-0 (HIGH), CVE-1 (HIGH), CVE-2 (HIGH), CVE-3 (HIGH), CVE-4 (HIGH), …."),
    ],
    ids=["none", "only their number", "one", "one does not count", "five", "more than five"],
)
def test_the_worst_findings_that_count_are_named(total: int, counting: list[int], said: str) -> None:
    """Without any, the image is clean."""
    findings = tuple(Judged(Finding(f"CVE-{n}", "HIGH"), bool(counts)) for n, counts in enumerate(counting))
    checked = Checked("x:v1", total, findings)

    if said:
        with pytest.raises(DeployError) as error:
            check_image.require_clean(checked)
        assert str(error.value) == said
    else:
        check_image.require_clean(checked)


def test_a_findings_name_stays_on_its_line() -> None:
    """And is no command of GitHub Actions."""
    odd = Finding("CVE-1\n::add-mask::x", "HIGH", "p\r\n::error::y")

    lines = aligned(check_image.rows([Judged(odd, True)]))

    assert len(lines) == 2
    assert not any("\n" in line or "\r" in line or line.startswith("::") for line in lines)


def test_the_table_says_of_each_finding_whether_it_counts() -> None:
    """And what mends it. Without findings there is none."""
    fixed = Finding("CVE-3", "LOW", "bash", "5", "6", "https://example.org")

    assert aligned(check_image.rows([Judged(HIGH, True), Judged(fixed, False, "below HIGH")])) == [
        "SEVERITY  FINDING  PACKAGE  INSTALLED  FIXED IN",
        "HIGH      CVE-1    openssl  3.0.1      -         counts",
        "LOW       CVE-3    bash     5          6         below HIGH",
    ]
    assert check_image.rows([]) == []


@pytest.mark.parametrize(
    ("total", "counting", "text"),
    [
        (2, [1, 0, 1], "HIGH CVE-0 openssl 3.0.1\nHIGH CVE-2 openssl 3.0.1"),
        (11, [1] * 11, "\n".join(f"HIGH CVE-{n} openssl 3.0.1" for n in range(10))),
        (7, [], "x:v1 has 7 findings"),
    ],
    ids=["those that count", "ten at most", "only their number"],
)
def test_the_message_in_slack_has_the_worst_findings(total: int, counting: list[int], text: str) -> None:
    """In the channel of the settings."""
    judged = tuple(Judged(replace(HIGH, name=f"CVE-{n}"), bool(counts)) for n, counts in enumerate(counting))
    checked = Checked("x:v1", total, judged)

    assert check_image.message(settings.environment("dev"), checked, 1795489944.9) == {
        "channel": "#cmmi-mint-alerts",
        "attachments": [
            {
                "fallback": checked.line(),
                "color": "warning",
                "pretext": "Findings in the image that runs in dev",
                "title": checked.line(),
                "text": text,
                "ts": 1795489944,
            }
        ],
    }


def test_a_finding_is_escaped_for_slack(local: Environment) -> None:
    """It makes no mention and no link, and stays on one line."""
    odd = Finding("<!channel>", "HIGH", "a\nb", "<https://example.org|1>")

    (attachment,) = check_image.message(local, Checked("i:v0", 1, (Judged(odd, True),)))["attachments"]

    assert attachment["text"] == "HIGH &lt;!channel&gt; a b &lt;https://example.org|1&gt;"


def test_the_command_fails_with_a_table_annotations_and_the_findings_as_json(
    cloud: EmbeddedCloud, invoke: Invoke
) -> None:
    """At most ten annotations. The last line has the worst finding."""
    find(cloud, *(basic(n) for n in range(12)), basic(99, "CRITICAL", "bash"), basic(100, "LOW"))

    done = invoke("check-image", "--tag=v0", "--fail-on=high", "--json", **cloud.env, GITHUB_ACTIONS="true", CI="true")

    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "  SEVERITY  FINDING       PACKAGE  INSTALLED  FIXED IN" in lines
    assert "  CRITICAL  CVE-2030-99   bash     1.0        -         counts" in lines
    assert "  LOW       CVE-2030-100  openssl  1.0        -         below HIGH" in lines
    annotations = [line for line in lines if line.startswith("::error title=CRITICAL CVE") or "=HIGH CVE" in line]
    assert len(annotations) == 10
    assert annotations[0] == "::error title=CRITICAL CVE-2030-99::mint-backend:v0: bash 1.0 https://example.org/99"
    assert "mint-backend:v0 has 13 findings (1 more do not count): CVE-2030-99 (CRITICAL)" in lines[-1]
    document = json.loads(done.stdout)
    assert (document["exit_code"], document["steps"][0]["result"]["total"]) == (1, 13)


def test_the_command_passes_a_clean_image(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    done = invoke("check-image", "--tag=v0", **cloud.env)

    assert done.returncode == 0, done.stderr
    assert "mint-backend:v0 has no findings" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "line"), [(0, "has no findings"), (1, "has 1 finding"), (2, "has 2 findings")], ids=["0", "1", "2"]
)
def test_the_number_of_findings_is_the_result_of_the_step(
    number: int, line: str, cloud: EmbeddedCloud, local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is a failure. Nothing is changed."""
    find(cloud, *(basic(n) for n in range(number)))
    run = Run("check-image", local)

    if number:
        with pytest.raises(DeployError, match=f"mint-backend:v0 {line}: CVE-2030-0"):
            check_image.check_image(run, tag="v0")
    else:
        assert check_image.check_image(run, tag="v0") == Checked("mint-backend:v0", 0)

    (result,) = (step.result for step in run.steps)
    assert result
    assert (result.line(), result.outputs()) == (f"mint-backend:v0 {line}", {"findings": str(number)})
    assert stop.exit_code() == 2


def test_findings_that_the_running_image_has_do_not_count(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """The running version is the one that the healthcheck returns."""
    push(cloud, "new")
    find(cloud, basic(1))
    find(cloud, basic(1), tag="new")

    same = invoke("check-image", "--tag=new", "--against-running", **cloud.env)
    find(cloud, basic(1), basic(2), tag="new")
    more = invoke("check-image", "--tag=new", "--against-running", **cloud.env)

    assert same.returncode == 0, same.stderr
    assert more.returncode == 1
    assert "mint-backend:new has 1 finding (1 more do not count): CVE-2030-2 (HIGH)" in more.stderr


@pytest.mark.parametrize("via", ["ecr", "lambda"])
def test_findings_of_the_running_image_can_be_announced(cloud: EmbeddedCloud, invoke: Invoke, via: str) -> None:
    """Like check_deployed_image_findings: a message to Slack, and exit code 0."""
    find(cloud, basic(1))
    words = ("check-image", "--running", "--announce", f"--via={via}")
    with stand_in(lambda *_: Reply(b"ok")) as slack:
        done = invoke(*words, **cloud.env, SLACK_WEBHOOK_URL=f"{slack.url}/hook")
        find(cloud)
        clean = invoke(*words, **cloud.env, SLACK_WEBHOOK_URL=f"{slack.url}/hook")

    assert (done.returncode, clean.returncode) == (0, 0), done.stderr + clean.stderr
    (told,) = slack.requests
    assert told["path"] == "/hook"
    assert b"mint-backend%3Av0+has+1+finding" in told["body"]


def test_an_image_that_is_not_there_has_no_count(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """The registry is asked before the Lambda, which may count none for it."""
    done = invoke("check-image", "--tag=nowhere", "--via=lambda", **cloud.env)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "There is no mint-backend:nowhere in the registry of local."
    assert cloud.requests("lambda") == []


def test_a_file_of_waivers_has_a_bound(tmp_path: Path) -> None:
    """It is not read to its end."""
    path = tmp_path / "waivers.toml"
    path.write_bytes(b"#" * check_image.MOST)
    assert check_image.read_waivers(path) == ()
    path.write_bytes(b"#" * (check_image.MOST + 1))

    with pytest.raises(Refused, match="it is larger than 1,048,576 bytes"):
        check_image.read_waivers(path)


def test_without_a_running_version_the_error_has_the_healthchecks_url(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    cloud.fail(path="/api/v1/healthcheck", status=503, times=9)

    done = invoke("check-image", "--running", **cloud.env)

    assert done.returncode == 1
    assert "The running version of local is not known: http://127.0.0.1:" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [("--running", "--tag=v0"), ("--running", "--against-running")])
def test_flags_that_contradict_each_other_are_refused(words: tuple[str, ...], invoke: Invoke) -> None:
    """Before any request."""
    done = invoke("check-image", "--env=dev", *words)

    assert done.returncode == 2
    assert "--running checks the running version" in done.stderr.splitlines()[-1]


def test_a_dry_run_needs_neither_network_nor_credentials(invoke: Invoke) -> None:
    """It shows what it would read, and the payload for the function."""
    ecr = invoke("check-image", "--env=dev", "--tag=v1", "--fail-on=HIGH", "--dry-run")
    function = invoke("check-image", "--env=dev", "--tag=v1", "--via=lambda", "--dry-run")

    assert (ecr.returncode, function.returncode) == (0, 0), ecr.stderr + function.stderr
    assert "would read what the scan of mint-backend:v1 found, and wait up to 300 s for it" in ecr.stderr
    assert "would fail for every other finding of severity HIGH or higher" in ecr.stderr
    assert '  {"repository": "mint-backend", "imageTag": "v1"}' in function.stderr
