"""The history of an application as one HTML page, which needs no network and no JavaScript.

Everything that is shown becomes the text or an attribute of an element in `_e`, so that escaping is the serializer's
work. The page's own policy forbids scripts, and everything that would have to be loaded.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element, tostring

from msgspec import Struct

from scripts.ecs import receipts
from scripts.ecs.receipts import Receipt
from scripts.frame import text, version

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
# Verdicts that have a colour and a sign; others have those of ODD.
SIGNS = {receipts.SUCCEEDED: ("ok", "✓"), receipts.FAILED: ("bad", "✕"), receipts.TAKEN_BACK: ("back", "↩")}
ODD = ("odd", "?")
# Seconds between two marks of the time axis: the first of these that makes at most MARKS of them.
HOUR, DAY = 3600, 86400
STEPS, MARKS = (HOUR / 6, HOUR, 6 * HOUR, DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 365 * DAY, 3650 * DAY), 8
# Colours of the phases, and the least share of a bar, in percent, that is still seen.
HUES, LEAST = 8, 0.5
# The least share of a time line, in percent, that has room for a version.
NAMED = 7


class Lane(Struct, frozen=True):
    """What is known of an environment. receipts: newest first. note: why there are none, or what is left out."""

    environment: str
    receipts: tuple[Receipt, ...]
    note: str = ""


class Span(Struct, frozen=True):
    """A span of time, as Unix times."""

    begin: float
    end: float

    def at(self, moment: float) -> float:
        """Where a moment is in it, in percent."""
        return round(100 * (moment - self.begin) / (self.end - self.begin), 3)

    def marks(self) -> list[float]:
        """The moments that the axis names."""
        step = next(step for step in STEPS if (self.end - self.begin) / step <= MARKS or step == STEPS[-1])
        first = -int(-self.begin // step)
        return [number * step for number in range(first, int(self.end // step) + 1)]


def html(application: str, lanes: Sequence[Lane], now: float) -> bytes:
    """The page. now: Unix time."""
    begins = [one.started for lane in lanes for one in lane.receipts]
    span = Span(min([*begins, now - HOUR]), max([*begins, now]))
    hues = _hues(lanes)
    many = len(begins)
    title = f"{application}: deployments"
    head = _e(
        "head",
        _e("meta", charset="utf-8"),
        _e("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _e("meta", http_equiv="Content-Security-Policy", content=POLICY),
        _e("meta", name="color-scheme", content="light dark"),
        _e("title", title),
        _e("style", STYLE),
    )
    when = f"{many} run{'s' * (many != 1)}, {text.minute(span.begin)} to {text.minute(span.end)} UTC"
    body = _e(
        "body",
        _e("header", _e("h1", title), _e("p", when, class_="quiet"), _legend(hues)),
        *(_lane(lane, span) for lane in lanes),
        *(_table(lane, hues) for lane in lanes if lane.receipts),
    )
    page = tostring(_e("html", head, body, lang="en"), encoding="unicode", method="html")
    return f"<!doctype html>\n{page}\n".encode()


def _e(name: str, /, *content: Element | str, **attributes: object) -> Element:
    """An element. content: elements, and texts from anywhere. An attribute ends in _ where Python has its name."""
    made = Element(
        name, {key.rstrip("_").replace("_", "-"): text.plain(str(value)) for key, value in attributes.items()}
    )
    for part in content:
        if isinstance(part, Element):
            made.append(part)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + text.plain(part)
        else:
            made.text = (made.text or "") + (part if name == "style" else text.plain(part))
    return made


def _hues(lanes: Sequence[Lane]) -> dict[str, int]:
    """A colour for each kind of phase: the first word of its name, such as deploy, watch, release."""
    kinds = dict.fromkeys(_kind(phase.name) for lane in lanes for one in lane.receipts for phase in one.phases)
    return {kind: number % HUES for number, kind in enumerate(kinds)}


def _kind(name: str) -> str:
    return name.partition(" ")[0][:20]


def _sign(verdict: str) -> tuple[str, str]:
    return SIGNS.get(verdict, ODD)


def _legend(hues: dict[str, int]) -> Element:
    verdicts = [*((name, *both) for name, both in SIGNS.items()), ("other", *ODD)]
    return _e(
        "p",
        *(_e("span", _e("i", sign, class_=f"sign {kind}"), f" {name}") for name, kind, sign in verdicts),
        *(_e("span", _e("i", class_=f"swatch h{hue}"), f" {kind}") for kind, hue in list(hues.items())[:HUES]),
        class_="legend quiet",
    )


def _lane(lane: Lane, span: Span) -> Element:
    """An environment over time."""
    told = [_e("p", *_facts(lane), class_="quiet")] if lane.receipts else []
    note = [_e("p", lane.note, class_="note")] if lane.note else []
    return _e("section", _e("h2", lane.environment), *told, *note, *([_timeline(lane, span)] if lane.receipts else []))


def _table(lane: Lane, hues: dict[str, int]) -> Element:
    """The runs of an environment."""
    longest = max(one.seconds for one in lane.receipts) or 1.0
    runs = [_run(one, f"{lane.environment}-{number}", longest, hues) for number, one in enumerate(lane.receipts)]
    columns = ("when (UTC)", "who", "command", "version", "took", "", "verdict")
    headings = _e("div", *(_e("span", name) for name in columns), class_="run head quiet")
    return _e("section", _e("h2", f"{lane.environment}, newest first"), headings, *runs)


def _good(lane: Lane) -> list[Receipt]:
    """The runs after which a version ran well, newest first."""
    return [one for one in lane.receipts if one.service and one.is_good(one.service)]


def _facts(lane: Lane) -> Iterator[Element | str]:
    if good := _good(lane):
        last = good[0]
        yield "runs "
        yield _e("b", version.short(last.version), class_="mono")
        yield f" since {text.minute(last.started)}, by {last.actor or 'somebody'} · "
    well = sum(one.exit_code == 0 for one in lane.receipts)
    median = statistics.median(one.seconds for one in lane.receipts)
    yield f"{well} of {len(lane.receipts)} runs went well · median {_took(median)}"


def _timeline(lane: Lane, span: Span) -> Element:
    """Which version ran when, and a mark for each run, on the same axis for all environments."""
    good = [one for one in reversed(_good(lane)) if one.version]
    ends = [*(one.started for one in good[1:]), span.end]
    bands = [_band(one, span, end, number) for number, (one, end) in enumerate(zip(good, ends, strict=False))]
    dots = [
        _e(
            "a",
            _sign(one.verdict)[1],
            class_=f"dot {_sign(one.verdict)[0]}",
            href=f"#{lane.environment}-{number}",
            title=_told(one),
            style=f"left:{span.at(one.started)}%",
        )
        for number, one in reversed(list(enumerate(lane.receipts)))
    ]
    marks = [_e("span", _mark(mark, span), style=f"left:{span.at(mark)}%") for mark in span.marks()]
    return _e("div", *bands, *dots, _e("div", *marks, class_="axis quiet"), class_="timeline")


def _band(one: Receipt, span: Span, end: float, number: int) -> Element:
    begin, width = span.at(one.started), round(span.at(end) - span.at(one.started), 3)
    short = version.short(one.version)
    place = f"left:{begin}%;width:{width}%"
    return _e("span", short if width >= NAMED else "", class_=f"band mono b{number % 2}", style=place, title=short)


def _mark(mark: float, span: Span) -> str:
    shown = "%H:%M" if span.end - span.begin < 2 * DAY else "%d %b" if span.end - span.begin < 365 * DAY else "%b %Y"
    return time.strftime(shown, time.gmtime(mark))


def _told(one: Receipt) -> str:
    return f"{text.minute(one.started)} UTC: {one.command} of {version.short(one.version) or '-'}, {one.verdict}"


def _took(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _run(one: Receipt, name: str, longest: float, hues: dict[str, int]) -> Element:
    kind, sign = _sign(one.verdict)
    left = version.short(one.rolled_back_from)
    summary = _e(
        "summary",
        _e("time", text.minute(one.started), datetime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.started))),
        _e("span", one.actor or "-"),
        _e("span", one.command),
        _e("span", version.short(one.version) or "-", class_="mono"),
        _e("span", _took(one.seconds), class_="number"),
        _bar(one, longest, hues),
        _e("span", _e("i", sign, class_=f"sign {kind}"), f" {one.verdict}", f" (rollback from {left})" if left else ""),
        class_="run",
    )
    return _e("details", summary, _e("div", *_details(one, hues), class_="more"), id=name)


def _bar(one: Receipt, longest: float, hues: dict[str, int]) -> Element:
    """The phases of a run beside each other, as long as they took."""
    parts = [
        _e(
            "i",
            class_=f"h{hues[_kind(phase.name)]}",
            style=_width(phase.seconds, longest),
            title=_phase(phase),
        )
        for phase in one.phases
    ]
    rest = one.seconds - sum(phase.seconds for phase in one.phases)
    parts += [_e("i", class_="rest", style=_width(rest, longest), title="between the steps")] * (rest > 0)
    return _e("span", *parts, class_="bar")


def _width(seconds: float, longest: float) -> str:
    return f"width:{min(100.0, max(LEAST, 100 * seconds / longest)):.2f}%"


def _phase(phase: receipts.Phase) -> str:
    return f"{phase.name}: {phase.seconds:.1f} s"


def _details(one: Receipt, hues: dict[str, int]) -> Iterator[Element]:
    for reason in one.reasons:
        yield _e("p", reason, class_="why")
    rows = [
        _e(
            "tr",
            _e("td", _e("i", class_=f"swatch h{hues[_kind(phase.name)]}"), f" {phase.name}"),
            _e("td", f"{phase.seconds:.1f} s", class_="number"),
            _e("td", phase.result or "did not end"),
        )
        for phase in one.phases
    ]
    if rows:
        yield _e("table", _e("tbody", *rows))
    facts = [(name, value) for name, value in _known(one) if value]
    yield _e("dl", *(part for name, value in facts for part in (_e("dt", name), _e("dd", value, class_="mono"))))
    if one.run.startswith("https://"):
        yield _e("p", _e("a", "the workflow's run", href=one.run, rel="noreferrer"))


def _known(one: Receipt) -> Iterator[tuple[str, str]]:
    yield "version", one.version
    yield "image", one.digest
    revisions = [arn.rpartition("/")[2] for arn in (one.old_revision, one.new_revision)]
    yield "task definition", " → ".join(name for name in revisions if name)
    yield "release", one.release
    yield "rolled back from", one.rolled_back_from
    yield "promotion", one.promotion
    yield "proof", "; ".join(one.proof)
    for other in one.services:
        yield other.service, f"{other.verdict} {other.new_revision.rpartition('/')[2]}".strip()
    yield "exit code", str(one.exit_code)


STYLE = """
:root { --back: #fff; --text: #1f2328; --quiet: #656d76; --line: #d8dee4; --soft: #f6f8fa; --band: #eaeef2;
  --ok: #1a7f37; --bad: #cf222e; --undone: #bc4c00; --odd: #9a6700;
  --h0: #6cb6ff; --h1: #8ddb8c; --h2: #dcbdfb; --h3: #f69d50; --h4: #6bc4c4; --h5: #e0c34b;
  --h6: #f0a3b4; --h7: #a9b4c0 }
@media (prefers-color-scheme: dark) {
  :root { --back: #0d1117; --text: #e6edf3; --quiet: #8d96a0; --line: #30363d; --soft: #161b22; --band: #21262d;
    --ok: #3fb950; --bad: #f85149; --undone: #db6d28; --odd: #d29922;
    --h0: #316dca; --h1: #347d39; --h2: #8256d0; --h3: #ae5622; --h4: #2a7a7a; --h5: #8f7a1c;
    --h6: #a04a5e; --h7: #545d68 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 13px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { margin: 0; font-size: 18px } h2 { margin: 0; font-size: 15px } p { margin: .15rem 0; overflow-wrap: anywhere }
section { margin-top: 1.75rem; border-top: 1px solid var(--line); padding-top: .75rem }
.quiet { color: var(--quiet) } .quiet b { color: var(--text) }
.mono { font-family: ui-monospace, monospace; font-size: 12px }
.note, .why { color: var(--bad); overflow-wrap: anywhere }
.legend span { margin-right: 1rem; white-space: nowrap }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px }
.sign { font-style: normal; font-weight: 600 }
.ok { color: var(--ok) } .bad { color: var(--bad) } .back { color: var(--undone) } .odd { color: var(--odd) }
.timeline { position: relative; height: 4rem; margin: .6rem .5rem .4rem }
.band { position: absolute; top: 1.1rem; height: 1.3rem; padding: .1rem .4rem; overflow: hidden; white-space: nowrap;
  background: var(--band); color: var(--quiet); border-left: 1px solid var(--back) }
.band.b1 { background: var(--soft) }
.dot { position: absolute; top: 0; width: .8rem; height: .8rem; margin-left: -.4rem; border-radius: 50%;
  background: currentColor; box-shadow: 0 0 0 1px var(--back); font-size: 0; text-decoration: none }
.dot:hover, .dot:focus { z-index: 1; outline: 2px solid var(--text) }
.axis { position: absolute; top: 2.5rem; left: 0; right: 0; border-top: 1px solid var(--line); font-size: 11px }
.axis span { position: absolute; padding-top: .2rem; transform: translateX(-50%); white-space: nowrap }
.axis span::before { content: ""; position: absolute; top: 0; left: 50%; height: .25rem;
  border-left: 1px solid var(--line) }
.run { display: grid; grid-template-columns: 8.5rem 7rem 8rem 6rem 4rem minmax(6rem, 1fr) minmax(9rem, 16rem);
  gap: 0 .75rem; align-items: baseline; padding: .15rem .5rem }
.run > span, .run > time { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.run > span:last-child { white-space: normal }
.head { font-size: 11px } .number { text-align: right } .head span:nth-child(5) { text-align: right }
summary { cursor: pointer; border-top: 1px solid var(--line) } summary:hover { background: var(--soft) }
details:target > summary, details[open] > summary { background: var(--soft) }
.bar { display: flex; height: .7rem; align-self: center; border-radius: 2px } .bar i { flex: none; height: 100% }
.rest { background: var(--band) }
.h0 { background: var(--h0) } .h1 { background: var(--h1) } .h2 { background: var(--h2) } .h3 { background: var(--h3) }
.h4 { background: var(--h4) } .h5 { background: var(--h5) } .h6 { background: var(--h6) } .h7 { background: var(--h7) }
.more { padding: .25rem .5rem .9rem; background: var(--soft) }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0; vertical-align: top; overflow-wrap: anywhere }
td.number { white-space: nowrap }
dl { display: grid; grid-template-columns: fit-content(12rem) 1fr; gap: .1rem 1rem; margin: .5rem 0 0 }
dt { color: var(--quiet); overflow-wrap: anywhere } dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 50rem) {
  body { padding: .75rem } .head { display: none }
  .run { grid-template-columns: 1fr 1fr 1fr } .bar { grid-column: 1 / -1; order: 1 }
}
@media print { details > * { display: block } }
"""
