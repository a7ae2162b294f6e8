"""Request traces in Mooncake's format, and a generator of traces with the same kinds of sharing.

One JSON object per line: `timestamp` (ms), `input_length` and `output_length` (tokens), `hash_ids` (one id per block of
512 tokens of the prompt, the last of which may be partly full). Equal ids mean equal prompts up to there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 512  # tokens per hash id in Mooncake's traces
LATEST = 2**53  # ms; later times are not exact in a float


class TraceError(ValueError):
    """A trace cannot be read; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a trace."""

    arrival: float  # seconds
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]  # ids of the prompt's blocks


def load_trace(path: Path, block: int = BLOCK) -> list[Request]:
    """Read a trace.

    Args:
        path: a JSONL file; empty lines are skipped.
        block: tokens per hash id.

    Raises:
        TraceError: a line is malformed, out of order, or contradicts an earlier one.
        OSError: the file cannot be read.
    """
    requests: list[Request] = []
    parents: dict[int, int] = {}  # block -> the block before it
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                request = _parse(line, block)
                _check_order(request, requests)
                _check_prefixes(request.blocks, parents)
            except TraceError as error:
                raise TraceError(f"{path}:{number}: {error}") from None
            requests.append(request)
    if not requests:
        raise TraceError(f"{path}: there are no requests in it")
    return requests


def save_trace(path: Path, requests: Iterable[Request]) -> None:
    """Write a trace that `load_trace` reads; times are rounded to milliseconds."""
    with path.open("w", encoding="utf-8") as out:
        for request in requests:
            record = {
                "timestamp": round(request.arrival * 1000),
                "input_length": request.input_tokens,
                "output_length": request.output_tokens,
                "hash_ids": list(request.blocks),
            }
            out.write(json.dumps(record) + "\n")


def _parse(line: bytes, block: int) -> Request:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # wrong UTF-8 is a ValueError too
        raise TraceError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise TraceError(f"an object is expected, not {_short(record)}")
    missing = [key for key in ("timestamp", "input_length", "output_length", "hash_ids") if key not in record]
    if missing:
        raise TraceError(f"{', '.join(missing)} missing")
    timestamp, blocks = record["timestamp"], record["hash_ids"]
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not 0 <= timestamp < LATEST:
        raise TraceError(f"timestamp must be milliseconds from 0 on, not {_short(timestamp)}")
    for key in ("input_length", "output_length"):
        if not _is_count(record[key], 1):
            raise TraceError(f"{key} must be a whole number of at least 1, not {_short(record[key])}")
    if not isinstance(blocks, list) or not all(_is_count(one, 0) for one in blocks):
        raise TraceError(f"hash_ids must be a list of whole numbers from 0 on, not {_short(blocks)}")
    wanted = -(-record["input_length"] // block)
    if len(blocks) != wanted:
        raise TraceError(
            f"an input of {record['input_length']} tokens has {wanted} blocks of {block}, hash_ids has {len(blocks)}"
        )
    return Request(timestamp / 1000, record["input_length"], record["output_length"], tuple(blocks))


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_order(request: Request, before: Sequence[Request]) -> None:
    if before and request.arrival < before[-1].arrival:
        raise TraceError("its timestamp lies before that of the request above")


def _check_prefixes(blocks: Sequence[int], parents: dict[int, int]) -> None:
    """Require that an id always follows the same id: it stands for the whole prompt up to there."""
    before = -1
    for one in blocks:
        known = parents.setdefault(one, before)
        if known != before:
            here, there = (f"follows {other}" if other >= 0 else "comes first" for other in (before, known))
            raise TraceError(f"block {one} {here}, but {there} elsewhere: ids must mean equal prefixes")
        before = one


def infinite_cache_hits(requests: Iterable[Request]) -> list[int]:
    """Return how many leading blocks of each request any earlier one had: what a cache that never evicts would hit."""
    seen: set[int] = set()
    hits = []
    for request in requests:
        hit = next((i for i, one in enumerate(request.blocks) if one not in seen), len(request.blocks))
        seen.update(request.blocks[hit:])
        hits.append(hit)
    return hits


def generate_trace(
    conversations: int = 1000,
    *,
    seed: int = 0,
    rate: float = 3.0,
    turns: float = 4.0,
    think: float = 30.0,
    prompts: int = 8,
    prompt_tokens: int = 2500,
    question_tokens: int = 1200,
    answer_tokens: int = 300,
    block: int = BLOCK,
) -> list[Request]:
    """Draw conversations of several turns below shared system prompts; the same arguments give the same trace.

    A turn's prompt is the whole conversation before it, answers included, and a new question.

    Args:
        conversations: how many.
        seed: decides everything that is random.
        rate: conversations that begin per second (a Poisson process).
        turns: mean turns of a conversation (geometric).
        think: mean seconds between the questions of a conversation (exponential).
        prompts: different system prompts; the k-th is chosen with a weight of 1 / k.
        prompt_tokens: mean length of a system prompt (uniform from half to one and a half of it).
        question_tokens: mean length of a question (exponential).
        answer_tokens: mean length of an answer (exponential).
        block: tokens per hash id.
    """
    if min(conversations, prompts, block) < 1 or min(rate, turns, think, question_tokens, answer_tokens) <= 0:
        raise ValueError("counts, rates and lengths of a generated trace must be positive")
    draw = random.Random(seed)  # noqa: S311 - a trace's dice, no secret
    systems = [round(prompt_tokens * draw.uniform(0.5, 1.5)) for _ in range(prompts)]
    weights = [1 / (k + 1) for k in range(prompts)]
    made: list[tuple[int, int, int, list[tuple[Any, ...]]]] = []
    begin = 0.0
    for conversation in range(conversations):
        begin += draw.expovariate(rate)
        system = draw.choices(range(prompts), weights)[0]
        now, length, turn = begin, systems[system], 0
        while turn == 0 or draw.random() < 1 - 1 / max(turns, 1.0):
            length += 1 + int(draw.expovariate(1 / question_tokens))
            answer = 1 + int(draw.expovariate(1 / answer_tokens))
            names = [_name(i, block, system, systems[system], conversation, length) for i in range(-(-length // block))]
            made.append((round(now * 1000), length, answer, names))
            length += answer
            now += draw.expovariate(1 / think)
            turn += 1
    made.sort(key=lambda one: one[0])
    ids: dict[tuple[Any, ...], int] = {}
    return [
        Request(time / 1000, length, answer, tuple(ids.setdefault(name, len(ids)) for name in names))
        for time, length, answer, names in made
    ]


def _name(index: int, block: int, system: int, system_tokens: int, conversation: int, length: int) -> tuple[Any, ...]:
    """Say what a block's content depends on: the system prompt, the conversation, or how far that had come."""
    end = (index + 1) * block
    if end <= system_tokens:
        return ("system", system, index)
    return ("conversation", conversation, index, min(end, length))
