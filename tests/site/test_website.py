"""The built website, as browsers and link checkers see it."""

from __future__ import annotations

import functools
import http.server
import json
import posixpath
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, TimeoutError

from analysis.affinity import affinity
from skis.build import build
from skis.settings import Checkout
from taxonomy.entries.checks import OUT_OF_SCOPE_NAME
from tests.browser import chromium, launched
from tests.checkouts import new_checkout, write_entry
from tests.hostile import ENTRIES, PAYLOADS, hostile_kernels

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PAGES = [
    *("index.html", "taxonomy/index.html", "taxonomy/temporal/index.html", "taxonomy/kvcc/index.html"),
    *("taxonomy/kvcc/quantization.html", "taxonomy/kvs/index.html", "objectives/index.html", "objectives/energy.html"),
    *("venues/index.html", "venues/icml.html", "papers/index.html", "years/2024.html", "papers/kivi.html"),
    *("papers/hotprefix.html", "data.html", "about.html", "zh/index.html", "zh/papers/kivi.html", "zh/data.html"),
    *("kernels/index.html", "zh/kernels/index.html", "out-of-scope.html", "zh/out-of-scope.html", "papers/dopd.html"),
    *("analysis/index.html", "analysis/affinity.html", "analysis/effects.html", "analysis/timeline.html"),
    *("analysis/openings.html", "analysis/gains.html", "analysis/survey.html", "zh/analysis/openings.html"),
    "zh/taxonomy/kvrm/eviction.html",
]
CHARTED = [f"analysis/{topic}.html" for topic in ("affinity", "effects", "timeline", "openings", "gains")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("NO CHROMIUM IS INSTALLED: the website was not looked at in a browser (`make browser`)")
    with launched(program) as browser:
        yield browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def end_headers(self):  # a browser then asks once for what all pages share
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()


@pytest.fixture(scope="module")
def serve() -> Iterator:
    """Serve a folder below a path, as Pages of a project do; returns the address."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="module")
def address(website: Checkout, serve, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "atlas").symlink_to((website.build / "site").resolve())
    return serve(folder) + "atlas/"


def new_page(browser: Browser, size: str = "desktop", scheme: str = "light", **options) -> tuple[Page, list[str]]:
    """Open an empty page; the list gathers what goes wrong: failed or foreign requests, errors of scripts, dialogs."""
    page = browser.new_context(viewport=SIZES[size], color_scheme=scheme, **options).new_page()
    wrong: list[str] = []
    ours = ("http://127.0.0.1:", "file:", "data:", "blob:", "about:")
    page.on("request", lambda r: None if r.url.startswith(ours) else wrong.append(r.url))
    page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("requestfailed", lambda r: None if "ERR_ABORTED" in (r.failure or "") else wrong.append(f"failed {r.url}"))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("dialog", lambda d: (wrong.append(f"dialog {d.message}"), d.dismiss()))
    return page, wrong


def open_page(
    browser: Browser, url: str, size: str = "desktop", scheme: str = "light", **options
) -> tuple[Page, list[str]]:
    page, wrong = new_page(browser, size, scheme, **options)
    page.goto(url)
    return page, wrong


def open_search(page: Page) -> Locator:
    """Open the search as a person does, and wait until it is ready."""
    field = page.locator(".md-search__input")
    field.click()
    page.locator(".md-search-result__meta", has_not_text=re.compile("Initializing|初始化")).wait_for(timeout=20_000)
    return field


def search(page: Page, words: str, expected: str) -> list[str]:
    """Type `words`, wait for a result whose address has `expected` in it, and return the addresses of all results."""
    field = page.locator(".md-search__input")
    field.fill(words)
    field.press("End")  # the search listens to keys; a Chinese character comes without one of its own
    page.locator(f".md-search-result__link[href*='{expected}']").first.wait_for(state="attached", timeout=20_000)
    return page.locator(".md-search-result__link").evaluate_all("links => links.map(a => a.href)")


def test_no_link_within_the_site_is_broken(website: Checkout):
    site = (website.build / "site").resolve()
    lychee = Path(sys.executable).parent / "lychee"
    command = [lychee, "--offline", "--no-progress", "--root-dir", site, "--index-files", "index.html"]
    run = subprocess.run([*command, "--include-fragments", site], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert " 0 Errors" in run.stdout


def test_every_page_is_reached_from_the_home_page(website: Checkout, atlas):
    """Following links in the content and the navigation, from index.html; old addresses are only for old links."""
    site = (website.build / "site").resolve()
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html", "zh/404.html"}
    found, todo = {"index.html"}, ["index.html"]
    while todo:
        page = todo.pop()
        for href in re.findall(r'<a\b[^>]*?href="([^"#:?]+)', (site / page).read_text(encoding="utf-8")):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), href))
            if target in pages and target not in found:
                found.add(target)
                todo.append(target)
    old = {f"papers/{item.former_id}.html" for item in atlas.out_of_scope if item.former_id} | {"left-out.html"}
    assert pages - found == {f"{language}{path}" for path in old for language in ("", "zh/")}


def test_the_sitemap_has_every_page_but_those_that_moved(website: Checkout):
    site = (website.build / "site").resolve()
    for language in ("", "zh/"):
        listed = set(re.findall(r"<loc>(.*)</loc>", (site / language / "sitemap.xml").read_text(encoding="utf-8")))
        pages = {path.relative_to(site / language).as_posix() for path in (site / language).rglob("*.html")}
        pages = {path for path in pages if language or not path.startswith("zh/")} - {"404.html", "left-out.html"}
        assert listed == {f"{website.site_url}{language}{path}" for path in pages}


def test_nothing_is_loaded_from_another_host(website: Checkout):
    """No page, style or script names another host in a place that a browser loads from."""
    site = (website.build / "site").resolve()
    loads = re.compile(
        r'<(?:script|img|iframe|source|video|audio|embed|object|link)\b[^>]*?(?:src|href|data)="(https?:)?//[^"]*"'
    )
    for path in site.rglob("*.html"):
        for match in loads.finditer(path.read_text(encoding="utf-8")):
            assert 'rel="canonical"' in match[0], (path, match[0])
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


@dataclass
class Visit:
    """What was seen of one page: what went wrong, what the browser measured, and labels of charts in the way."""

    wrong: list[str]
    headings: int
    width: int
    description: str
    labels: list = field(default_factory=list)


EMPTY_INDEX = '{"config": {"lang": ["en"], "separator": " ", "pipeline": [], "fields": {}}, "docs": []}'


@pytest.fixture(scope="module")
def visits(browser, address) -> dict[tuple[str, str], Visit]:
    """Every page of PAGES, opened on a desktop and resized to a phone, where charts are drawn anew."""
    seen = {}
    page, wrong = new_page(browser)
    # The index of the search, which the tests of the search load, costs more than all else of a page: here it is empty.
    page.route("**/search_index.json", lambda route: route.fulfill(body=EMPTY_INDEX))
    for path in PAGES:
        for size, viewport in SIZES.items():
            wrong.clear()
            page.set_viewport_size(viewport)
            if path in CHARTED or size == "desktop":
                page.goto(address + path)
            labels = settled_labels(page) if path in CHARTED else []
            facts = page.evaluate(
                """() => [document.querySelectorAll("h1").length, document.documentElement.scrollWidth,
                          document.querySelector("meta[name=description]")?.content]"""
            )
            seen[path, size] = Visit([*wrong], *facts, labels)
    page.context.close()
    return seen


def settled_labels(page: Page) -> list:
    """Wait until every chart is drawn and its labels are where they belong; return those that stay in the way."""
    drawn = (
        f"document.querySelectorAll('.sk-chart__plot:not(:has(.main-svg))').length || ({LABELS_IN_THE_WAY})().length"
    )
    try:
        page.wait_for_function(f"!({drawn})", timeout=10_000)
    except TimeoutError:
        return page.evaluate(LABELS_IN_THE_WAY) or ["a chart is not drawn"]
    return []


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_error_and_fits_the_screen(page, size, visits):
    visit = visits[page, size]
    assert visit.wrong == []
    assert visit.headings == 1
    assert visit.width <= SIZES[size]["width"]
    assert visit.description


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("page", CHARTED)
def test_labels_of_charts_neither_overlap_nor_leave_the_picture(page, size, visits):
    """Measured on what the browser laid out; the points of a scatter have no labels."""
    assert visits[page, size].labels == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["papers/hotprefix.html", "kernels/index.html", "analysis/index.html", "taxonomy/cdo/index.html"]
)
def test_text_has_contrast(path, scheme, browser, address):
    """WCAG AA for the atlas's own pieces, measured on what the browser computed."""
    page, _ = open_page(browser, address + path, scheme=scheme)
    low = page.evaluate(
        """() => {
        const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
        const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const back = (e) => { for (; e; e = e.parentElement) {
            const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.9) return c; }
            return [255, 255, 255]; };
        return [...document.querySelectorAll('.md-content :is(a, p, span, h1, h2, th, td, time)')]
            .filter((e) => e.innerText && !e.classList.contains('headerlink') && e.offsetParent)
            .map((e) => { const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(back(e))].sort((x, y) => y - x);
                return [e.className || e.tagName, (a + 0.05) / (b + 0.05)]; })
            .filter(([, ratio]) => ratio < 4.5); }"""
    )
    assert low == []
    page.context.close()


@pytest.mark.browser
def test_search_finds_a_paper_whatever_marks_are_typed_beside_its_name(browser, address):
    """Lunr reads some marks as operators, and would refuse a query that ends in one or has it in a wrong place."""
    page, wrong = open_page(browser, address + "index.html")
    field = open_search(page)
    for query in (
        "KIVI",
        "{%- KIVI",
        "KIVI ++",
        "KIVI -",
        "KIVI:",
        "zq:KIVI",
        "KIVI^zq",
        "KIVI~zq",
        "* KIVI",
        "\\ KIVI",
    ):
        assert "papers/mooncake.html" in search(page, "Mooncake", "papers/mooncake")[0]
        field.fill(query.replace("KIVI", ""))
        field.press("End")
        assert "papers/kivi.html" in search(page, query, "papers/kivi")[0], query
    assert wrong == []
    page.context.close()


@pytest.mark.browser
def test_search_finds_chinese_and_english_text_on_the_chinese_pages(browser, address):
    page, wrong = open_page(browser, address + "zh/index.html")
    open_search(page)
    links = search(
        page, "无损压缩 逃逸流", "papers/splitzip"
    )  # words of one paper among many about lossless compression
    assert all("/zh/" in link for link in links)
    assert "zh/papers/mooncake.html" in search(page, "Mooncake", "papers/mooncake")[0]
    assert "zh/papers/lazyeviction.html" in " ".join(search(page, "eviction", "papers/lazyeviction"))
    assert wrong == []
    page.context.close()


@pytest.mark.browser
def test_bibtex_can_be_copied(browser, address):
    page, _ = open_page(browser, address + "papers/kivi.html", permissions=["clipboard-read", "clipboard-write"])
    page.locator("#cite ~ .highlight").hover()
    page.locator("#cite ~ .highlight [data-md-type=copy], #cite ~ .highlight .md-clipboard").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip().startswith("@inproceedings{kivi,")
    assert copied.strip().endswith("}")
    page.context.close()


@pytest.mark.browser
def test_the_language_switch_leads_to_the_same_page(browser, address):
    page, wrong = open_page(browser, address + "papers/kivi.html")
    page.locator(".sk-language").click()
    page.wait_for_url("**/zh/papers/kivi.html")
    assert page.locator("html").get_attribute("lang") == "zh"
    page.locator(".sk-language").click()
    page.wait_for_url(lambda url: url.endswith("/atlas/papers/kivi.html"))
    assert wrong == []
    page.context.close()


@pytest.mark.browser
def test_the_dark_scheme_is_the_readers_choice(browser, address):
    for scheme, name in (("dark", "slate"), ("light", "default")):
        page, _ = open_page(browser, address + "index.html", scheme=scheme)
        assert page.locator("body").get_attribute("data-md-color-scheme") == name
        page.context.close()


def drawn(page: Page, chart: str) -> Locator:
    """Wait until a chart is drawn."""
    figure = page.locator(f"[data-chart={chart}]")
    figure.locator(".main-svg").first.wait_for(timeout=20_000)
    return figure


@pytest.mark.browser
def test_a_click_on_a_line_lists_its_papers_and_the_address_keeps_it(browser, address, atlas):
    pair = affinity(atlas).edges[0]
    page, wrong = open_page(browser, address + "analysis/affinity.html")
    figure = drawn(page, "affinity")
    figure.locator("text", has_text=f"{pair.affinity:.2f}").first.click(force=True)
    found = figure.locator(".sk-found li")
    found.first.wait_for()
    assert found.count() == pair.observed
    assert page.url.endswith(f"#affinity/{pair.key}")
    sent = page.url
    page.goto("about:blank")
    page.goto(sent)
    assert drawn(page, "affinity").locator(".sk-found li").count() == pair.observed
    assert wrong == []
    page.locator("[data-chart=affinity] .sk-found a").first.click()
    page.wait_for_url("**/papers/**")
    assert page.locator("h1").inner_text().startswith(pair.papers[0].title)
    page.context.close()


@pytest.mark.browser
def test_a_circle_leads_to_its_behavior_and_a_row_of_the_table_to_its_papers(browser, address, atlas):
    pair = affinity(atlas).pairs[-1]
    page, wrong = open_page(browser, address + "analysis/affinity.html")
    drawn(page, "affinity")
    page.locator("[data-chart=affinity] + details summary").click()
    page.locator(f"[data-chart=affinity] + details a[data-key='{pair.key}']").click()
    page.locator("[data-chart=affinity] .sk-found li").first.wait_for()
    assert page.locator("[data-chart=affinity] .sk-found li").count() == pair.observed
    assert wrong == []
    page.locator("[data-chart=affinity] .points path.point").last.click(force=True)
    page.wait_for_url("**/taxonomy/**")
    page.context.close()


@pytest.mark.browser
def test_charts_take_the_colors_of_the_scheme(browser, address):
    colors = {}
    for scheme in ("light", "dark"):
        page, wrong = open_page(browser, address + "analysis/affinity.html", scheme=scheme)
        figure = drawn(page, "affinity")
        colors[scheme] = figure.locator("text").first.evaluate("text => getComputedStyle(text).fill")
        if scheme == "light":
            page.evaluate("document.body.setAttribute('data-md-color-scheme', 'slate')")
            page.wait_for_function(
                "light => getComputedStyle(document.querySelector('[data-chart=affinity] text')).fill !== light",
                arg=colors["light"],
            )
            colors["switched"] = figure.locator("text").first.evaluate("text => getComputedStyle(text).fill")
        assert wrong == []
        page.context.close()
    assert colors["light"] != colors["dark"] == colors["switched"]


LABELS_IN_THE_WAY = r"""() => [...document.querySelectorAll('.sk-chart__plot')].flatMap((plot) => {
  const frame = plot.getBoundingClientRect(), wrong = [];
  for (const axis of ['.xtick', '.ytick', '.legend .traces', '.textpoint']) {
    const boxes = [...plot.querySelectorAll(axis)].map((e) => [e.textContent, e.getBoundingClientRect(),
        e.querySelector('text')?.getAttribute('transform') ?? '']).filter(([, b]) => b.width);
    for (const [text, b] of boxes)
      if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
        wrong.push(['outside', text]);
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
      const [[one, a, turned], [other, b]] = [boxes[i], boxes[j]];
      const slanted = /rotate\((?!0)/.test(turned);  // their boxes overlap, they do not
      if (!slanted && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        wrong.push([axis, one, other]);
    }
  }
  return wrong; })"""


@pytest.mark.browser
def test_a_moved_page_leads_to_its_new_address(browser, address):
    page, wrong = open_page(browser, address + "zh/left-out.html")
    page.wait_for_url("**/zh/out-of-scope.html")
    assert wrong == []
    page.context.close()


@pytest.mark.browser
def test_the_head_and_the_names_of_a_comparison_stay_in_sight(browser, address):
    page, _ = open_page(browser, address + "taxonomy/kvcc/quantization.html", "phone")
    table = page.locator(".sk-compared")
    corner = table.locator("thead th").first
    before = corner.bounding_box()
    table.evaluate("table => table.scrollTo(200, 900)")
    assert table.evaluate("table => [table.scrollLeft, table.scrollTop]") == [200, 900]
    assert corner.bounding_box() == before
    page.context.close()


@pytest.mark.browser
def test_it_works_without_scripts(browser, address):
    page, wrong = open_page(browser, address + "index.html", java_script_enabled=False)
    page.locator(".sk-card a", has_text="Quantization").click()
    page.locator(".sk-paper__title", has_text="KIVI").click()
    assert page.locator("h1").inner_text().startswith("KIVI")
    assert wrong == []
    page.context.close()


@pytest.mark.browser
def test_it_works_from_disk_search_included(browser, website):
    page, wrong = open_page(browser, ((website.build / "site").resolve() / "index.html").as_uri())
    page.locator(".sk-card a", has_text="Quantization").click()
    page.locator(".sk-paper__title", has_text="KIVI").click()
    open_search(page)
    search(page, "PagedAttention ++", "papers/pagedattention")
    page.locator(".md-search-result__link[href*='papers/pagedattention.html']").first.click()
    assert "PagedAttention" in page.locator("h1").inner_text()
    assert [w for w in wrong if not w.startswith("failed file:")] == []
    page.context.close()


@pytest.fixture(scope="session")
def hostile_website(tmp_path_factory) -> Checkout:
    """A website made of texts that try to be more than text."""
    checkout = new_checkout(tmp_path_factory.mktemp("hostile"))
    for paper_id, facts in ENTRIES.items():
        write_entry(checkout, paper_id, facts)
    hostile_kernels(checkout.root)
    out_of_scope = [
        {"title": f"Left {facts['title']}", "former_id": f"left-{i}", "fails": "kv-cache", "why": facts["title"]}
        | {"decided": "2026-11-24", "arxiv": f"2401.{i:05}"}
        for i, facts in enumerate(ENTRIES.values())
    ]
    (checkout.root / "papers" / OUT_OF_SCOPE_NAME).write_text(
        json.dumps(out_of_scope, ensure_ascii=False), encoding="utf-8"
    )
    build(checkout, website=True)
    return checkout


# What the browser says of a page: anything that ran, loads, links or handlers, and elements that no text may make.
INSPECT = """(page) => ({
    pwned: window.pwned ?? null,
    protocols: [...new Set([...page.querySelectorAll('a[href]')].map((a) => a.protocol))],
    hosts: [...new Set([...page.querySelectorAll('.md-content a[href]')].map((a) => a.hostname))],
    handlers: [...page.querySelectorAll('.md-content *')]
        .filter((e) => [...e.attributes].some((a) => a.name.startsWith('on'))).length,
    elements: page.querySelectorAll('article :is(script, iframe, style, img, object, embed, form)').length,
    inTitle: page.querySelectorAll('h1 *:not(.headerlink)').length,
    scripts: page.querySelectorAll('script').length,
    heading: page.querySelector('h1').firstChild.textContent,
    title: page.title,
})"""
INSPECT_ALL = f"""(addresses) => Promise.all(addresses.map(async (address) => {{
    const text = await (await fetch(address)).text();
    return ({INSPECT})(new DOMParser().parseFromString(text, "text/html"));
}}))"""


def assert_only_text(found: dict, scripts: int, path: str, title: str = "") -> None:
    assert found["pwned"] is None, path
    assert set(found["protocols"]) <= {"https:", "http:"}, path
    assert "evil.example" not in found["hosts"], path
    assert (found["handlers"], found["elements"], found["inTitle"]) == (0, 0, 0), path
    assert found["scripts"] == scripts, path
    if title:
        assert normalized(found["heading"]) == normalized(title), path
        assert normalized(found["title"]) == f"{normalized(title)} - sKis Atlas", path


@pytest.mark.browser
def test_hostile_text_is_only_text_on_every_page(hostile_website, browser, serve, tmp_path_factory):
    """One page per payload, and the lists: nothing runs, nothing is loaded, no link is made, the title is the text."""
    folder = tmp_path_factory.mktemp("hostile-serve")
    (folder / "atlas").symlink_to((hostile_website.build / "site").resolve())
    base = serve(folder) + "atlas/"
    page, wrong = open_page(browser, base + "about.html")
    scripts = page.evaluate(f"({INSPECT})(document)")["scripts"]
    titles = {f"papers/{paper_id}.html": facts["title"] for paper_id, facts in ENTRIES.items()}
    lists = [
        *("index.html", "papers/index.html", "years/2024.html", "taxonomy/kvcc/quantization.html", "venues/icml.html"),
        *("kernels/index.html", "taxonomy/kvs/index.html", "zh/kernels/index.html", "objectives/energy.html"),
        *(
            "out-of-scope.html",
            "zh/out-of-scope.html",
            "papers/left-0.html",
            "zh/index.html",
            "zh/papers/hostile-1.html",
        ),
    ]
    for path in [*titles, *lists]:
        page.goto(base + path)
        assert_only_text(page.evaluate(f"({INSPECT})(document)"), scripts, path, titles.get(path, ""))
        assert wrong == [], path
    # The pages of papers that left have few texts: the browser parses them all at once, without opening each.
    left = {f"{base}papers/left-{i}.html": f"Left {facts['title']}" for i, facts in enumerate(ENTRIES.values())}
    static = page.evaluate(INSPECT_ALL, [base + "about.html", *left])
    for (path, title), found in zip(left.items(), static[1:], strict=True):
        assert_only_text(found, static[0]["scripts"], path, title)
    page.context.close()


@pytest.mark.browser
def test_hostile_text_is_only_text_in_search_results(hostile_website, browser, serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile-search")
    (folder / "atlas").symlink_to((hostile_website.build / "site").resolve())
    page, wrong = open_page(browser, serve(folder) + "atlas/index.html")
    open_search(page)
    for word in ("img", "evil", "script", "bold"):
        assert search(page, word, f"h={word}")
        assert page.evaluate("window.pwned") is None
        found = page.locator(".md-search-result__list")
        assert found.locator("script, img, iframe, svg[onload], [onerror], [onmouseover]").count() == 0
        assert page.evaluate(
            "[...document.querySelectorAll('.md-search-result__list a')].every(a => a.protocol === 'http:')"
        )
    assert wrong == []
    page.context.close()


def normalized(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


def test_there_is_a_page_for_every_payload(hostile_website):
    assert len(list((hostile_website.build / "site" / "papers").glob("hostile-*.html"))) == len(PAYLOADS)
