"""The command line, as a person or a program uses it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from analysis.charts import CHARTS
from skis.build import build
from skis.settings import Checkout
from tests.checkouts import SAMPLE, SKIS, new_checkout, write_entry
from tests.skis.calls import skis, skis_process


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """A small checkout, built, that no test changes."""
    checkout = new_checkout(tmp_path_factory.mktemp("cli"))
    write_entry(checkout, "sample", SAMPLE)
    build(checkout)
    return checkout


def test_without_a_word_it_helps_and_every_verb_has_help():
    listed = skis_process("--help").stdout
    for verb in ("check", "build", "site", "new", "find", "show", "export", "stats", "charts", "kernels"):
        assert re.search(rf"^│ {verb} ", listed, re.M), verb
        assert "Usage: skis " + verb in skis(verb, "--help").stdout


def test_check_is_quiet_about_good_entries(checkout: Checkout):
    run = skis("check", where=checkout.root / "papers")
    assert (run.returncode, run.stdout) == (0, "1 entry, no problems\n")


@pytest.fixture
def bad(empty_checkout: Checkout, sample) -> Checkout:
    for name in ("one", "two"):
        facts = sample | {"title": name, "links": {"paper": f"https://example.org/{name}"}}
        path = write_entry(empty_checkout, name, facts)
        path.write_text(path.read_text().replace("kvcc/quantization", "kvcc/quantisation"))
    return empty_checkout


def test_check_lists_every_problem_and_exits_1(bad: Checkout):
    run = skis("check", where=bad.root)
    assert run.returncode == 1
    assert (
        len(
            re.findall(
                r"^papers/2024/(?:one|two)\.yaml:\d+:\d+: placements\[0\]\.leaf: .* \(did you mean", run.stdout, re.M
            )
        )
        == 2
    )


def test_check_of_one_file_reports_that_file_only(bad: Checkout):
    run = skis("check", bad.root / "papers" / "2024" / "two.yaml", where=bad.root)
    assert run.returncode == 1
    assert "two.yaml" in run.stdout
    assert "one.yaml" not in run.stdout


def test_check_complete_lists_what_is_missing(checkout: Checkout):
    assert skis("check", where=checkout.root).returncode == 0
    run = skis("check", "--complete", where=checkout.root)
    assert run.returncode == 1
    assert re.search(r"^papers/2024/sample\.yaml:\d+:\d+: has no reason \(why\) for kvs$", run.stdout, re.M)


def test_check_answers_programs_and_github(bad: Checkout):
    problems = json.loads(skis("check", "--json", where=bad.root).stdout)
    assert {"file", "line", "column", "field", "message", "suggestion"} == set(problems[0])
    assert skis_process("check", where=bad.root, GITHUB_ACTIONS="true").stdout.startswith(
        "::error file=papers/2024/one.yaml,line="
    )


def test_a_wrong_call_exits_2(checkout: Checkout, tmp_path: Path):
    assert skis("check", "nowhere.yaml", where=checkout.root).returncode == 2
    assert skis("frobnicate").returncode == 2
    outside = skis("check", where=tmp_path)
    assert outside.returncode == 2
    assert "not inside a checkout of the atlas" in outside.stderr
    empty = new_checkout(tmp_path)
    assert "`skis build` makes it" in skis("stats", where=empty.root).stderr


def test_build_of_a_bad_atlas_exits_1_and_makes_nothing(bad: Checkout):
    run = skis_process("build", where=bad.root)
    assert run.returncode == 1
    assert "did you mean" in run.stdout
    assert not bad.store.exists()


def test_a_wrong_vocabulary_exits_1_with_its_place(bad: Checkout):
    path = bad.vocabulary / "leaves.yaml"
    path.write_text(path.read_text().replace("behavior: kvs", "behavior: kvx"))
    for run in (skis("check", where=bad.root), skis("build", where=bad.root), new(bad)):
        assert run.returncode == 1
        assert re.match(r"taxonomy/vocabulary/leaves\.yaml:\d+:\d+: .*did you mean kvs", run.stdout)


def test_find(checkout: Checkout):
    assert "sample" in skis("find", "caches", where=checkout.root).stdout
    assert "sample" in skis("find", "两比特", where=checkout.root).stdout
    assert json.loads(skis("find", "--leaf", "kvcc", "--json", where=checkout.root).stdout)[0]["id"] == "sample"
    assert json.loads(skis("find", "--venue", "icml 2024", "--json", where=checkout.root).stdout)[0]["id"] == "sample"
    assert json.loads(skis("find", "--year", "1999", "--json", where=checkout.root).stdout) == []
    wrong = skis("find", "--leaf", "kvcx", where=checkout.root)
    assert (wrong.returncode, "did you mean kvcc?" in wrong.stderr) == (2, True)


def test_show(checkout: Checkout):
    shown = skis("show", "sample", where=checkout.root).stdout
    assert "Keeps two bits per number (primary)" in shown
    assert "2.6× peak memory, lower, 37.5 % peak memory, lower" in shown
    assert skis("show", "sample", "--bibtex", where=checkout.root).stdout.startswith("@inproceedings{sample,")
    assert json.loads(skis("show", "sample", "--json", where=checkout.root).stdout)["name"] == "Sample"
    wrong = skis("show", "sampel", where=checkout.root)
    assert (wrong.returncode, "did you mean sample?" in wrong.stderr) == (2, True)


def test_stats(checkout: Checkout):
    answer = json.loads(skis("stats", "--json", where=checkout.root).stdout)
    assert answer["papers"] == 1
    assert {"leaf": "kvs", "primary": 0, "secondary": 1} in answer["leaves"]
    assert answer["coverage"]["a reported gain"] == 1
    assert (answer["survey"]["papers"], answer["survey"]["coverage"]["a reported gain"]) == (0, 0)
    assert "100.0 %" in skis("stats", where=checkout.root).stdout


def test_export(checkout: Checkout, tmp_path: Path):
    run = skis("export", tmp_path / "out", where=checkout.root)
    assert run.returncode == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in (checkout.build / "data").iterdir()}
    assert {"skis.db", "papers.bib", "datapackage.json", "feed.atom"} <= names


def test_export_into_what_is_no_folder_is_refused(checkout: Checkout, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    run = skis("export", tmp_path / "file", where=checkout.root)
    assert (run.returncode, run.stderr) == (2, f"skis: cannot write into {tmp_path / 'file'}: File exists\n")


ANSWERS = {
    "--title": "NewCache: A New Cache",
    "--authors": "Ada Lovelace, Bob Smith",
    "--published": "2025-03",
    "--link": "https://arxiv.org/pdf/2503.01234v2",
    "--leaf": "kvrm/eviction",
    "--technique": "Drops what nobody reads",
}


def new(checkout: Checkout, **changes: str):
    options = ANSWERS | {f"--{key}": value for key, value in changes.items()}
    return skis(
        "new", "--name", "NewCache", "--venue", "", *(x for pair in options.items() for x in pair), where=checkout.root
    )


def test_new_writes_an_entry_that_is_good_at_once(empty_checkout: Checkout):
    run = new(empty_checkout)
    assert run.returncode == 0, run.stdout + run.stderr
    text = (empty_checkout.root / "papers" / "2025" / "newcache.yaml").read_text()
    assert 'arxiv: "2503.01234"' in text
    assert "authors: [Ada Lovelace, Bob Smith]" in text
    assert skis("check", where=empty_checkout.root).returncode == 0


def test_new_asks_for_what_is_missing(empty_checkout: Checkout):
    answers = [*(ANSWERS[f"--{key}"] for key in ("title", "authors", "published", "link", "leaf", "technique")), "", ""]
    run = skis("new", where=empty_checkout.root, stdin="\n".join(answers) + "\n")
    assert run.returncode == 0, run.stdout + run.stderr
    assert (empty_checkout.root / "papers" / "2025" / "newcache.yaml").is_file()


def test_new_refuses_nonsense_and_writes_nothing(empty_checkout: Checkout):
    run = new(empty_checkout, published="soon")
    assert run.returncode == 2
    assert "must be a date" in run.stderr
    assert list((empty_checkout.root / "papers").rglob("*.yaml")) == []


def test_new_does_not_overwrite(empty_checkout: Checkout):
    assert new(empty_checkout).returncode == 0
    again = new(empty_checkout, title="NewCache: Another")
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_new_says_what_the_vocabulary_does_not_know_but_keeps_the_work(empty_checkout: Checkout):
    run = new(empty_checkout, leaf="kvrm/evictoin")
    assert run.returncode == 1
    assert "did you mean kvrm/eviction?" in run.stdout
    assert (empty_checkout.root / "papers" / "2025" / "newcache.yaml").is_file()


@pytest.mark.slow
def test_site_serves_what_it_built(empty_checkout: Checkout, sample):
    write_entry(empty_checkout, "sample", sample)
    process = subprocess.Popen(
        [SKIS, "site", "--serve", "--port", "8765"],
        cwd=empty_checkout.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        for _ in range(300):
            try:
                page = urllib.request.urlopen("http://127.0.0.1:8765/papers/sample.html", timeout=5).read().decode()
                break
            except OSError:
                assert process.poll() is None, process.communicate()
                time.sleep(0.2)
        assert "Sample: A Paper on Caches" in page
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()


class TestCharts:
    def test_all_are_listed_with_what_they_show(self, checkout: Checkout):
        listed = skis("charts", "--list", where=checkout.root).stdout
        assert all(re.search(rf"^ {name} +Draw ", listed, re.M) for name in CHARTS)

    def test_named_ones_are_written_over_a_selection(self, checkout: Checkout, tmp_path: Path):
        out = tmp_path / "deep" / "charts"
        options = ("--out", out, "--format", "csv,html", "--until", "2024-05", "--leaf", "kvcc", "--language", "zh")
        run = skis("charts", "code", "effects", *options, where=checkout.root)
        assert run.returncode == 0, run.stderr
        names = ["code.csv", "code.html", "effects.csv", "effects.html", "plotly.min.js"]
        assert [Path(line).name for line in run.stdout.splitlines()] == names
        assert (out / "code.csv").read_text() == "year,papers,with code,share\n2024,1,0,0.0\n"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("afinity",), "afinity is not a chart (did you mean affinity?)"),
            (("--format", "pdf"), "pdf is not a format: svg, png, csv, html"),
            (("--language", "fr"), "fr is not a language: en, zh"),
            (("--until", "june"), "june is not a year, a month or a day"),
            (("--leaf", "kvc"), "'kvc' is not in the taxonomy (did you mean kvcc?)"),
            (("--until", "1999"), "no paper is left: the atlas has none of all papers until 1999"),
            (("--survey",), "no paper is left: the atlas has none of the survey's papers"),
        ],
    )
    def test_a_wrong_call_is_answered_clearly(self, checkout: Checkout, tmp_path: Path, options, message):
        run = skis("charts", "--out", tmp_path / "none", *options, where=checkout.root)
        assert (run.returncode, message in run.stderr) == (2, True), run.stderr
        assert not (tmp_path / "none").exists()


def test_the_commands_of_the_readme_exist(root: Path):
    text = (root / "README.md").read_text() + (root / "CONTRIBUTING.md").read_text()
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", text)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for verb in set(re.findall(r"skis (check|build|new|find|show|stats|site|export|charts)\b", text)):
        assert skis(verb, "--help").returncode == 0
    verbs = set(re.findall(r"(?:skis kernels|python -m reference_kernels) (\w+)", text))
    assert {"list", "run", "bench"} <= verbs
    for verb in verbs:
        assert skis("kernels", verb, "--help").returncode == 0
