"""Pages say what the store says; text of entries stays text in Markdown and in HTML."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skis.settings import Atlas
from skis_site.addresses import relative
from skis_site.escaping import entities
from skis_site.navigation import navigation
from skis_site.pages import all_pages
from skis_site.wording import read_wording
from taxonomy.atlas import LANGUAGES
from tests.hostile import PAYLOADS

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


def test_every_thing_has_its_page_in_both_languages(content, wordings):
    for wording in wordings.values():
        paths = [page.path for page in all_pages(content, wording)]
        assert len(paths) == len(set(paths))
        expected = {"index.html", "taxonomy/index.html", "papers/index.html", "data.html", "about.html"}
        expected |= {f"papers/{paper.id}.html" for paper in content.papers}
        expected |= {f"taxonomy/{d.code}/index.html" for d in content.dimensions}
        expected |= {f"taxonomy/{code}/index.html" for code in content.behaviors}
        expected |= {f"taxonomy/{code}.html" for code in content.leaves if "/" in code}
        expected |= {f"objectives/{code}.html" for code in content.objectives}
        expected |= {f"venues/{paper.venue.code}.html" for paper in content.papers if paper.venue}
        expected |= {f"years/{paper.year}.html" for paper in content.papers}
        assert expected <= set(paths)


def test_every_word_of_the_pages_is_translated_and_used(root: Path):
    table = yaml.safe_load((root / "site" / "translations.yaml").read_text(encoding="utf-8"))
    sources = [*(root / "site" / "templates").glob("*.j2"), *(root / "site" / "skis_site").glob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    computed = ("kind_", "source_", "read_", "export_")
    others = {"primary", "secondary", "direct", "indirect", "lower", "higher", "models", "hardware", "baselines"}
    for key, texts in table.items():
        assert set(texts) == set(LANGUAGES), key
        assert sorted(re.findall(r"{\w+}", texts["en"])) == sorted(re.findall(r"{\w+}", texts["zh"])), key
        assert key in others or key.startswith(computed) or f'"{key}"' in code, f"{key} is not used"


def test_papers_and_venues_stay_out_of_the_navigation(content, wordings):
    tree = navigation(content, wordings["en"])
    assert not re.search(r"papers/(?!index)", tree)
    assert not re.search(r"venues/(?!index)", tree)
    assert all(f"taxonomy/{leaf.code}" in tree for leaf in content.leaves.values())


def test_a_paper_page_has_all_facts(website: Atlas, content):
    for paper in content.papers[::15]:
        page = (website.build / "site" / "papers" / f"{paper.id}.html").read_text(encoding="utf-8")
        plain = " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())
        assert " ".join(paper.title.split()) in plain
        assert ", ".join(paper.authors) in plain
        assert paper.published in plain
        assert paper.file in plain
        for link in paper.links.values():
            assert html.escape(link.url) in html.escape(html.unescape(page))
        for placement in paper.placements:
            assert placement.technique.en in plain
            assert f'id="{placement.leaf.slug}"' in page
        assert f"{{{paper.id}," in plain  # BibTeX
        assert page.count('<meta name="citation_author"') == len(paper.authors)


def test_counts_on_the_home_page_are_those_of_the_store(website: Atlas, content):
    page = (website.build / "site" / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<b>([A-Z]+)</b>.*?sk-count\">(\d+)<", page)
    assert dict(rows) == {
        b.acronym: str(len(content.in_leaves(b.leaves, "primary"))) for b in content.behaviors.values()
    }
