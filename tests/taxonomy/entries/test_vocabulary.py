"""The vocabulary is data: what it says holds together, and a new leaf is an edit of YAML."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from skis.build import build
from taxonomy.entries.vocabulary import FOLDER, Vocabulary, VocabularyError, load_vocabulary
from taxonomy.store.reading import read_atlas


def test_it_has_the_words_of_the_survey(vocabulary: Vocabulary):
    assert len(vocabulary.dimensions) == 3
    assert [b.acronym for b in vocabulary.behaviors] == ["KVS", "OVLP", "HAE", "MHO", "CDO", "KVCC", "KVRM"]
    assert len(vocabulary.leaves) == 13
    assert len(vocabulary.objectives) == 7


def test_every_leaf_can_be_compared_by_traits(vocabulary: Vocabulary):
    assert {group.leaf for group in vocabulary.traits} == {leaf.code for leaf in vocabulary.leaves}


def test_every_term_has_a_chinese_label_and_definition(vocabulary: Vocabulary):
    terms = [*vocabulary.dimensions, *vocabulary.behaviors, *vocabulary.leaves, *vocabulary.objectives]
    terms += [*vocabulary.communities, *(trait for group in vocabulary.traits for trait in group.traits)]
    for term in terms:
        assert re.search("[\u4e00-\u9fff]", term.label.zh), term.code
        assert re.search("[\u4e00-\u9fff]", term.definition.zh), term.code


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_of_dimensions_are_readable_as_text(vocabulary: Vocabulary):
    """WCAG AA, on the page's background in both schemes."""
    for dimension in vocabulary.dimensions:
        assert contrast(dimension.color.light, "#ffffff") >= 4.5
        assert contrast(dimension.color.dark, "#1a222c") >= 4.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "vocabulary"))


WRONG = {
    "unknown behavior": ("leaves.yaml", "behavior: kvs", "behavior: kvx", "did you mean kvs?"),
    "unknown field": ("venues.yaml", "  kind: conference", "  kinds: conference", "is not a field here"),
    "bad link": ("venues.yaml", "https://iclr.cc/", "javascript:alert(1)", "must be an http or https address"),
    "code twice": ("objectives.yaml", "code: energy", "code: throughput", "is used twice"),
    "missing label": ("behaviors.yaml", "label: {en: KV-centric scheduling, ", "label: {", "label.en: is missing"),
    "bad color": ("dimensions.yaml", '"#1f5fae"', '"red"', "has the wrong form"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_vocabulary_is_refused_with_its_place(name, folder: Path):
    file, old, new, expected = WRONG[name]
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(VocabularyError) as error:
        load_vocabulary(folder)
    assert expected in str(error.value)
    assert re.match(rf"taxonomy/vocabulary/{file}:\d+:\d+: ", str(error.value))


@pytest.mark.slow
def test_a_new_leaf_is_one_edit_and_reaches_store_list_and_site(empty_checkout, add, sample):
    leaves = empty_checkout.root / "taxonomy" / "vocabulary" / "leaves.yaml"
    leaves.write_text(
        leaves.read_text() + "- code: kvrm/sharing\n  behavior: kvrm\n  label: {en: Sharing, zh: 共享}\n"
        "  definition: {en: Shares KV., zh: 共享 KV。}\n"
    )
    sample["placements"] = [{"leaf": "kvrm/sharing", "role": "primary", "source": "abstract"}]
    del sample["traits"]
    add(empty_checkout, "sample", sample)
    build(empty_checkout, website=True)
    assert [paper.id for paper in read_atlas(empty_checkout.store).in_leaf("kvrm/sharing")] == ["sample"]
    assert "#### Sharing" in (empty_checkout.root / "AWESOME.md").read_text()
    assert (empty_checkout.build / "pages" / "zh" / "taxonomy" / "kvrm" / "sharing.md").is_file()
