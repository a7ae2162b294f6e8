"""What the atlas is told of the kernels: every unit, and of its results what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_kernels.registry import cards
from reference_kernels.table import BadResultError, table
from tests.reference_kernels.repository import ROOT
from tests.reference_kernels.results import GPU, TIMED, WRONG, copied_package, made_up, write_result


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copied_package(tmp_path, "kvs/quest.py", "kvcc/kivi.py")


def test_every_unit_is_told_with_its_file():
    rows = table()
    assert [row["name"] for row in rows] == [card.name for card in cards()]
    for row in rows:
        assert (ROOT / row["file"]).stem == row["name"]
        assert (ROOT / row["file"]).is_file()


def test_rows_are_plain_values():
    assert json.loads(json.dumps(table())) == table()


def test_another_copy_tells_of_its_own_units(package: Path):
    assert [(row["name"], row["results"]) for row in table(package)] == [("quest", []), ("kivi", [])]
    assert table(package.parent / "nowhere") == []


def test_a_card_needs_no_sections_to_be_told_of(package: Path):
    (package / "kvs" / "bare.py").write_text('"""Title.\n\n:leaf: kvs\n"""')
    first = table(package)[0]
    assert (first["name"], first["title"], first["papers"]) == ("bare", "Title.", [])


def test_a_result_is_what_the_file_says(package: Path):
    write_result(package, made_up("quest", {"a case": TIMED}))
    assert table(package)[0]["results"] == [
        {
            "gpu": GPU,
            "case": "a case",
            "seconds": 2e-4,
            "share": 0.8125,
            "gain": 1.5,
            "peer": "fast, dense",
            "others": {"fast, fp8": 0.5},
            "taken": "2026-11-24T08:20:31Z",
            "commit": "c0ffee",
        }
    ]


def test_a_wrong_result_has_no_figures(package: Path):
    write_result(package, made_up("quest", {"a case": WRONG}))
    (result,) = table(package)[0]["results"]
    assert (result["seconds"], result["share"], result["gain"], result["peer"]) == (None,) * 4


def test_without_a_peer_there_is_no_gain(package: Path):
    alone = TIMED | {"peers": {"absent": {"missing": "it is not installed"}}}
    write_result(package, made_up("quest", {"alone": alone, "no peers": {**TIMED, "peers": {}}}))
    assert [(r["gain"], r["peer"], r["others"]) for r in table(package)[0]["results"]] == [(None, None, {})] * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        json.dumps(made_up("quest", {"a": {"seconds": {"median": "soon"}, "share": 1}})),
        json.dumps(made_up("quest", {"a": {"seconds": {"median": -1.0}, "share": 1}})),
        json.dumps(made_up("quest", {"a": {"seconds": {"median": float("nan")}, "share": 1}})),
        json.dumps(made_up("quest", {"a": {"seconds": {"median": 10**400}, "share": 1}})),
        json.dumps(made_up("quest", {"a": {"seconds": {"median": 1.0}}})),
        json.dumps(made_up("quest", {"a": TIMED}) | {"machine": {"gpu": ["x"], "taken": "now"}}),
        json.dumps(made_up("quest", {"a": TIMED}) | {"cases": ["a"]}),
    ],
)
def test_a_file_that_is_no_result_is_refused_with_its_path(package: Path, text: str):
    write_result(package, made_up("quest", {"a": TIMED})).write_text(text)
    with pytest.raises(
        BadResultError, match=r"^results/made-up-gpu-8gb/quest\.json: not a result as `bench` writes it"
    ):
        table(package)


def test_results_lie_in_the_folder_of_their_gpu(package: Path):
    path = write_result(package, made_up("quest", {"a": TIMED}))
    path.parent.rename(path.parent.with_name("h100"))
    with pytest.raises(BadResultError, match=f"h100/quest.json: results of {GPU} belong into made-up-gpu-8gb/"):
        table(package)


def test_results_of_no_unit_are_refused(package: Path):
    write_result(package, made_up("qest", {}))
    with pytest.raises(BadResultError, match="there is no unit qest"):
        table(package)
