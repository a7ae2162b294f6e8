"""Pages say what the store says; text of entries stays text in Markdown and in HTML."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from skis.build import build
from skis.settings import Checkout
from skis_site.addresses import page_of, relative
from skis_site.escaping import entities
from skis_site.figures import duration, percent
from skis_site.navigation import navigation
from skis_site.pages import all_pages
from skis_site.render import render_pages
from skis_site.script import NO_SHIM, PART, SHIM, plotly_script, worker_shim
from skis_site.wording import read_wording
from taxonomy.store.reading import read_atlas
from taxonomy.store.row import LANGUAGES
from tests.checkouts import SAMPLE, new_checkout, write_entry
from tests.hostile import PAYLOADS
from tests.reference_kernels.results import GPU, TIMED, WRONG, copied_package, made_up, write_result

EXTENSIONS = ["attr_list", "tables", "toc", "pymdownx.highlight", "pymdownx.superfences"]


class Seen(HTMLParser):
    """Collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def seen(source: str) -> Seen:
    parser = Seen()
    parser.feed(markdown.markdown(source, extensions=EXTENSIONS))
    parser.close()
    return parser


text = st.text("<>&[]()*_`~!\\#|{}$^='\"-+.:@/ ab1\u4e2d", min_size=1, max_size=40).map(lambda t: " ".join(t.split()))


@given(text.filter(bool) | st.sampled_from(PAYLOADS).map(lambda t: " ".join(t.split())))
def test_any_text_is_only_text_in_a_heading_and_in_a_block(value: str):
    heading = seen(f"# {entities(value)} end")
    assert heading.tags == ["h1"]
    assert heading.text == f"{value} end"
    block = seen(f'<div class="x">\n<p title="{entities(value)}">{entities(value)}</p>\n</div>')
    assert block.tags == ["div", "p"]
    assert block.text.strip() == value


@given(text.filter(bool))
def test_any_text_is_only_text_in_a_paragraph(value: str):
    paragraph = seen(f"Begin {entities(value)} end")
    assert paragraph.tags == ["p"]
    assert paragraph.text == f"Begin {value} end"


@pytest.mark.parametrize(
    ("target", "folder", "expected"),
    [
        ("papers/kivi.html", "papers", "kivi.html"),
        ("papers/kivi.html", "", "papers/kivi.html"),
        ("taxonomy/kvs/index.html", "taxonomy/kvcc", "../kvs/index.html"),
        ("index.html#x", "papers", "../index.html#x"),
        ("../data/skis.db", "papers", "../../data/skis.db"),
    ],
)
def test_addresses_are_relative(target, folder, expected):
    assert relative(target, folder) == expected


@pytest.fixture(scope="module")
def wordings(root: Path):
    return {language: read_wording(root / "site" / "translations.yaml", language) for language in LANGUAGES}


def test_every_thing_has_its_page_in_both_languages(atlas, wordings):
    for wording in wordings.values():
        paths = [page.path for page in all_pages(atlas, wording)]
        assert len(paths) == len(set(paths))
        expected = {
            "index.html",
            "taxonomy/index.html",
            "papers/index.html",
            "data.html",
            "about.html",
            "kernels/index.html",
            "out-of-scope.html",
        }
        expected |= {f"papers/{paper.id}.html" for paper in atlas.papers}
        expected |= {f"taxonomy/{d.code}/index.html" for d in atlas.dimensions}
        expected |= {f"taxonomy/{code}/index.html" for code in atlas.behaviors}
        expected |= {f"taxonomy/{code}.html" for code in atlas.leaves if "/" in code}
        expected |= {f"objectives/{code}.html" for code in atlas.objectives}
        expected |= {f"venues/{paper.venue.code}.html" for paper in atlas.papers if paper.venue}
        expected |= {f"years/{paper.year}.html" for paper in atlas.papers}
        expected |= {f"papers/{item.former_id}.html" for item in atlas.out_of_scope if item.former_id}
        assert expected <= set(paths)


def test_every_word_of_the_pages_is_translated_and_used(root: Path):
    table = yaml.safe_load((root / "site" / "translations.yaml").read_text(encoding="utf-8"))
    sources = [*(root / "site" / "templates").glob("*.j2"), *(root / "site" / "skis_site").glob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    computed = ("kind_", "source_", "read_", "export_", "openings_", "differ_", "fails_")
    others = {"primary", "secondary", "direct", "indirect", "lower", "higher", "models", "hardware", "baselines"}
    others |= {"holds", "no_longer_holds", "cannot_be_told"}
    for key, texts in table.items():
        assert set(texts) == set(LANGUAGES), key
        assert sorted(re.findall(r"{\w+}", texts["en"])) == sorted(re.findall(r"{\w+}", texts["zh"])), key
        assert key in others or key.startswith(computed) or f'"{key}"' in code, f"{key} is not used"


def test_papers_and_venues_stay_out_of_the_navigation(atlas, wordings):
    tree = navigation(atlas, wordings["en"])
    assert not re.search(r"papers/(?!index)", tree)
    assert not re.search(r"venues/(?!index)", tree)
    assert all(f"taxonomy/{leaf.code}" in tree for leaf in atlas.leaves.values())


def test_a_paper_page_has_all_facts(website: Checkout, atlas):
    for paper in atlas.papers[::15]:
        page = (website.build / "site" / "papers" / f"{paper.id}.html").read_text(encoding="utf-8")
        plain = " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())
        assert " ".join(paper.title.split()) in plain
        assert ", ".join(author.name for author in paper.authors) in plain
        assert paper.published in plain
        assert paper.file in plain
        for link in paper.links.values():
            assert html.escape(link.url) in html.escape(html.unescape(page))
        for placement in paper.placements:
            assert placement.technique.en in plain
            assert f'id="{placement.leaf.slug}"' in page
        assert f"{{{paper.id}," in plain  # BibTeX
        assert page.count('<meta name="citation_author"') == len(paper.authors)


def test_what_is_out_of_scope_is_listed_and_an_old_address_says_why(website: Checkout, atlas):
    def plain(path: str) -> str:
        page = (website.build / "site" / path).read_text(encoding="utf-8")
        return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())

    listed = plain("out-of-scope.html")
    assert all(item.title in listed and item.why in listed for item in atlas.out_of_scope)
    gone = [item for item in atlas.out_of_scope if item.former_id]
    assert gone
    for item in gone:
        old = plain(f"papers/{item.former_id}.html")
        assert item.title in old
        assert item.why in old
        assert item.decided in old


def test_a_leaf_compares_every_paper_by_every_recorded_trait(website: Checkout, atlas):
    for leaf in (leaf for leaf in atlas.leaves.values() if leaf.traits):
        page = (website.build / "site" / page_of(leaf)).read_text(encoding="utf-8")
        table = re.search(r'<table class="sk-compared__table">(.*?)</table>', page, re.DOTALL)[1]
        head, body = (re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL) for part in table.split("</thead>"))
        assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', head[0])[1:] == [trait.label.en for trait in leaf.traits]
        expected = {}
        for paper in atlas.in_leaf(leaf.code):
            values = {trait.code: [] for trait in leaf.traits}
            for value in (value for value in paper.traits if value.group_code == leaf.trait_group.code):
                values[value.trait_code].append(value.value)
            if any(values.values()):
                expected[paper.id] = [", ".join(several) for several in values.values()]
        shown = {
            re.search(r"papers/([^/]*)\.html", row)[1]: [
                html.unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", row)
            ]
            for row in body
        }
        assert shown == expected
        assert f"{len(expected)} of {len(atlas.in_leaf(leaf.code))} papers have recorded traits." in page


def test_counts_on_the_home_page_are_those_of_the_store(website: Checkout, atlas):
    page = (website.build / "site" / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<b>([A-Z]+)</b>.*?sk-count\">(\d+)<", page)
    assert dict(rows) == {b.acronym: str(len(atlas.in_leaves(b.leaves, "primary"))) for b in atlas.behaviors.values()}


def test_kernels_papers_and_leaves_link_to_each_other(website: Checkout, atlas):
    def page(path: str) -> str:
        return html.unescape((website.build / "site" / path).read_text(encoding="utf-8"))

    listed = page("kernels/index.html")
    assert atlas.kernels
    for kernel in atlas.kernels:
        assert f'id="{kernel.name}"' in listed
        assert f"/blob/main/{kernel.file}" in listed
        assert f'href="../{page_of(kernel.leaf)}"' in listed
        target = f"kernels/index.html#{kernel.name}"
        assert target in page(page_of(kernel.leaf))
        for paper in kernel.papers:
            assert f'href="../{page_of(paper)}"' in listed
            assert target in page(page_of(paper))
            assert target in page(f"zh/{page_of(paper)}")
    without = next(paper for paper in atlas.papers if paper.id not in atlas.kernels_by_paper)
    assert "kernels/index.html#" not in page(page_of(without))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, str]:
    """The page of a checkout with two kernels, one of them measured on two GPUs, by language as plain text."""
    checkout = new_checkout(tmp_path_factory.mktemp("measured"))
    for name in ("quest", "kivi"):
        write_entry(checkout, name, SAMPLE | {"title": name, "links": {"paper": f"https://example.org/{name}"}})
    package = copied_package(checkout.root, "kvs/quest.py", "kvcc/kivi.py")
    write_result(package, made_up("quest", {"B=1 | 2": TIMED, "bad": WRONG}))
    write_result(package, made_up("quest", {"alone": TIMED | {"peers": {}}}, gpu="Other", taken="2026-12-01T00:00:00Z"))
    build(checkout)
    out = checkout.root / "pages"
    render_pages(read_atlas(checkout.store), checkout.root, checkout.build / "data", out, checkout.repository)
    pages = {lang: (out / lang / "kernels" / "index.md").read_text("utf-8") for lang in LANGUAGES}
    return {lang: " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split()) for lang, page in pages.items()}


def test_figures_are_shown_per_gpu(measured):
    for text in measured.values():
        first, second = text.index(f"{GPU} · 2026-11-24"), text.index("Other · 2026-12-01")
        assert "B=1 | 2 200 µs 81 % 1.50× fast, dense" in text[first:second]
        assert "alone" in text[second:]


def test_wrong_and_missing_results_are_said(measured):
    assert "wrong result, not timed" in measured["en"]
    assert measured["en"].count("Not measured yet.") == 1
    assert "结果有误，未计时" in measured["zh"]
    assert measured["zh"].count("尚未测量。") == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(8.3328e-5, "83.3 µs"), (9.9999e-4, "1 ms"), (0.0014177, "1.42 ms"), (12, "12 s"), (4321, "4320 s")],
)
def test_times_have_three_digits(seconds: float, shown: str):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("share", "shown"), [(0.8125, "81 %"), (0.0031, "0.3 %"), (1, "100 %"), (0.1, "10 %")])
def test_shares_are_percent(share: float, shown: str):
    assert percent(share) == shown


def test_the_part_of_plotly_is_served_only_in_the_version_of_the_figures(tmp_path: Path):
    assert plotly_script(tmp_path) == get_plotlyjs()
    part = tmp_path / PART
    part.mkdir(parents=True)
    (part / "plotly-cartesian.min.js").write_text("part")
    for version, script in ((get_plotlyjs_version(), "part"), ("0.1.0", get_plotlyjs())):
        (part / "package.json").write_text(json.dumps({"version": version}))
        assert plotly_script(tmp_path) == script


def test_the_shim_for_the_search_comes_with_its_license_or_is_said_to_be_missing(tmp_path: Path):
    assert worker_shim(tmp_path) == NO_SHIM
    (tmp_path / SHIM / "shim").mkdir(parents=True)
    (tmp_path / SHIM / "shim" / "index.js").write_text("shim()")
    (tmp_path / SHIM / "LICENSE").write_text("Copyright (c) Somebody")
    script = worker_shim(tmp_path)
    assert script.endswith("*/\nshim()")
    assert "Copyright (c) Somebody" in script
