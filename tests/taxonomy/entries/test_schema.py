"""The JSON Schema that editors use says what the checks say."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from taxonomy.entries.schema import entry_schema, schema_text
from taxonomy.entries.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def validator(vocabulary: Vocabulary):
    schema = entry_schema(vocabulary)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class Editor(yaml.SafeLoader):
    """Reads YAML as a language server does: numbers and booleans have their type, dates are text."""


Editor.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def test_the_committed_schema_is_fresh(root: Path, vocabulary: Vocabulary):
    assert (root / "papers" / "schema.json").read_text(encoding="utf-8") == schema_text(vocabulary)


@pytest.mark.slow
def test_it_accepts_every_entry(root: Path, validator):
    for path in root.glob("papers/*/*.yaml"):
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=Editor)
        assert list(validator.iter_errors(value)) == [], path


def test_it_refuses_what_the_checks_refuse(sample, validator):
    plain = json.loads(json.dumps(sample))
    plain["traits"]["quantization"]["bits"] = 2
    assert list(validator.iter_errors(plain)) == []
    for field, value in {"leaf": "kvcc/none", "role": "third", "extra": "x"}.items():
        wrong = json.loads(json.dumps(plain))
        wrong["placements"][0][field] = value
        assert list(validator.iter_errors(wrong)), field
    for field, value in {"venue": "Nowhere 2024", "effects": {"speed": {}}, "traits": {"none": {}}}.items():
        assert list(validator.iter_errors(plain | {field: value})), field


def test_every_entry_points_its_editor_to_the_schema(root: Path):
    for path in root.glob("papers/*/*.yaml"):
        target = path.read_text(encoding="utf-8").splitlines()[0].partition("$schema=")[2]
        assert (path.parent / target).resolve() == root / "papers" / "schema.json"
