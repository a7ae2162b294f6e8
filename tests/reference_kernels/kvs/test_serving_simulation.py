"""The simulator: equal to a naive one step by step, keeps its books, and its policies do what they are for."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.kvs.serving import engine
from reference_kernels.kvs.serving.cost import CostModel
from reference_kernels.kvs.serving.engine import simulate
from reference_kernels.kvs.serving.policies import ORDERS, ROUTERS, WINDOW, ExploitExplore
from reference_kernels.kvs.serving.replica import Job, Limits, Replica
from reference_kernels.kvs.serving.report import MEANINGS, Objectives, quantile, report, summarize
from reference_kernels.kvs.serving.trace import Request, generate_trace, infinite_cache_hits
from tests.reference_kernels.kvs.naive_server import NaiveServer
from tests.reference_kernels.repository import ROOT

# A small machine: reading the weights takes 1 ms, a token of prefill 1 ms, and reading a cached token 0.01 ms.
SMALL = CostModel(
    parameters=500.0, weight_bytes=1000.0, kv_bytes=10.0, attention_flops=7.0, flops=1e6, bandwidth=1e6,
    memory_bytes=1e9,
)  # fmt: skip


def small_trace(seed: int, conversations: int = 12, **more: float) -> list[Request]:
    return generate_trace(
        conversations, seed=seed, block=8, prompts=3, prompt_tokens=40, question_tokens=12, answer_tokens=12, turns=3,
        think=0.5, rate=5.0, **more,
    )  # fmt: skip


def largest(trace: list[Request], block: int) -> int:
    return max(len(request.blocks) + -(-request.output_tokens // block) for request in trace)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spare=st.integers(0, 60),
    batch=st.integers(1, 6),
    chunk=st.integers(1, 40),
    order=st.sampled_from(sorted(ORDERS)),
    replicas=st.integers(1, 3),
)
def test_leaps_equal_single_steps(seed, spare, batch, chunk, order, replicas):
    trace = small_trace(seed)
    limits = Limits(largest(trace, 8) + spare, 8, chunk=batch + chunk, batch=batch)
    result = simulate(trace, replicas=replicas, order=order, cost=SMALL, limits=limits)
    for number in range(replicas):
        expected = NaiveServer(limits, SMALL, order == "longest-prefix").serve(trace[number::replicas])
        for job, served in zip(result.jobs[number::replicas], expected, strict=True):
            assert job.hit_blocks == served.hit_blocks
            for time in ("admitted", "first_token", "finished"):
                assert getattr(job, time) == pytest.approx(getattr(served, time), rel=1e-9)


class Watched(Replica):
    """A replica that checks its books after every step."""

    running: set[int]

    def advance(self) -> list[Job]:
        before = self.until
        assert before >= getattr(self, "last", 0.0)  # time never goes back
        self.last = before
        finished = super().advance()
        assert self.until > before
        self.tree.check_integrity()
        active = [job for _, _, job in self._ends] + [job for job, _ in self._parts]
        if self._current and self._current not in active:
            active.append(self._current)
        answers = [slot for job in active for slot in job.answer]
        cached, nodes = [], [self.tree.root]
        while nodes:
            node = nodes.pop()
            cached += node.slots
            nodes += node.children.values()
        assert self.used == len(cached) + len(answers) == len({*cached, *answers})  # no block has two owners
        assert self.used <= self.limits.capacity
        assert max([*cached, *answers], default=0) < self.limits.capacity  # freed blocks are used again
        assert self.tree.root.locks == len(active) <= self.limits.batch
        assert self._tokens + len(self._ends) <= self.limits.chunk
        for job in active:
            assert self.tree.peek(job.request.blocks) == len(job.request.blocks)
        return finished


@pytest.mark.parametrize("routing", ROUTERS)
@pytest.mark.parametrize("order", ORDERS)
def test_books_balance_and_everyone_finishes_once(monkeypatch, routing, order):
    monkeypatch.setattr(engine, "Replica", Watched)
    trace = small_trace(5, conversations=40)
    limits = Limits(largest(trace, 8) + 5, 8, chunk=24, batch=5)
    result = simulate(trace, replicas=3, routing=routing, order=order, cost=SMALL, limits=limits)
    assert [job.request for job in result.jobs] == trace
    assert sum(replica.evicted for replica in result.replicas) > 0  # memory was short
    for job in result.jobs:
        assert job.request.arrival <= job.admitted < job.first_token <= job.finished < math.inf
        assert (job.first_token == job.finished) == (job.request.output_tokens == 1)
        assert job.cached_tokens + 1 <= job.request.input_tokens
        assert job.todo == 0
    for replica in result.replicas:
        assert not replica.waiting
        assert replica.tree.protected == 0
        assert replica.used == replica.tree.used <= replica.peak <= limits.capacity


@pytest.mark.parametrize("routing", ROUTERS)
def test_same_trace_gives_the_same_result(routing):
    trace = small_trace(6)
    first, second = (report(trace, [routing], replicas=3, block=8, cost=SMALL) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("order", ORDERS)
def test_one_unlimited_replica_reaches_the_infinite_cache(order):
    trace = small_trace(7, conversations=60)
    result = simulate(trace, order=order, cost=SMALL, limits=Limits(10**6, 8, chunk=20, batch=4))
    hits = [job.hit_blocks for job in result.jobs]
    assert sum(hits) == sum(infinite_cache_hits(trace))
    if order == "fcfs":
        assert hits == infinite_cache_hits(trace)


def grouped(groups: int, members: int, prefix: int, block: int = 8, gap: float = 0.0) -> list[Request]:
    """Members of each group share `prefix` blocks and add one of their own; the groups take turns."""
    shared = [tuple(range(1000 * g, 1000 * g + prefix)) for g in range(groups)]
    return [
        Request(gap * (m * groups + g), (prefix + 1) * block, 1, (*shared[g], 1000 * g + 500 + m))
        for m in range(members)
        for g in range(groups)
    ]


def test_longest_prefix_first_keeps_a_group_together_where_memory_holds_one():
    # The pool holds one request. First come first served alternates between the groups, so that each pushes out the
    # prefix that the next but two would need; longest prefix first serves a group to its end.
    trace = grouped(groups=3, members=5, prefix=6)
    limits = Limits(8, 8, chunk=100, batch=1)
    hits = {
        order: sum(job.hit_blocks for job in simulate(trace, order=order, cost=SMALL, limits=limits).jobs)
        for order in ORDERS
    }
    assert hits == {"fcfs": 0, "longest-prefix": 3 * (5 - 1) * 6}


def test_nobody_overtakes_the_request_that_memory_is_short_for():
    large, small = Request(0.1, 80, 1, tuple(range(10, 20))), Request(0.2, 8, 1, (30,))
    first = Request(0.0, 8, 400, (0,))  # takes 51 blocks until it ends
    result = simulate([first, large, small], cost=SMALL, limits=Limits(55, 8))
    assert [job.admitted >= result.jobs[0].finished for job in result.jobs] == [False, True, True]
    assert result.replicas[0].peak == 51


def test_who_arrives_at_the_end_of_a_step_joins_the_next():
    first = Request(0.0, 8, 50, (0,))
    end = simulate([first], cost=SMALL, limits=Limits(20, 8)).jobs[0].first_token
    result = simulate([first, Request(end, 8, 1, (1,))], cost=SMALL, limits=Limits(20, 8))
    assert result.jobs[1].admitted == end


def test_least_loaded_forgets_who_finished():
    trace = [Request(1000.0 * i, 8, 1, (i,)) for i in range(3)]
    result = simulate(trace, replicas=2, routing="least-loaded", cost=SMALL, limits=Limits(20, 8))
    assert [job.replica for job in result.jobs] == [0, 0, 0]


def test_exploiting_prefixes_beats_taking_turns():
    # Three groups on two replicas: in turn, every group meets both replicas and each computes its prefix. Preble's rule
    # computes it once, since eight matched blocks outweigh one of their own. Gaps leave each request alone.
    trace = grouped(groups=3, members=6, prefix=8, gap=1000.0)
    limits = Limits(10_000, 8)
    figures = {}
    for routing in ("round-robin", "exploit-explore"):
        result = simulate(trace, replicas=2, routing=routing, cost=SMALL, limits=limits)
        figures[routing] = summarize(result, Objectives())
        expected = 3 * (6 - (2 if routing == "round-robin" else 1)) * 8
        assert sum(job.hit_blocks for job in result.jobs) == expected
    assert figures["exploit-explore"]["ttft_mean"] < figures["round-robin"]["ttft_mean"]


def router(capacity: int = 100) -> ExploitExplore:
    return ExploitExplore(2, capacity, 8, SMALL)


def request(*blocks: int) -> Request:
    return Request(0.0, 8 * len(blocks), 1, blocks)


def test_exploring_takes_the_replica_with_less_work_in_the_window():
    policy = router()
    assert policy.route(request(1, 2, 3, 4), 0.0) == 0
    assert policy.route(request(5, 6), 1.0) == 1
    assert policy.route(request(7), 2.0) == 1
    assert policy.route(request(8, 9), 3.0 + WINDOW) == 0  # all that is forgotten, and the first of equals is 0


def test_exploring_takes_the_replica_on_which_less_is_missing():
    policy = router()
    assert policy.route(request(1, 2, 3, 4), 0.0) == 0
    assert policy.route(request(5, 6, 7, 8), 1.0) == 1
    # One block of four is no reason to exploit, but less to compute.
    assert policy.route(request(5, 10, 11, 12), 2.0) == 1


def test_exploring_spares_the_replica_whose_cache_is_used():
    policy = router(capacity=4)
    assert policy.route(request(1, 2, 3, 4), 0.0) == 0
    assert policy.route(request(5, 6, 7, 8), 1.0) == 1
    assert policy.route(request(1, 2, 3, 4), 2.0) == 0  # a hit that costs nothing: the loads stay equal
    assert policy.route(request(10, 11, 12, 13), 3.0) == 1
    assert policy.trees[0].peek([1, 2, 3, 4]) == 4
    assert [tree.used for tree in policy.trees] == [4, 4]
    assert policy.route(request(20, 21, 22, 23), 4.0 + WINDOW) == 0  # the hit lies too far back to count


def test_exploiting_ignores_the_load():
    policy = router()
    assert [policy.route(request(1, 2, 3, 4, own), 0.0) for own in range(10, 20)] == [0] * 10


def test_half_a_prompt_is_not_enough_to_exploit():
    policy = router()
    policy.route(request(1, 2, 3, 4), 0.0)  # loads replica 0
    assert policy.route(request(1, 2, 5, 6), 1.0) == 1
    assert policy.route(request(1, 2, 3, 9), 2.0) == 0


def test_long_answers_count_as_load():
    policy = router()
    for _ in range(3):
        policy.finished(Request(0.0, 8, 1000, (99,)), 0)
    assert policy.route(request(1, 2), 0.0) == 0
    assert policy.route(request(3), 0.0) == 1
    assert policy.load[0] == pytest.approx(1e9 * (SMALL.prefill_seconds(16) + 1000 * 16 * 10.0 / 1e6))


def test_least_loaded_counts_unfinished_prompt_tokens():
    policy = ROUTERS["least-loaded"](2, 100, 8, SMALL)
    assert [policy.route(request(*range(n)), 0.0) for n in (5, 2, 2, 2, 1)] == [0, 1, 1, 1, 0]
    policy.finished(request(*range(2)), 1)
    assert policy.route(request(1), 0.0) == 1


def test_cost_of_many_steps_is_the_sum_of_single_ones():
    cost = CostModel()
    singly = sum(cost.step_seconds(0, 0, 7, 1000 + 7 * i) for i in range(50))
    assert cost.step_seconds(0, 0, 7, 1000, steps=50) == pytest.approx(singly, rel=1e-12)


def test_default_cost_follows_from_the_stated_hardware():
    cost = CostModel()
    assert cost.capacity_tokens == int((0.9 * 80e9 - 16e9) / 131072) == 427_246
    assert cost.step_seconds(0, 0, 1, 0) == pytest.approx(16e9 / 3e12)  # one token: the weights are read
    assert cost.prefill_seconds(1000) == pytest.approx((16e9 * 1000 + 524288 * 500_500) / 400e12)
    assert cost.prefill_seconds(300) + cost.prefill_seconds(700, 300) == pytest.approx(cost.prefill_seconds(1000))


def test_figures_of_a_run_counted_by_hand():
    # Prefill of 16 tokens 16 ms, attention 136 pairs x 7 us; then 2 steps of 1 ms that read 17 and 18 tokens.
    trace = [Request(1.0, 16, 3, (0, 1)), Request(11.0, 16, 1, (0, 1))]
    result = simulate(trace, cost=SMALL, limits=Limits(10, 8))
    first = 0.016 + 136 * 7e-6
    second = 0.001 + 16 * 7e-6  # all cached: one token is computed, and it sees 16
    figures = summarize(result, Objectives(ttft=0.01, tpot=1.0))
    assert figures["ttft_mean"] == pytest.approx((first + second) / 2)
    assert figures["ttft_p50"] == pytest.approx((first + second) / 2)
    assert figures["tpot_mean"] == figures["tpot_p99"] == pytest.approx((2 * 0.001 + 35 * 10e-6) / 2)
    assert figures["hit_rate_blocks"] == figures["hit_rate_blocks_infinite"] == 0.5
    assert figures["hit_rate_tokens"] == 15 / 32
    assert figures["seconds"] == pytest.approx(10 + second)
    assert figures["goodput"] == pytest.approx(1 / (10 + second))  # the first misses its objective
    assert figures["output_tokens_per_second"] == pytest.approx(4 / (10 + second))
    assert figures["busy_share"] == pytest.approx((first + 0.00235 + second) / (10 + second))
    assert set(figures) == set(MEANINGS)
    strict = summarize(result, Objectives(ttft=1.0, tpot=0.001))  # the only request with further tokens takes 1.175 ms
    assert strict["good_share"] == 0.5


def test_speed_brings_arrivals_closer():
    trace = [Request(0.0, 8, 1, (0,)), Request(100.0, 8, 1, (0,))]
    slow, fast = (
        report(trace, ["round-robin"], replicas=1, block=8, speed=speed, cost=SMALL)["round-robin"]["seconds"]
        for speed in (1.0, 10.0)
    )
    assert slow - fast == pytest.approx(90.0)


def test_quantile_is_linear_between_values():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([0.0, 10.0], 0.99) == pytest.approx(9.9)
    assert quantile([4.0], 0.99) == 4.0
    assert math.isnan(quantile([], 0.5))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"replicas": 0}, "at least one replica"),
        ({"routing": "magic"}, "routing 'magic' is unknown; there are round-robin"),
        ({"order": "magic"}, "order 'magic' is unknown; there are fcfs"),
        ({"limits": Limits(2, 8)}, "request 0 needs 3 blocks of 8 tokens, a replica holds 2"),
        ({"limits": Limits(100, 16)}, "request 0 has 2 blocks for 16 tokens"),
    ],
)
def test_wrong_arguments_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        simulate([Request(0.0, 16, 1, (0, 1))], **{"limits": Limits(100, 8), **wrong})


def test_requests_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"request 1 arrives at 1\.0 s, behind one at 2\.0 s"):
        simulate([Request(2.0, 1, 1, (0,)), Request(1.0, 1, 1, (0,))])
    with pytest.raises(ValueError, match="arrives at nan s"):
        simulate([Request(math.nan, 1, 1, (0,))])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Limits(0, 8), "at least 1"),
        (lambda: Limits(10, 8, chunk=4, batch=4), "no room for prefill"),
        (lambda: CostModel(flops=0), "flops must be positive, not 0"),
        (lambda: CostModel(bandwidth=math.nan), "bandwidth must be positive"),
        (lambda: CostModel(memory_bytes=16e9), "no memory for the cache"),
        (lambda: Objectives(ttft=0), "objectives must be positive"),
        (lambda: report(small_trace(1), ["round-robin"], speed=0), "speed must be positive"),
        (lambda: report(small_trace(1), ["round-robin"], capacity_tokens=100), "at least one block of 512 tokens"),
    ],
)
def test_impossible_machines_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_simulation_needs_no_torch():
    code = "import sys; import reference_kernels.kvs.serving.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
