"""The page that a command leaves in GitHub Actions: how it ended, its steps over time, and where to look.

Plain data in, markdown out. Text from outside is sanitized here.
"""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from scripts.frame import text

# As text.markdown leaves them, but for those in the flags of a command, which people copy.
DIGEST = re.compile(r"(?<!=)sha256&#58;([0-9a-f]{64})")
COMMIT = re.compile(r"(?<!=)\b[0-9a-f]{40}\b")
ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([a-z0-9._/-]+)[:@]")


class Phase(Struct):
    """One of the steps that a command runs in a row. at, seconds: since the command began, and how long it took.

    now: what it did, empty if it failed.
    """

    name: str
    at: float
    seconds: float = 0.0
    now: str = ""


class Links(Struct, frozen=True):
    """Where a page leads. site: URL of the environment. commits: of those of the repository, without the hash.

    commit: that was worked on, or empty. images: URI -> digest of those that were worked on. console: whether the id of
    the account may be in a link. One that comes from a variable is a secret in Actions, and GitHub would mask it.
    """

    site: str
    commits: str
    commit: str
    images: Mapping[str, str]
    console: bool

    def of_image(self, uri: str, digest: str) -> str:
        """The page of an image: ECR's, else that of the commit that it was built from; empty for none."""
        found = ECR.match(uri) if self.console else None
        if found:
            account, region, name = found.groups()
            place = f"https://{region}.console.aws.amazon.com/ecr/repositories/private/{account}/{name}"
            return f"{place}/_/image/{digest}/details"
        return f"{self.commits}{self.commit}" if COMMIT.fullmatch(self.commit) else ""


def page(
    heading: str, error: str, steps: Sequence[tuple[str, str, float]], phases: Sequence[Phase], links: Links
) -> str:
    """The page of a command. error: empty if it succeeded. steps: name, what it did, seconds."""
    lines = [f"### {heading}", *reasons(error, links)]
    lines += ["", "| step | now | seconds |", "|---|---|---|"]
    lines += [f"| {text.markdown(name)} | {linked(now, links)} | {seconds:.1f} |" for name, now, seconds in steps]
    lines += ["", *timeline(phases), "", " · ".join(_where(links))]
    return "\n".join(lines)


def reasons(error: str, links: Links) -> list[str]:
    """The text of an error: its sentences, and the reasons below them as a list."""
    lines = list[str]()
    for line in filter(str.strip, error.splitlines()):
        word = line.strip()
        if line.startswith((" ", "\t")):
            lines.append(f"- {linked(word.removeprefix('- '), links)}")
        else:
            lines += ["", linked(word, links)]
    return lines


def linked(line: str, links: Links) -> str:
    """A line with its digests and commits as short as people read them, each leading to its page."""
    urls = {digest: links.of_image(uri, digest) for uri, digest in links.images.items()}

    def of_image(match: re.Match[str]) -> str:
        return _link(f"sha256&#58;{match[1][:7]}", urls.get(f"sha256:{match[1]}", ""))

    short = COMMIT.sub(lambda match: _link(match[0][:7], links.commits + match[0]), text.markdown(line))
    return DIGEST.sub(of_image, short)


def _link(shown: str, url: str) -> str:
    return f"[{shown}]({url})" if url else shown


def _where(links: Links) -> list[str]:
    """The site, the commit, and the images."""
    found = [_link(text.markdown(links.site), links.site)]
    if links.commit:
        found.append(_link(links.commit[:7], links.commits + links.commit))
    for uri, digest in links.images.items():
        name = re.split("[:@]", uri.rpartition("/")[2])[0]
        found.append(f"{text.markdown(name)} {_link(f'sha256&#58;{digest[7:14]}', links.of_image(uri, digest))}")
    return found


def timeline(phases: Sequence[Phase]) -> list[str]:
    """The steps as a chart over time, in lines of markdown; none for fewer than two.

    https://mermaid.js.org/syntax/gantt.html
    """
    if len(phases) < 2:
        return []
    lines = ["```mermaid", "gantt", "  dateFormat x", "  axisFormat %M:%S"]
    for phase in phases:
        # Other characters would end the name, or the chart.
        name = re.sub(r"[^\w'.,()/-]+", " ", phase.name).strip()
        begin, end = int(phase.at * 1000), int((phase.at + max(phase.seconds, 0.1)) * 1000)
        lines.append(f"  {name} :{'done' if phase.now else 'crit'}, {begin}, {end}")
    return [*lines, "```"]
