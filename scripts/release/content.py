"""Decides the headers of a file: its content type, and for how long it may be cached.

A name proves nothing: a file is cached forever only if a bundler's manifest or the settings say so, or if its name has
the form that a bundler writes and its hash is neither a number, a word, a date nor a size.
"""

import json
import re
from collections.abc import Container, Mapping
from fnmatch import fnmatchcase
from functools import cache

# Pinned, because mimetypes differ between machines, and a browser refuses a module with the wrong type.
# Sources: https://www.iana.org/assignments/media-types, RFC 9239 for JavaScript, the specifications of the formats.
_KINDS = """
application/atom+xml atom
application/epub+zip epub
application/feed+json jsonfeed
application/geo+json geojson
application/gpx+xml gpx
application/graphql-response+json
application/gzip gz tgz
application/java-archive jar
application/json json map topojson har
application/json5 json5
application/ld+json jsonld
application/manifest+json webmanifest
application/msword doc dot
application/octet-stream bin dat data pak mem symbols wad db sqlite deb rpm dmg iso img exe msi
application/pdf pdf ai
application/pgp-signature sig asc
application/postscript eps ps
application/rdf+xml rdf
application/rss+xml rss
application/rtf rtf
application/schema+json
application/sql sql
application/vnd.android.package-archive apk
application/vnd.apple.mpegurl m3u8
application/vnd.apple.pkpass pkpass
application/vnd.google-earth.kml+xml kml
application/vnd.google-earth.kmz kmz
application/vnd.lottie+zip lottie
application/vnd.mapbox-vector-tile mvt
application/vnd.ms-excel xls
application/vnd.ms-fontobject eot
application/vnd.ms-powerpoint ppt
application/vnd.oasis.opendocument.presentation odp
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.apache.parquet parquet
application/wasm wasm
application/x-7z-compressed 7z
application/x-bzip2 bz2
application/x-protobuf pb
application/x-tar tar
application/x-xz xz
application/xhtml+xml xhtml xht
application/xml xml xsd rng
application/xslt+xml xsl xslt
application/yaml yaml yml
application/zip zip
application/zstd zst
audio/aac aac
audio/flac flac
audio/midi mid midi
audio/mp4 m4a m4b
audio/mpeg mp3
audio/ogg oga ogg opus
audio/wav wav
audio/webm weba
font/collection ttc
font/otf otf
font/ttf ttf
font/woff woff
font/woff2 woff2
image/apng apng
image/avif avif
image/bmp bmp
image/gif gif
image/heic heic
image/heif heif
image/jpeg jpg jpeg jpe jfif
image/jxl jxl
image/ktx2 ktx2
image/png png
image/svg+xml svg
image/tiff tif tiff
image/vnd.adobe.photoshop psd
image/vnd.microsoft.icon ico cur
image/webp webp
model/gltf+json gltf
model/gltf-binary glb
model/obj obj
model/stl stl
model/vnd.usdz+zip usdz
text/calendar ics ical
text/css css
text/csv csv
text/html html htm
text/javascript js mjs cjs
text/markdown md markdown
text/plain txt text log conf ini cfg toml properties env LICENSE license lrc rst adoc tsx jsx vue svelte scss sass less
text/tab-separated-values tsv
text/vcard vcf vcard
text/vtt vtt
text/x-component htc
application/x-subrip srt
text/xml dtd
video/mp2t m2ts ts
video/mp4 mp4 m4v
video/mpeg mpeg mpg
video/ogg ogv
video/quicktime mov qt
video/webm webm
video/x-matroska mkv
video/x-msvideo avi
application/dash+xml mpd
application/opensearchdescription+xml osdx
application/wsdl+xml wsdl
application/xspf+xml xspf
application/x-ndjson ndjson jsonl
application/mathml+xml mathml mml
application/ogg ogx
application/x-shockwave-flash swf
application/x-x509-ca-cert crt cer der
application/x-pem-file pem
application/pkcs10 csr
application/x-bittorrent torrent
"""
TYPES = {ending: kind for kind, *endings in map(str.split, _KINDS.strip().splitlines()) for ending in endings}
UNKNOWN = "application/octet-stream"
UTF8 = {"application/json", "application/manifest+json", "application/xml", "image/svg+xml"}
# Compressed beforehand, with the type of what is inside.
ENCODINGS = {"br": "br"}
# Names without an ending, whose type is known from the name.
PLAIN = {"LICENSE", "LICENCE", "COPYING", "NOTICE", "README", "AUTHORS", "CHANGELOG", "CNAME", "VERSION", "REVISION"}
PLAIN |= {"_headers", "_redirects"}
WELL_KNOWN = ".well-known/"
# Files of Apple, which also looks for the first one outside of .well-known.
APPLE = {"apple-app-site-association"}

FOREVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"
YEAR = 31536000
MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d+)")

# A hash in lower-case hexadecimal digits, of one of the lengths that bundlers write: main.0123abcd.js, 0123abcd.png,
# main-0123456789abcdef.js. A letter and a digit must be in it.
DIGITS = (
    r"(?=[0-9]*[a-f])(?=[a-f]*[0-9])(?:[0-9a-f]{8}|[0-9a-f]{16}|[0-9a-f]{20}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})"
)
HEX_DIGITS = re.compile(DIGITS)
HEX = re.compile(
    rf"(?:^|[/.-])(?P<hash>{DIGITS})(?:\.(?:chunk|module|min|bundle|iframe\.bundle|async))?\.[A-Za-z0-9]+(?:\.map)?$"
)
# Vite, Rollup, esbuild: name-AbCd_-09.js; eight of the 64 characters of base64url, of which - and _ may be any.
# In their own folders Astro, SvelteKit and Nuxt write name.AbCd_-09.js or AbCd_-09.js, and Astro pictures with a
# second hash.
DASHED = re.compile(r"[^/]-(?P<hash>[A-Za-z0-9_-]{8})\.[A-Za-z0-9]+(?:\.map)?$")
OWN_FOLDER = re.compile(
    r"(?:^|/)(?:_astro|_app/immutable(?:/[a-z]+)*|_nuxt(?:/[a-z]+)?)/(?:[^/]+[.])?(?![0-9]{8})[\w-]{8}(?:_[A-Za-z0-9]{5,6})?"
    r"\.[A-Za-z0-9]+(?:\.map)?$"
)
# Angular's builder, which is esbuild: chunk-QWERTY23.js. Its hash may be a word.
ANGULAR = re.compile(r"(?:^|/)(?:chunk|main|polyfills|scripts|styles|worker)-[A-Z2-7]{8}\.(?:js|mjs|css)(?:\.map)?$")
# Next with Turbopack: 13 characters of 38, after a name or alone.
NEXT = re.compile(
    r"(?:^|/)_next/static/(?:chunks|css|media)/(?:[^/]+[.-])?(?P<hash>(?=[a-z_-]*[0-9])[0-9a-z_-]{13})\.[A-Za-z0-9]+(?:\.map)?$"
)
# What people name, and date, themselves.
DOCUMENTS = re.compile(
    r"\.(?:html?|xhtml|pdf|docx?|xlsx?|pptx?|od[pst]|csv|tsv|txt|md|rtf|xml|ics|epub|zip|gz|tgz|7z|tar|dmg|exe|msi|apk)$"
)
# Ordinary names: numbers and words, each in one case or in camel case. A random hash rarely looks like that.
WORD = r"(?:\d+|[A-Z]+\d*|[A-Z]?[a-z]+\d*|(?:[A-Z]?[a-z]{2,})(?:[A-Z][a-z]{2,})*\d*)"
WORDS = re.compile(rf"[-_]*{WORD}(?:[-_]+{WORD})*[-_]*")
# Dates such as 3Mar2024, years and quarters, sizes such as 1920x600 and 720p.
MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
ORDINARY = re.compile(
    rf"\d(?:{MONTH})|(?:{MONTH})[a-z]*[-_]?\d|(?:19|20)\d\d"
    r"|\d{2,5}[x×]\d{2,5}|(?<!\d)\d{1,5}(?:px|dpi|fps|hz|kb|mb|khz|mhz|kbps)(?![a-z])|\d{3,4}[pi](?![a-z])|v\d+[._-]\d",
    re.IGNORECASE,
)
# The same in hexadecimal digits: 1dec2024, 2024010a.
HEX_DATE = re.compile(r"\d{0,4}(?:feb|dec)\d{1,4}|(?:19|20)\d\d[01]\d[0-3]?\d?[a-f]{1,2}")
# The parts of a name: words, numbers and what is between them. A random hash has three or more.
PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[-_]+")
FEWEST = 3
# Words of three letters and more, and how many letters of a hash are in such words at most.
VOWEL, LONG_WORD, MOST_LETTERS = re.compile("[aeiou]", re.IGNORECASE), re.compile(r"[A-Z]?[a-z]{2,}"), 4
# A name with what may be a hash.
MAYBE = re.compile(r"[.-](?P<hash>[A-Za-z0-9_-]{8}|[0-9a-f]{16,64})\.[A-Za-z0-9]+$")


def content_type(key: str, content_types: Mapping[str, str]) -> str:
    """The Content-Type of a key, with the charset for text. Empty if its ending is not known.

    content_types: pattern -> type, which take precedence; the first match wins.
    """
    chosen = next((kind for pattern, kind in content_types.items() if fnmatchcase(key, pattern)), None)
    if chosen is not None:
        return str(chosen)
    name = key.rpartition("/")[2]
    inner, _, ending = name.rpartition(".")
    if ending in ENCODINGS:
        ending = inner.rpartition(".")[2]
    return _with_charset(TYPES.get(ending.lower(), "")) if inner else ""


def type_of(key: str, body: bytes) -> str:
    """The content type of a file whose name has no ending, by its content. Empty if that is not known."""
    name = key.rpartition("/")[2]
    if "." in name.lstrip("."):
        return ""
    if (WELL_KNOWN in f"/{key}" or name in APPLE) and _is_json(body):
        return _with_charset("application/json")
    if name.upper() in PLAIN or name in PLAIN or f"{WELL_KNOWN}acme-challenge/" in key:
        return _with_charset("text/plain")
    return ""


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        return False


def _with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in UTF8 else kind


def is_hashed(key: str) -> bool:
    """Whether a name contains a hash of the content, so that it may be cached forever. False when unsure."""
    if DOCUMENTS.search(key):
        return False
    found = HEX.search(key)
    if found:
        return is_hash(found["hash"])
    if ANGULAR.search(key) or OWN_FOLDER.search(key):
        return True
    found = NEXT.search(key)
    if found:
        return not (WORDS.fullmatch(found["hash"]) or is_ordinary(found["hash"]))
    found = DASHED.search(key)
    return bool(found and is_random(found["hash"]))


def is_hash(text: str) -> bool:
    """Whether a part of a name is surely a hash."""
    return not HEX_DATE.fullmatch(text) if HEX_DIGITS.fullmatch(text) else is_random(text)


def is_random(text: str) -> bool:
    """Whether a text looks random: it is no number, date or size, and is not made of words."""
    if WORDS.fullmatch(text) or is_ordinary(text) or len(PARTS.findall(text)) < FEWEST:
        return False
    return sum(len(word) for word in LONG_WORD.findall(text) if VOWEL.search(word)) <= MOST_LETTERS


def is_ordinary(text: str) -> bool:
    """Whether a text is a number, a date or a size."""
    if HEX_DIGITS.fullmatch(text):
        return bool(HEX_DATE.fullmatch(text))
    return text.isdigit() or bool(ORDINARY.search(text))


def may_be_hashed(key: str) -> bool:
    """Whether a name looks as if it had a hash, which is not sure enough."""
    found = MAYBE.search(key)
    return found is not None and not (is_hashed(key) or DOCUMENTS.search(key) or found["hash"].isdigit())


def headers(key: str, kind: str, cache_control: Mapping[str, str], emitted: Container[str] = ()) -> dict[str, str]:
    """The headers that a key is stored with. kind: its Content-Type.

    cache_control: pattern -> value, the first match wins. emitted: keys that a bundler has said to be hashed.
    """
    value = next((value for pattern, value in cache_control.items() if fnmatchcase(key, pattern)), None)
    if value is None:
        value = FOREVER if key in emitted or is_hashed(key) else ASK_FIRST
    # A setting is a str subclass that knows where it came from; only the plain text is stored.
    return _headers(kind, str(value), ENCODINGS.get(key.rpartition(".")[2], ""))


@cache
def _headers(kind: str, cache_control: str, encoding: str) -> dict[str, str]:
    """The same dict for all files with the same headers, to save memory."""
    found = {"Content-Type": kind, "Cache-Control": cache_control}
    return {**found, "Content-Encoding": encoding} if encoding else found


def is_immutable(stored: Mapping[str, str]) -> bool:
    """Whether a browser may keep a file with these headers for ever, because its content never changes."""
    value = stored.get("Cache-Control", "").lower()
    found = MAX_AGE.search(value)
    return "immutable" in value or bool(found and int(found[1]) >= YEAR)
