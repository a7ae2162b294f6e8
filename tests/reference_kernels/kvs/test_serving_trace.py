"""Traces: what is written is read, what is malformed is refused with its place, what is generated shares prefixes."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.kvs.serving.trace import (
    Request,
    TraceError,
    generate_trace,
    infinite_cache_hits,
    load_trace,
    save_trace,
)

GOOD = {"timestamp": 5, "input_length": 700, "output_length": 3, "hash_ids": [0, 1]}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 16, 512]), system=st.integers(0, 60))
def test_generated_trace_survives_a_file(tmp_path_factory, seed, block, system):
    trace = generate_trace(
        8, seed=seed, block=block, prompt_tokens=system, question_tokens=30, answer_tokens=9, turns=3
    )
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    save_trace(path, trace)
    assert load_trace(path, block) == trace


def test_same_seed_gives_the_same_trace():
    assert generate_trace(20, seed=3) == generate_trace(20, seed=3)
    assert generate_trace(20, seed=3) != generate_trace(20, seed=4)


def test_conversations_share_their_system_prompt_and_turns_their_history():
    trace = generate_trace(1, seed=2, turns=6, prompts=1, prompt_tokens=1024, question_tokens=2000)
    assert len(trace) > 2
    for earlier, later in itertools.pairwise(trace):
        whole = earlier.input_tokens // 512
        assert later.blocks[:whole] == earlier.blocks[:whole]
        assert later.blocks[whole] not in earlier.blocks  # a block that was not full has another content now
        assert later.input_tokens > earlier.input_tokens + earlier.output_tokens
    many = generate_trace(30, seed=1, turns=1, prompts=1, prompt_tokens=2048)
    assert {request.blocks[:2] for request in many} == {many[0].blocks[:2]}


def test_no_sharing_without_system_prompt_and_further_turns():
    assert sum(infinite_cache_hits(generate_trace(50, turns=1, prompt_tokens=0))) == 0


def test_infinite_cache_counts_leading_blocks_only():
    trace = [Request(0.0, 3, 1, (0, 1, 2)), Request(0.0, 3, 1, (0, 1, 3)), Request(0.0, 2, 1, (0, 1))]
    assert infinite_cache_hits(trace) == [0, 2, 2]


@pytest.mark.parametrize("wrong", [{"conversations": 0}, {"rate": 0.0}, {"block": 0}, {"prompts": 0}, {"turns": -1.0}])
def test_generator_refuses_empty_traces(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        generate_trace(**{"conversations": 1, **wrong})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("\x00", "not JSON"),
        ("3", "an object is expected, not 3"),
        ({"timestamp": 5, "hash_ids": []}, "input_length, output_length missing"),
        (GOOD | {"timestamp": -1}, "timestamp must be milliseconds from 0 on, not -1"),
        (GOOD | {"timestamp": True}, "timestamp must be milliseconds"),
        (GOOD | {"timestamp": "5"}, "timestamp must be milliseconds"),
        (GOOD | {"timestamp": float("nan")}, "timestamp must be milliseconds"),
        (GOOD | {"timestamp": 10**400}, "timestamp must be milliseconds"),
        (GOOD | {"timestamp": 3}, "its timestamp lies before that of the request above"),
        (GOOD | {"input_length": 0}, "input_length must be a whole number of at least 1, not 0"),
        (GOOD | {"input_length": 1.5}, "input_length must be a whole number"),
        (GOOD | {"output_length": 0}, "output_length must be a whole number of at least 1"),
        (GOOD | {"output_length": None}, "output_length must be a whole number"),
        (GOOD | {"hash_ids": "01"}, "hash_ids must be a list"),
        (GOOD | {"hash_ids": [0, -1]}, "hash_ids must be a list of whole numbers from 0 on"),
        (GOOD | {"hash_ids": [0, True]}, "hash_ids must be a list of whole numbers from 0 on"),
        (GOOD | {"hash_ids": [0]}, "an input of 700 tokens has 2 blocks of 512, hash_ids has 1"),
        (GOOD | {"hash_ids": [0, 0]}, "block 0 follows 0, but comes first elsewhere"),
        (GOOD | {"hash_ids": [7, 1]}, "block 1 follows 7, but follows 0 elsewhere: ids must mean equal prefixes"),
    ],
)
def test_malformed_line_is_refused_with_its_place(tmp_path, line, words):
    path = tmp_path / "bad.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(json.dumps(GOOD) + "\n\n" + text + "\n", encoding="utf-8")
    with pytest.raises(TraceError, match=words) as refused:
        load_trace(path)
    assert str(refused.value).startswith(f"{path}:3: ")


def test_wrong_utf8_and_empty_files_are_refused(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"timestamp": "\xff"}\n')
    with pytest.raises(TraceError, match=r"bad.jsonl:1: not JSON"):
        load_trace(path)
    path.write_text("\n")
    with pytest.raises(TraceError, match="no requests"):
        load_trace(path)
