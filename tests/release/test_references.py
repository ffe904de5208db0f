"""What a build references: parsed from tokens, own files told apart from others, and what is missing."""

import hashlib
import importlib
import json
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from re._parser import parse  # type: ignore[import-not-found]
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scripts
from scripts.frame.errors import Refused
from scripts.release import bundles, javascript, pages, references, styles
from scripts.release.references import Certainty
from scripts.release.site import File, Site
from tests.conftest import EmbeddedCloud, Invoke

BUILDS = sorted((Path(__file__).parent / "builds").glob("*.json"))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Site]:
    """`build({"index.html": "<p>"})`: a folder with these files, and always an index.html."""

    def make(files: dict[str, str]) -> Site:
        found = {}
        for key, text in {"index.html": "", **files}.items():
            path = tmp_path / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            found[key] = File(str(path), path.stat().st_size, hashlib.sha256(text.encode()).hexdigest())
        return Site(str(tmp_path), found)

    return make


def missing(site: Site, base: str = "/") -> dict[str, Certainty]:
    """The keys that a site lacks, by how certain that is."""
    return {one.key: one.certainty for one in references.missing(site, base)}


def keys_in(key: str, text: str) -> set[str]:
    """The keys that a file references."""
    return {one.key for one in references.references_in(key, text)}


def split(words: str) -> set[str]:
    """The words of a text."""
    return set(words.split())


PAGES = [
    ('<script src="a.js"></script><script src=/b.js defer></script>', "sub/a.js b.js"),
    ('<link rel=stylesheet href="a.css?v=1#x"><link REL="Shortcut ICON" href=../i.ico>', "sub/a.css i.ico"),
    ('<link rel="modulepreload" href="/a.js"><link rel=preload as=font href=f.woff2 crossorigin>', "a.js sub/f.woff2"),
    ('<link rel=preload as=image imagesrcset="a.png 1x, b.png 2x" href="c.png">', "sub/a.png sub/b.png sub/c.png"),
    ('<link rel="apple-touch-icon" href="/t.png"><link rel="manifest" href="/site.webmanifest">',
     "t.png site.webmanifest"),
    ('<img src="a.png" srcset="b.png, c.png 1.5x , d.png 2x"><img srcset=",e.png 100w,">',
     "sub/a.png sub/b.png sub/c.png sub/d.png sub/e.png"),
    ('<img srcset="data:image/png;base64,aa,bb 1x, /a,b.png 2x, c.png calc(1, 2), d.png">',
     "a,b.png sub/c.png sub/d.png"),
    ('<picture><source srcset="/a.avif 1x"><img src="/a.png"></picture>', "a.avif a.png"),
    ('<video src=v.mp4 poster="/p.jpg"><track src=t.vtt></video><audio src=s.mp3></audio>',
     "sub/v.mp4 p.jpg sub/t.vtt sub/s.mp3"),
    ('<video><source src=/w.webm></video><table background=/b.png></table>', "w.webm b.png"),
    ('<object data="/o.svg"></object><embed src="/e.pdf"><iframe src="/f.html"></iframe>', "o.svg e.pdf f.html"),
    ('<svg><use href="/s.svg#a"/><use xlink:href="#b"/><image href="i.png"/></svg>', "s.svg sub/i.png"),
    ('<noscript><img src="/n.png"></noscript>', "n.png"),
    ('<html><frameset><frame src="/g.html"></frameset></html>', "g.html"),
    ('<link rel=mask-icon href=/m.svg><link rel=apple-touch-startup-image href=/s.png>', "m.svg s.png"),
    ('<link rel=apple-touch-icon-precomposed href=/p.png><input type=image src=/i.png>', "p.png i.png"),
    ("<style>@import 'a.css'; b { background: url(/b.png) }</style><p style=\"background:url('c.png')\">",
     "sub/a.css b.png sub/c.png"),
    ('<base href="/app/"><script src="a.js"></script><style>b{c:url(d.png)}</style>', "app/a.js app/d.png"),
    ('<base href="../"><base href="/x/"><img src="a.png">', "a.png"),
    ('<base href="https://cdn.example/"><img src="a.png"><script src="/b.js"></script>', ""),
    ('<base href="http://[::1"><img src="a.png">', "sub/a.png"),
    ('<script type="module">import "./a.js"; import("/b.js")</script>', "sub/a.js b.js"),
    ('<script>new Worker("w.js"); navigator.serviceWorker.register("/sw.js")</script>', "sub/w.js sw.js"),
    ('<script type="importmap">{"imports":{"a":"/a.js","b":"//x/b.js","c/":"/c/"},"scopes":{"/s/":{"d":"./d.js"}}}'
     "</script>", "a.js sub/d.js"),
    ('<script type="importmap">{"imports":{"a":"../a.js"}}</script>', "a.js"),
    ('<script type="importmap">[1,{"imports":3}</script>', ""),
    ('<script type=text/javascript>import"/a.js"</script><script type=" Application/JavaScript ">import"/b.js"</script>'
     '<script type=text/ecmascript>import"/c.js"</script><script src=/d.js>import"/e.js"</script>',
     "a.js b.js c.js d.js"),
    ('<script type="application/json">{"a":"import \'./a.js\'"}</script><script type=a/b>import"./b.js"</script>',
     ""),
    ('<script nomodule id="vite-legacy-entry" data-src="/l.js">System.import(x)</script>', "l.js"),
    ('<script id="vite-legacy-entry">import"/m.js"</script><script data-src="/n.js"></script>', "m.js"),
    ("<!-- <img src=a.png> --><textarea><img src=b.png></textarea><title><img src=c.png></title>", ""),
    ("<!--[if IE]><script src=ie.js></script><![endif]-->", ""),
    ('<a href="/help/">h</a><a href=a.pdf></a><area href=b.html><form action="c.html"></form>', ""),
    ('<link rel=canonical href="/d.html"><link rel="alternate" href="/feed.xml"><link rel=next href=2.html>', ""),
    ('<link rel=preload as=fetch href=/api/v1/user><link rel=preload href="/api/user.json">', ""),
    ('<link rel=prefetch href="/help.html"><link rel="dns-prefetch" href="//x.example">', ""),
    ('<img src="https://x.example/a.png"><img src="//x.example/b.png"><img src="data:image/png;base64,x/y.png">', ""),
    ('<img src=""><img src="#a.b"><img src="?a.b"><img src><iframe src="about:blank"></iframe>', ""),
    ('<iframe src="javascript:a.b"></iframe><img src="blob:a.b"><embed src="mailto:a@b.example">', ""),
    ('<img src="/v1.0/avatar"><script src="../v1.0/config"></script>', ""),
    ('<img src="/api/avatar"><iframe src="/embed/"></iframe><script src="/config"></script>', ""),
    ('<img src="{{ logo }}.png"><img src="<%= a %>.png"><img src="/${b}.png">', ""),
    ('<img src="a%20b.png"><img src="/%5Bc%5D.png"><img src="d&amp;e.png"><img src="f.png&#63;g">',
     "sub/a_b.png [c].png sub/d&e.png sub/f.png"),
    ('<img src=" /a.png\n"><img src="..\\b.png"><img src="./c/../d.png"><img src="/../../e.png">',
     "a.png b.png sub/d.png e.png"),
]  # fmt: skip


@pytest.mark.parametrize(("html", "keys"), PAGES, ids=[html[:50] for html, _ in PAGES])
def test_references_of_a_page(html: str, keys: str) -> None:
    """From elements, attributes, inline styles and scripts. Links and other origins are not the build's own files."""
    found = keys_in("sub/page.html", html)

    assert {key.replace(" ", "_") for key in found} == split(keys)


STYLES = [
    ("a{b:url(c.png)} a{b:url( \"d.png\" )} a{b:URL('/e.png')}", "css/c.png css/d.png e.png"),
    ("@import 'a.css'; @import \"b.css\" screen; @import url(c.css) layer(d); @IMPORT /* x */ 'e.css';",
     "css/a.css css/b.css css/c.css css/e.css"),
    ("a{b:url('a(1).png')} a{b:url(b\\(2\\).png)} a{b:url('c;{}.png')}", "css/a(1).png css/b(2).png css/c;{}.png"),
    ("a{b:image-set('a.png' 1x, url(b.png) type(\"image/c.png\") 2x); b:-webkit-image-set(url('d.png') 1x)}",
     "css/a.png css/b.png css/d.png"),
    ("a{b:-webkit-image-set('a.png' 1x, \"b.png\" 2x); c:src('c.png'); d:url('d.png' 'e.png')}",
     "css/a.png css/b.png css/c.png css/d.png"),
    ("a{b:(url(c.png)) [url(d.png)]} e{f:g(url(h.png))}", "css/c.png css/d.png css/h.png"),
    ("@font-face{src:url(f.eot?#iefix) format('embedded'), url(f.woff2)}", "css/f.eot css/f.woff2"),
    ("@media print{@supports (a:b){c{d:url(../e.png)}}}", "e.png"),
    ("/* url(old.png) */ a{b:c} /* @import 'd.css'; */", ""),
    ("a{content:\"see url(docs.png)\"} b{content:'@import \"c.css\"'}", ""),
    ("a{content:\"\\\"\"; b:url(c.png)} d{e:'/*'; f:url(g.png); h:'*/'}", "css/c.png css/g.png"),
    ("a{b:url(\"data:image/svg+xml,%3Csvg fill='url(%23g)'%3E\")} c{d:url(e.png)}", "css/e.png"),
    ("a{b:url(data:image/svg+xml;utf8,<svg/>;x)} c{d:url(e.png)}", "css/e.png"),
    ("a{b:url(#id)} c{d:url(filter.svg#id)} e{f:url()} g{h:url('')}", "css/filter.svg"),
    ("a{b:url(https://x.example/c.png)} d{e:url(//x.example/f.png)} @import url(//x.example/css?a=b.c);", ""),
    ("a{b:url(c d.png)} e{f:url(g.png)}", "css/g.png"),
    ("a{b:c('d.png'); --url: e; f:var(--url(g.png))}", ""),
    ("a{b:url(//x.example/*c.png)} d{e:url(f.png)}", "css/f.png"),
    ("@namespace svg \"http://x.example/a.b\"; @charset \"utf-8\"; a{b:url(c.png", "css/c.png"),
]  # fmt: skip


@pytest.mark.parametrize(("css", "keys"), STYLES, ids=[css[:50] for css, _ in STYLES])
def test_references_of_a_style_sheet(css: str, keys: str) -> None:
    """Only from url() and @import tokens, not from strings, comments or data URLs."""
    assert keys_in("css/a.css", css) == split(keys)


SCRIPTS = [
    # Imports, in each form that bundlers write.
    ('import{a}from"./a.js";import b from\'../b.js\';import"/c.mjs";export*from"./d.js"', "js/a.js b.js c.mjs js/d.js"),
    ('import("./a.js");x.import("./b.js");import(/* webpackChunkName: "c" */ "./c.js");import ( `./d.js` )',
     "js/a.js js/b.js js/c.js js/d.js"),
    ("import a from // why\n'./a.js';import/**/'./b.js'", "js/a.js js/b.js"),
    ('import d from "./a.json" with {type:"json"};export {e} from "./caf\\u00e9-\\x41.js"', "js/a.json js/café-A.js"),
    ("import './\\u{e9}.js';import './\\ud83d\\ude00.js';import './\\ud83d.js'", "js/é.js js/😀.js js/\ufffd.js"),
    ("import './a.js", ""),
    ("import './a.js\n;", ""),
    (f"import './{'a' * 1017}.js';import './{'b' * 1018}.js'", f"js/{'a' * 1017}.js"),
    ('import "vue";import "lodash.js";import "https://x.example/a.js";import("//x.example/b.js")', ""),
    ('import("./locale/"+l+".js");import("./a.js"+q);import(`./${b}.js`);import(c)', ""),
    ('import("./api/user");import("/route")', ""),
    # Comments and strings, and code that is not an import.
    ('const a="import B from \'./b.js\'",c=\'import("./c.js")\';', ""),
    ("const a=`import B from './b.js'`,c=`\n// ${`import \"./c.js\"`}`", ""),
    ('// import "./a.js"\n/* import("./b.js") */ throw Error("from \\"./c.js\\"")', ""),
    ('// from\n"./a.js";/* import */"./b.js";f(/* import( */"./c.js")', ""),
    ('Array.from("./a.js");reimport("./b.js");$import("./c.js");const d="./d.js";from("./e.js")', ""),
    # Template literals, nested, and the code in them.
    ('`${import("./a.js")}`;`a${`b${{c:import("./b.js")}}`}d`;import"./c.js"', "js/a.js js/b.js js/c.js"),
    ("`\\`${1}`;import'./a.js';`\\${`;import'./b.js'", "js/a.js js/b.js"),
    ("`${{'\"':1}}`;import'./a.js'", "js/a.js"),
    # Regular expressions and division.
    ("/'/.test(b);import'./a.js'", "js/a.js"),
    ("x=a--/2+'/';import'./a.js'", "js/a.js"),
    ("x=/[\"'`]/;import'./a.js'", "js/a.js"),
    ("x=/[/\"]/g.test(y);import'./a.js'", "js/a.js"),
    ("if(a)/[\"']/.test(b)&&c();import'./a.js'", "js/a.js"),
    ("a={}\n/\"/.exec(b);import'./a.js'", "js/a.js"),
    ("return/\"/;case/'/:import'./a.js'", "js/a.js"),
    ("x=[.../\"/.exec(y)];import'./a.js'", "js/a.js"),
    ("x=>/\"/;!/'/;a&&/`/;import'./a.js'", "js/a.js"),
    ("x=a/2;y=(a+b)/\"'\".length;z=c[0]/4;import'./a.js'", "js/a.js"),
    ("x=a++/2+'/';y=b.return/2+\"/\";z=1./2+'/';import'./a.js'", "js/a.js"),
    ("x=a /* b */ / 2 + '/';import'./a.js'", "js/a.js"),
    ("x=/a/g/2+'/';y=\"a\"/2+'/';z=`a`/2+'/';import'./a.js'", "js/a.js"),
    ("a = b\n/ c / '/';import'./a.js'", "js/a.js"),
    ("x='\\\\';y='\\\n';import'./a.js'", "js/a.js"),
    ("x='unclosed\nimport'./a.js'", "js/a.js"),
    # URLs relative to the script, workers, and the lists of Vite and SystemJS.
    ('new URL("a.png",import.meta.url);new URL(`./b.bin`, import.meta.url).href;new URL("c.js",""+import.meta.url)',
     "js/a.png js/b.bin js/c.js"),
    ('new URL("a.png",t.meta.url);new URL("b.js",document.currentScript&&c||document.baseURI)', "js/a.png js/b.js"),
    ('new URL("/v1.0/user.json",api);new URL("a.png",base);new URL("b.png")', ""),
    ('new Worker(new URL("/a/w.js",import.meta.url),{type:"module"});new Worker("/w.js");new SharedWorker(\'/s.js\')',
     "a/w.js w.js s.js"),
    ('navigator.serviceWorker.register("/sw.js",{scope:"/"});new Worker("relative-to-the-page.js")', "sw.js"),
    ('importScripts("a.js","./b.js","https://x.example/c.js")', "js/a.js js/b.js"),
    ('System.register(["./a.js","../b.js"],function(e){});System.register("n",["./c.js"],f)', "js/a.js b.js js/c.js"),
    ('const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["assets/a.js","assets/b.css"])))=>i.map(i=>d[i]);',
     "assets/a.js assets/b.css"),
    ('const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["./a.js","../b.css"])))=>i;const x=["./c.js"]',
     "js/a.js b.css"),
    ('function __vite__mapDeps(i){if(!__vite__mapDeps.viteFileDeps){__vite__mapDeps.viteFileDeps=["js/a.js"]}}',
     "js/a.js"),
    # A string that only looks like a bundler's file is a guess.
    ('const a="/assets/logo-Dk3l_9aZ.svg";e.exports=n.p+"static/media/b.0a1b2c3d.png"', ""),
]  # fmt: skip


@pytest.mark.parametrize(("script", "keys"), SCRIPTS, ids=[script[:50] for script, _ in SCRIPTS])
def test_references_of_a_script(script: str, keys: str) -> None:
    """Strings, comments, templates and regular expressions are told apart from code."""
    assert keys_in("js/a.js", script) == split(keys)


ICON = '{"icons": [{"src": "b.png"}]}'


@pytest.mark.parametrize(
    ("keys", "text", "found"),
    [
        ("a.html a.htm A.HTML index.html", '<img src="b.png">', {"b.png"}),
        ("a.css A.Css", "a { background: url(b.png) }", {"b.png"}),
        ("a.js a.mjs a.cjs A.JS", 'import "./b.js"', {"b.js"}),
        ("site.webmanifest manifest.json my-manifest.json", ICON, {"b.png"}),
        ("a.txt a.json a.svg html js", f'import "./b.js"; <img src="b.png"> url(b.png) {ICON}', set()),
    ],
)
def test_which_files_may_reference_others(keys: str, text: str, found: set[str]) -> None:
    """By the endings of their names."""
    assert {key: keys_in(key, text) for key in keys.split()} == dict.fromkeys(keys.split(), found)


def test_the_lists_of_a_bundler_are_relative_to_the_folder_of_its_build() -> None:
    """Vite's `assets/…` is relative to the root of its build; `./…` is relative to the script."""
    script = 'const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["assets/b.js","./c.js"])))=>i'

    assert keys_in("app/assets/a.js", script) == {"app/assets/b.js", "app/assets/c.js"}
    assert keys_in("a.js", script) == {"assets/b.js", "c.js"}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('a="/assets/logo-Dk3l_9aZ.svg"', {"assets/logo-Dk3l_9aZ.svg"}),
        ('n.p+"static/media/b.0a1b2c3d4e.png"', {"static/media/b.0a1b2c3d4e.png"}),
        ('["static/chunks/0a1b2c3d4e5f.js","./x-B1c2D3e4.js"]',
         {"static/chunks/0a1b2c3d4e5f.js", "assets/x-B1c2D3e4.js"}),
        ('a="/img/logo.png"', {"img/logo.png"}),
        # Names that are not files of the build: of a module, a locale, an API, or in a folder that does not exist.
        ('{"./af.js":1,"./zh-cn.js":2,"./datepicker-extended.js":3}', set()),
        ('a="react/cjs/react.production.min.js",b="/api/v1/export.pdf",c="/logo.png"', set()),
        ('a="/elsewhere/logo-Dk3l_9aZ.svg",b="/other/logo.png"', set()),
        ('a="/assets/logo-Dk3l_9aZ.svg"+b,c=`see /assets/logo-Dk3l_9aZ.svg`', set()),
    ],
)  # fmt: skip
def test_a_string_like_a_bundled_file_is_a_guess(build: Callable[..., Site], script: str, found: set[str]) -> None:
    """It is reported if its folder is in the build, so that a missing picture that a script imports is noticed."""
    folders = {f"{folder}/there.txt": "" for folder in ("assets", "static/media", "static/chunks", "img")}
    site = build({"index.html": "<script src=/assets/a.js></script>", "assets/a.js": script, **folders})

    assert missing(site) == dict.fromkeys(found, Certainty.GUESSED)


MANIFESTS = [
    # Create React App, webpack-manifest-plugin, and optional files.
    ("asset-manifest.json", {"files": {"main.js": "/js/a.js", "a.js.map": "/js/a.js.map", "x": "//cdn.example/b.js",
                                       "l": "/js/a.js.LICENSE.txt"}, "entrypoints": ["js/a.js"]}, "js/a.js"),
    ("asset-manifest.json", {"main.js": "./js/a.js", "main.css": "css/a%20b.css"}, "js/a.js css/a%20b.css"),
    ("app/asset-manifest.json", {"files": {"main.js": "./a.js"}}, "app/a.js"),
    # Vite 5 and later, and older versions.
    (".vite/manifest.json", {"src/a.js": {"file": "assets/a.js", "css": ["assets/a.css"], "assets": ["assets/[b].png"],
                                          "imports": ["_shared.js"], "dynamicImports": ["src/c.js"], "isEntry": True}},
     "assets/a.js assets/a.css assets/[b].png"),
    ("manifest.json", {"src/a.js": {"file": "assets/a.js", "src": "src/a.js"}}, "assets/a.js"),
    ("app/.vite/manifest.json", {"a": {"file": "a.js"}}, "app/a.js"),
    # Angular's service worker.
    ("ngsw.json", {"assetGroups": [{"urls": ["/a.js"]}], "hashTable": {"/a.js": "", "/i.png": ""}},
     "a.js i.png ngsw-worker.js"),
    ("app/ngsw-worker.js", {}, "app/ngsw.json"),
    ("sb-manager/runtime.js", {}, "index.json iframe.html"),
    # Next lists what each page loads, also for those that nothing links to.
    ("app/_next/static/id/_buildManifest.js", {"/a": ["static/chunks/a-0a1b2c3d.js", "static/css/%5Bb%5D.css"],
                                               "sortedPages": ["/a", "/_app"]},
     "app/_next/static/chunks/a-0a1b2c3d.js app/_next/static/css/[b].css"),
    # Other webpack plugins.
    ("manifest.json", {"main.js": "/js/main.0a1b2c3d.js", "main.css": "main.css"}, "js/main.0a1b2c3d.js main.css"),
    ("asset-manifest.json", {"main.js": {"src": "main.0a1b2c3d.js", "integrity": "sha384-x"}}, "main.0a1b2c3d.js"),
    ("asset-manifest.json", {"main.js": {"file": "main.0a1b2c3d.js", "size": 1}}, "main.0a1b2c3d.js"),
    # Other files of that name. A web app manifest is read only if a page links it.
    ("manifest.json", {"name": "x", "icons": [{"src": "missing.png"}]}, ""),
    ("data/manifest.json", {"a": {"file": "b.csv"}, "c": 1}, ""),
    ("ngsw.json", {"hashTable": ["/a.js"]}, ""),
    ("asset-manifest.json", {"files": 1}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("key", "document", "keys"), MANIFESTS)
def test_each_file_in_a_bundlers_manifest_must_exist(
    build: Callable[..., Site], key: str, document: object, keys: str
) -> None:
    """Whether or not something else references it; except source maps and licences."""
    assert missing(build({key: json.dumps(document)})) == dict.fromkeys(split(keys), Certainty.CERTAIN)


@pytest.mark.parametrize(("key", "document", "keys"), MANIFESTS)
def test_what_a_bundlers_manifest_lists(key: str, document: object, keys: str) -> None:
    """And what some scripts of bundlers load. Only these files are looked at."""
    assert keys_in(key, json.dumps(document)) >= split(keys)
    assert bool(bundles.references(key, json.dumps(document))) is bool(keys)
    assert bundles.may_list(key)
    assert not bundles.may_list(f"{key}x")


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"files":', "[]", "null", "\ufeff{}", "\x00"])
@pytest.mark.parametrize("key", ["asset-manifest.json", ".vite/manifest.json", "ngsw.json", "manifest.json"])
def test_a_manifest_that_is_not_a_bundlers_is_ignored(key: str, text: str) -> None:
    """It is not JSON, or another kind of document."""
    assert bundles.references(key, text) == []


def test_the_pictures_in_a_web_app_manifest_must_exist(build: Callable[..., Site]) -> None:
    """If a page links the manifest: icons, screenshots, and icons of shortcuts, relative to the manifest."""
    document = {
        "start_url": "/start.html",
        "icons": [{"src": "a.png"}, {"src": "/b.png"}, 3],
        "screenshots": [{"src": "https://x.example/c.png"}, {"src": "d.png"}],
        "shortcuts": [{"url": "/d.html", "icons": [{"src": "e.png"}]}],
    }
    site = build(
        {"index.html": '<link rel="manifest" href="/web/manifest.json">', "web/manifest.json": json.dumps(document)}
    )

    assert set(missing(site)) == {"web/a.png", "b.png", "web/d.png", "web/e.png"}


def test_references_of_every_page_are_followed(build: Callable[..., Site]) -> None:
    """Even through a style sheet that only a script of a page other than index.html references."""
    site = build(
        {
            "help/index.html": "<script type=module src=a.js></script>",
            "help/a.js": 'const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["./a.css"])))=>i',
            "help/a.css": "a{b:url(missing.png)}",
            "iframe.htm": "<script src=./gone.js></script>",
        }
    )

    with pytest.raises(Refused) as refused:
        references.check(site)
    assert "gone.js (in iframe.htm)" in str(refused.value)
    assert "help/missing.png (in help/a.css, for help/index.html)" in str(refused.value)


def test_a_file_that_an_import_map_replaces_need_not_exist(build: Callable[..., Site]) -> None:
    """Scripts import the plain name; the file that the map gives for it must exist."""
    page = '<script type="importmap">{"imports":{"/js/b.js":"/js/b-1.js"}}</script>'
    page += "<script type=module src=/js/a.js></script>"
    site = build({"index.html": page, "js/a.js": "import './b.js'"})

    assert missing(site) == {"js/b-1.js": Certainty.CERTAIN}


def test_files_that_only_scripts_reference_are_a_warning(
    build: Callable[..., Site], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with ten files and a count of the others."""
    script = "".join(f'import("./chunk{number}.js");' for number in range(13))
    site = build({"index.html": "<script type=module src=a.js></script>", "a.js": script})

    references.check(site)

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: scripts of the build reference files that are not in ")
    assert "chunk0.js (in a.js, for index.html)" in line
    assert line.endswith("chunk9.js (in a.js, for index.html) and 3 more")


def test_a_missing_file_that_a_page_needs_is_refused(build: Callable[..., Site]) -> None:
    """Exit code 2, one sentence with the file and the page, ten files, and a count of the others."""
    site = build({"index.html": "".join(f"<img src=a{number}.png>" for number in range(12))})

    with pytest.raises(Refused) as refused:
        references.check(site)
    assert refused.value.exit_code == 2
    assert f"needs files that are not in {site.folder}: a0.png (in index.html), " in str(refused.value)
    assert "a9.png (in index.html) and 2 more. If one is not the build's own: frontend.keep" in str(refused.value)


def test_missing_files_can_be_allowed_by_a_pattern(build: Callable[..., Site]) -> None:
    """For keys that the build is not meant to contain."""
    site = build({"index.html": "<script src=/env.js></script><img src=/docs/a.png>"})

    assert references.check(site, allowed=["env.js", "docs/*"]).excused == ("env.js", "docs/a.png")
    assert references.check(site, keep=["docs/*"], allowed=["env.js"]).excused == ("env.js",)
    assert references.check(site, keep=["*"]).needed == {"env.js", "docs/a.png"}
    with pytest.raises(Refused, match=r"not in .*: env\.js"):
        references.check(site, allowed=["docs/*"])


def test_a_build_for_another_base_path_is_recognized(build: Callable[..., Site]) -> None:
    """It is complete if it is served at the path that it was built for."""
    site = build(
        {"index.html": "<script src=/app/a.js></script><link rel=icon href=/app/i.ico>", "a.js": "", "i.ico": ""}
    )

    references.check(site, base="/app/")
    with pytest.raises(Refused, match="the build is made to be served at /app/, not at /"):
        references.check(site)


def test_names_that_need_escaping_in_urls_are_found(build: Callable[..., Site]) -> None:
    """As referencing and as referenced files."""
    site = build(
        {
            "index.html": "<img src='a%20b/c%23d%3Fe%25.png'><script src='a%20b/%5Bslug%5D.js'></script>",
            "a b/c#d?e%.png": "",
            "a b/[slug].js": "import './caf%C3%A9.js'",
            "a b/café.js": "",
            "x?y#z%/page.html": "<img src=i.png>",
            "x?y#z%/i.png": "",
        }
    )

    assert missing(site) == {}


@pytest.mark.parametrize("path", BUILDS, ids=lambda path: path.stem)
def test_a_real_build_passes_and_each_of_its_files_is_needed(
    path: Path, build: Callable[..., Site], capsys: pytest.CaptureFixture[str]
) -> None:
    """Builds of real bundlers. Without any one file the build is refused or warned of, as recorded."""
    recorded = json.loads(path.read_text())
    site = build(recorded["files"])
    references.check(site, base=recorded["base"])
    assert capsys.readouterr().err == ""

    for key in recorded["files"].keys() - {"index.html"}:
        less = Site(site.folder, {other: file for other, file in site.files.items() if other != key})
        found = missing(less, recorded["base"])
        if key in recorded["not_needed"] or key.endswith(".map"):
            assert found == {}
        else:
            assert set(found) == {key}
            assert (found[key] is Certainty.CERTAIN) == (key not in recorded["needed_by_scripts"]), key


def test_release_static_refuses_a_broken_page_and_warns_of_a_broken_script(
    cloud: EmbeddedCloud, invoke: Invoke, build: Callable[..., Site]
) -> None:
    """On the command line. If it refuses, nothing is written."""
    site = build({"index.html": "<script type=module src=a.js></script>", "a.js": "import('./b.js')"})
    words = ("release-static", "--no-build", f"--build-dir={site.folder}")

    warned = invoke(*words, **cloud.env)
    build({"index.html": "<script src=c.js></script>"})
    puts = len(cloud.requests("s3", "PutObject"))
    refused = invoke(*words, **cloud.env)

    assert warned.returncode == 0, warned.stderr
    assert "b.js (in a.js, for index.html)" in warned.stderr
    assert refused.returncode == 2
    assert "c.js (in index.html)" in refused.stderr.splitlines()[-1]
    assert len(cloud.requests("s3", "PutObject")) == puts


READERS: dict[str, Callable[[str], object]] = {
    "script": lambda text: list(javascript.references(text)),
    "style": lambda text: list(styles.references(f"a{{b:url(c)}}{text}")),
    "style in one piece": lambda text: list(styles.references(f"url({text}")),
    "page": pages.read,
    "srcset": lambda text: list(pages.srcset(text)),
    "web manifest": pages.web_manifest,
    "bundler's manifest": lambda text: bundles.references("asset-manifest.json", text),
    "key": lambda text: list(references.references_in(text, text)),
    "script in a page": lambda text: list(references.references_in("a.html", f"<base href='{text}'><script>{text}")),
}  # fmt: skip
PIECES = [
    *"<>/\\'\"`(){}[];:,.=$*!@#?&% \n\r\t\0é\u2028\ud83d🎉-+_",
    *("//", "/*", "*/", "${", "<!--", "-->", "]]>", "url(", "@import", "image-set(", "import(", "from", "new URL("),
    *("import.meta.url", "__vite__mapDeps", "m.f=[", "return", "</", "<a ", "<div>", "<script>", "<style>", "<base"),
    *("a.js", "./a.js", "/b-0a1B2c3d.png", "\\u", "\\u{110000}", "\\x4", "\\75", "http://[", "data:", "%", "%ff", "{{"),
]  # fmt: skip
ODD = st.one_of(
    st.text(),
    st.binary().map(lambda content: content.decode("utf-8", "replace")),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@given(text=ODD)
@settings(max_examples=150)
def test_no_text_makes_a_parser_raise(reader: Callable[[str], object], text: str) -> None:
    reader(text)


def test_what_the_import_map_of_a_page_replaces_may_be_missing(build: Callable[..., Site]) -> None:
    """Each of these is imported, and only the last one is not replaced."""
    imports = {"/old.js": "/new.js", "./beside.js": "/new.js", "../above.js": "/new.js"}
    page = (
        f'<script type="importmap">{json.dumps({"imports": imports})}</script><script type=module src=/a.js></script>'
    )
    script = 'import "/old.js"; import "./beside.js"; import "../above.js"; import "./gone.js"'

    assert missing(build({"index.html": page, "a.js": script, "new.js": ""})) == {"gone.js": Certainty.LIKELY}


@pytest.mark.parametrize(
    ("key", "size", "read"),
    [
        ("index.html", references.LARGEST, True),
        ("index.html", references.LARGEST + 1, False),
        ("help.css", references.LARGEST + 1, False),
        ("a.js", references.LARGEST + 1, True),
        ("a.js", references.LARGEST_SCRIPT, True),
        ("a.js", references.LARGEST_SCRIPT + 1, False),
        ("a.txt", 1, False),
    ],
)
def test_very_large_files_are_not_read(key: str, size: int, read: bool, tmp_path: Path) -> None:
    """Nor those that reference nothing."""
    path = tmp_path / "file"
    path.write_bytes("ü".encode() + b"\xff")
    site = Site(str(tmp_path), {key: File(str(path), size, "")})

    assert references._text(site, key) == ("ü\ufffd" if read else "")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    site = Site(str(tmp_path), {"index.html": File(str(tmp_path / "gone"), 1, "")})

    with pytest.raises(Refused, match=f"^{tmp_path}/gone cannot be read: No such file or directory\\.$"):
        references.check(site)


@pytest.mark.parametrize(("number", "more"), [(1, ""), (10, ""), (11, " and 1 more"), (12, " and 2 more")])
def test_the_first_missing_files_are_named(number: int, more: str, build: Callable[..., Site]) -> None:
    site = build({"index.html": "".join(f"<img src={name:02}.png>" for name in range(number))})

    with pytest.raises(Refused) as refused:
        references.check(site)

    shown = ", ".join(f"{name:02}.png (in index.html)" for name in range(min(number, 10)))
    assert f"that are not in {site.folder}: {shown}{more}. If one is not" in str(refused.value)


@pytest.mark.parametrize(
    ("page", "advised"),
    [
        ("<img src=/app/a.png><img src=/app/b.png>", True),
        ("<img src=/app/a.png><img src=/app/gone.png>", False),
        ("<img src=/app/a.png><img src=/other/b.png>", False),
        ("<img src=/gone.png>", False),
    ],
)
def test_a_build_for_another_path_gets_advice(page: str, advised: bool, build: Callable[..., Site]) -> None:
    """If all that is missing is there without one folder."""
    with pytest.raises(Refused) as refused:
        references.check(build({"index.html": page, "a.png": "", "b.png": ""}))

    advice = "They are there without app/: the build is made to be served at /app/, not at /."
    assert (advice in str(refused.value)) is advised


def test_what_an_import_map_gives_another_url() -> None:
    """Not folders, nor what is no URL. Those of other origins and of packages are no files of the build."""
    imports = {"a": "/a.js", "b/": "/b/", "c": 3, "d": "../d.js", "e": "https://x.example/e.js", "f": "./f.js"}
    page = pages.read(f'<script type="importmap">{json.dumps({"imports": imports})}</script>')

    assert (page.replaced, page.certain) == (["a", "d", "e", "f"], ["/a.js", "../d.js", "./f.js"])


def test_what_a_page_may_load_is_a_guess() -> None:
    """What is fetched later may be another page, or an API's response."""
    links = ("prefetch href=/a.js", "preload as=fetch href=/b.json", "preload href=/c", "preload as=Script href=/d.js")
    page = pages.read("".join(f"<link rel={link}>" for link in links))

    assert (page.guessed, page.certain) == (["/a.js", "/b.json", "/c"], ["/d.js"])


PATHOLOGICAL = [
    *("<", "/", "(", "{", "[", "`", '"', "'", "\\", " ", "\n", "/*", "//", "/*/", "<!--", "<a ", "<div>", "<div></b>"),
    *("</div>", "<script>", "<style>", "<template>", "${", "`${", "`${`", "}", '"\\', "=/", "=/[", ")/[", ")/a", "]/"),
    *("\n/", "url(", 'url("', "@import ", "image-set(", "a,", ", ", "import(", '"./a.js",', "'a.b'+", "new URL(", "{{"),
    *("&", "%", "../", "-A", "{a:", "\\75", "__vite__mapDeps [", '["./a-0A1b2c3d.js",', '{"a":', "a/*b*/"),
]


@pytest.mark.parametrize("piece", PATHOLOGICAL)
def test_repeated_text_is_parsed_in_linear_time(piece: str) -> None:
    """50,000 characters take no parser more than 1 s of CPU time."""
    text = piece * (50_000 // len(piece))
    for name, reader in READERS.items():
        began = time.process_time()
        reader(text)
        assert time.process_time() - began < 1, name


@pytest.mark.parametrize("piece", ["<", "/*", "`", "("])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_megabyte_of_repeated_text_is_parsed_quickly(reader: Callable[[str], object], piece: str) -> None:
    """No parser takes more than 5 s of CPU time."""
    began = time.process_time()
    reader(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "name",
    [
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
        *("dd", "dt", "li", "option", "p", "td", "th", "tr"),
    ],
)
def test_elements_that_need_no_end_are_not_nested(name: str) -> None:
    """However many a page has of them."""
    assert keys_in("index.html", f"<{name}>" * 6000 + '<img src="a.png">') == {"a.png"}


@pytest.mark.parametrize(
    ("html", "depth"),
    [
        ("", 0),
        ("x</div>", 0),
        ("<div>", 1),
        ("<DIV></div><div>", 1),
        ("<div><b>", 2),
        ("<div><b></b><i></i><u>", 2),
        ("<div></b></b><b></div></b><i>", 2),
        ("<div></div></div><div><b>", 2),
        ("<div><div></div></div><b><i>", 2),
        ("<div><div></div><b><i>", 3),
        ("<br><p><div>", 1),
    ],
)
def test_how_deep_a_page_is_nested(html: str, depth: int) -> None:
    """An end tag without its element closes none."""
    assert pages._depth(html) == depth


def test_a_page_that_is_nested_too_deeply_is_not_parsed() -> None:
    """The parser would take minutes. Pages as deep as real ones are parsed."""
    assert pages.read("<div>" * 6000 + "<img src=a.png>").certain == []
    assert pages.read("<div>" * 1000 + "<img src=a.png>").certain == ["a.png"]
    assert pages.read("<br><p><img src=a.png>" * 6000).certain == ["a.png"] * 6000


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """The regular expressions of all modules of scripts/, by module and name."""
    for _, name, is_package in pkgutil.walk_packages(scripts.__path__, "scripts."):
        for key, value in ({} if is_package else vars(importlib.import_module(name))).items():
            for one in value.values() if isinstance(value, dict) else [value]:
                if isinstance(one, re.Pattern):
                    yield f"{name}.{key}", one


# What a repetition may repeat possessively: one character.
CHARACTER = (["IN"], ["LITERAL"], ["NOT_LITERAL"], ["ANY"])


def repeats_a_group_possessively(parsed: Any) -> bool:
    """Whether a parsed expression has a possessive repetition of more than one character."""
    for op, argument in parsed:
        if str(op) == "POSSESSIVE_REPEAT" and [str(inner) for inner, _ in argument[2]] not in CHARACTER:
            return True
        parts = argument if isinstance(argument, (tuple, list)) else [argument]
        inside = [one for part in parts for one in (part if isinstance(part, list) else [part])]
        if any(isinstance(one, type(parsed)) and repeats_a_group_possessively(one) for one in inside):
            return True
    return False


def test_no_expression_repeats_a_group_possessively() -> None:
    """Such a search never ends in Python 3.11.0 to 3.11.4: https://github.com/python/cpython/issues/106052"""
    found = dict(patterns())

    assert "scripts.release.styles.PIECE" in found
    assert repeats_a_group_possessively(parse("x|(?:ab|c)*+"))
    assert [name for name, one in patterns() if repeats_a_group_possessively(parse(one.pattern, one.flags))] == []
