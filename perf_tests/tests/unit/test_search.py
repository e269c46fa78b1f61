"""The search on made-up measurements, against trying every stack that there is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, combinations

import pytest
from msgspec import structs

from diffusers_perf.catalog.declarations import Optimization, Slot, Tolerance, Tolerances
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.search.attempt import SEVERAL, Ask, Stack, Stopped, TooLong, Tried, gain
from diffusers_perf.search.confirming import confirm, reference_of
from diffusers_perf.search.search import Search
from diffusers_perf.search.shortlist import shortlist
from perf_tests.tests.unit.catalogs import ours
from perf_tests.tests.unit.fake import WORKLOAD
from perf_tests.tests.unit.lab import Lab, Took, factors, made, search


def allowed(candidates: list[Optimization]) -> Iterator[Stack]:
    """Every stack that the catalogue allows."""
    sizes = range(len(candidates) + 1)
    for chosen in chain.from_iterable(combinations(candidates, size) for size in sizes):
        names = [o.name for o in chosen]
        decided = [what for o in chosen for what in o.decides]
        needed = [o.needs.optimization for o in chosen if o.needs.optimization]
        if len(decided) == len(set(decided)) and set(needed) <= set(names):
            yield tuple(names)


# Against trying all


def drawn(draw: random.Random) -> tuple[list[Optimization], dict[str, tuple[float, float]]]:
    """A catalogue with what each multiplies host and GPU by, as the real ones do: some launch less
    and cost the GPU a little, some have it work less, some do nothing, some harm. Of the first two
    some are several ways to do one thing; some need another.
    """
    candidates: list[Optimization] = []
    of: dict[str, tuple[float, float]] = {}
    useful: list[str] = []
    for index in range(7):
        name, kind = f"o{index}", draw.choice(["launches", "kernels", "nothing", "harm"])
        of[name] = {
            "launches": (draw.uniform(0.2, 0.8), draw.uniform(1, 1.02)),
            "kernels": (1.0, draw.uniform(0.5, 0.97)),
            "nothing": (1.0, 1.0),
            "harm": (draw.uniform(1, 1.5), draw.uniform(1, 1.5)),
        }[kind]
        slot = {"launches": Slot.DENOISER_LAUNCHES, "kernels": Slot.ATTENTION}.get(kind)
        decides = [slot] if slot and draw.random() < 0.5 else []
        needs = draw.choice(useful) if useful and draw.random() < 0.3 else None
        compiles = draw.random() < 0.2
        candidates.append(made(name, *decides, needs=needs, compiles=compiles))
        if kind != "harm" and not decides:
            useful.append(name)
    return candidates, of


@pytest.mark.parametrize("seed", range(30))
def test_as_good_as_trying_everything(seed: int) -> None:
    candidates, of = drawn(random.Random(seed))
    world = factors(of)
    found, lab = search(candidates, world, noise=0.003)
    took = [world(s) for s in allowed(candidates)]
    best = min(t.latency for t in took if isinstance(t, Took))
    last = world(found.stack)
    assert isinstance(last, Took)
    assert last.latency <= 1.03 * best
    assert found.stack in set(allowed(candidates))
    assert len({ask.stack for ask in lab.asked}) <= 2**7


@pytest.mark.parametrize("seed", range(100))
def test_alternating_search_ends(seed: int) -> None:
    """Graphs that differ by less than the noise, each in the place of the others."""
    candidates = [made(f"graph{n}", Slot.DENOISER_LAUNCHES) for n in range(4)]
    candidates += [made("helps"), made("helps more")]
    of = {o.name: (0.5 + 0.004 * n, 1.0) for n, o in enumerate(candidates)}
    of |= {"helps": (0.97, 0.9), "helps more": (0.97, 0.8)}
    world = factors(of)
    kept: dict[str, Tried] = {}
    lab = Lab(world=world, noise=0.03)

    def attempt(ask: Ask) -> Tried:
        # As `explore` does: what was tried is never tried again.
        if len(lab.asked) > 100:
            raise AssertionError("it does not end")
        if ask.key in kept:
            lab.asked.append(ask)
        else:
            tried = lab(replace(ask, why=f"{ask.why} {seed}")).measured
            assert tried is not None
            assert tried.gpu_busy_s is not None
            busy = tried.gpu_busy_s * random.Random(f"{ask.key} {seed}").uniform(0.994, 1.006)
            kept[ask.key] = Tried(measured=structs.replace(tried, gpu_busy_s=busy))
        return kept[ask.key]

    Search(candidates=candidates, attempt=attempt, tell=lambda text: None).run()


def test_compatible_optimizations_are_tried_at_once_and_compiling_ones_later() -> None:
    found, lab = search(
        [
            made("compiler", Slot.COMPILER, compiles=True),
            made("good", Slot.ATTENTION),
            made("better", Slot.ATTENTION),
            made("steps"),
            made("graph", needs="steps"),
        ],
        factors(
            {
                "compiler": (1, 0.7),
                "good": (1, 0.9),
                "better": (1, 0.8),
                "steps": (0.9, 1),
                "graph": (0.1, 1),
            }
        ),
    )
    assert [ask.change for ask in lab.asked][:4] == [
        "reference",
        "+ good + steps + graph",
        "+ better - good",
        "+ compiler",
    ]
    assert found.stack == ("compiler", "better", "steps", "graph")


def test_what_fails_together_is_tried_in_halves() -> None:
    def world(stack: Stack) -> Took | str:
        if "broken" in stack:
            return "the kernel is not there"
        return Took(host=0.1, busy=1.0 - 0.1 * len(stack))

    names = ("one", "two", "three", "broken")
    found, lab = search([made(name) for name in names], world)
    assert [ask.stack for ask in lab.asked][1:5] == [
        names,
        ("one", "two"),
        names,
        ("one", "two", "three"),
    ]
    assert found.stack == ("one", "two", "three")
    assert found.rejected["broken"].reason == "the kernel is not there"


def test_what_costs_an_eager_gpu_a_little_is_tried_beneath_a_compiler() -> None:
    """Instead of one after the other in eager, which would take the time of many."""

    def world(stack: Stack) -> Took:
        of_layout = 0.9 if "compile" in stack else 1.04
        busy = (1, of_layout)["layout" in stack] * (1, 1.01)["useless" in stack]
        return Took(host=0.5, busy=busy * (1, 0.7)["compile" in stack])

    candidates = [
        made("layout", Slot.ATTENTION),
        made("useless"),
        made("instead", Slot.ATTENTION),
        made("compile", compiles=True),
    ]
    found, lab = search(candidates, world)
    assert found.stack == ("layout", "compile")
    # The useless one is dropped before alternatives are tried.
    assert [ask.change for ask in lab.asked] == [
        "reference",
        "+ layout + useless",
        "+ layout + useless + compile",
        "- layout",
        "- useless",
        "- compile",
        "+ instead - layout",
    ]


def test_what_fails_is_not_tried_beneath_a_compiler() -> None:
    """That takes a minute or more."""
    world = factors({"bad": (1, 0.9), "good": (1, 0.9), "compile": (1, 0.7)})
    found, lab = search(
        [made("bad"), made("good"), made("compile", compiles=True)],
        lambda stack: "its image is out" if "bad" in stack else world(stack),
    )
    assert found.stack == ("good", "compile")
    assert "+ bad + good + compile" not in [ask.change for ask in lab.asked]


@pytest.mark.parametrize(
    "took",
    [
        Took(host=0.1, busy=5.0),  # far too slow
        Took(host=0.1, busy=1.02, memory=3),
    ],
)
def test_what_is_far_out_is_not_tried_with_a_compiler(took: Took) -> None:
    def world(stack: Stack) -> Took:
        return took if {"a", "b"} <= {*stack} else Took(host=0.1, busy=1, memory=1)

    _, lab = search([made("a"), made("b"), made("c", compiles=True)], world, memory=2)
    assert "+ a + b + c" not in [ask.change for ask in lab.asked]


def test_what_could_not_be_timed_again_with_a_compiler_is_tried_by_itself() -> None:
    lab = Lab(
        world=lambda stack: Took(
            host=(1, 0.8)["good" in stack] * (1, 1.4)["bad" in stack] * (1, 0.8)["c" in stack],
            busy=0,
            on_gpu=False,
        )
    )
    # As fast as the reference, which alone leads to a compiler on a CPU.
    lab.world = lambda stack, world=lab.world: (  # type: ignore[misc]
        Took(host=1, busy=0, on_gpu=False) if stack == ("bad", "good") else world(stack)
    )

    def attempt(ask: Ask) -> Tried:
        if "again" in ask.change and "c" in ask.stack:
            raise TooLong("the time is short")
        return lab(ask)

    candidates = [made("bad"), made("good"), made("c", compiles=True)]
    found = Search(candidates=candidates, attempt=attempt, tell=lambda text: None)
    found.run()
    assert "good" in found.stack


def test_halves_are_tried_where_compiling_takes_too_long() -> None:
    lab = Lab(world=factors({"bad": (1, 1.1), "good": (1, 0.95), "compile": (1, 0.7)}))

    def attempt(ask: Ask) -> Tried:
        if "compile" in ask.stack:
            raise TooLong("the time is short")
        return lab(ask)

    found = Search(
        candidates=[made("bad"), made("good"), made("compile", compiles=True)],
        attempt=attempt,
        tell=lambda text: None,
    )
    found.run()
    assert found.stack == ("good",)
    assert found.left_out == "the time is short"


def test_each_attempt_says_what_is_to_be_measured_in_full_otherwise() -> None:
    _, lab = search(
        [made("slow"), made("compile", compiles=True)],
        factors({"slow": (1.2, 1), "compile": (0.7, 0.7)}),
    )
    assert [(ask.change, ask.best) for ask in lab.asked] == [
        ("reference", ()),
        ("+ slow", ()),
        ("again before + slow", ()),
        ("again + slow", ()),
        ("+ compile", ()),
        ("+ slow", ("compile",)),
        ("again before + slow", ("compile",)),
        ("again + slow", ("compile",)),
    ]


def test_clock_that_speaks_for_keeping_is_asked_once_beside_a_gpu() -> None:
    """For anything else twice, where the GPU is as busy: a machine drifts."""
    host = {(): 1.0, ("a",): 0.8, ("a", "b"): 0.6, ("b",): 0.8}
    found, lab = search([made("a"), made("b")], lambda stack: Took(host=host[stack], busy=0.5))
    assert found.stack == ("a", "b")
    changes = [ask.change for ask in lab.asked]
    timed_again = ["again before + a + b", "again + a + b"]
    assert changes == ["reference", "+ a + b", *timed_again, "- a", "- b"]


@pytest.mark.parametrize("seed", range(6))
def test_machine_that_becomes_faster_sells_no_slower_stack(seed: int) -> None:
    """Beside a GPU that is as busy in all of them."""
    draw = random.Random(seed)
    pace = 1.0

    def world(stack: Stack) -> Took:
        nonlocal pace
        pace *= 1 - draw.uniform(0.01, 0.03)
        return Took(host=pace * 1.03 ** len(stack), busy=0.1)

    found, _ = search([made(name) for name in "abcd"], world)
    assert found.stack == ()


def test_dtype_comes_before_what_computes_in_it() -> None:
    _, lab = search(
        [made("layout"), made("half", Slot.DTYPE), made("fused")],
        factors({"layout": (1, 0.9), "half": (6, 6), "fused": (1, 0.9)}),
    )
    assert [ask.stack for ask in lab.asked][1:3] == [("half",), ("layout", "fused")]


def test_other_way_to_do_what_several_do_comes_last() -> None:
    found, lab = search(
        [
            made("parts", Slot.COMPILER, compiles=True),
            made("graph", Slot.DENOISER_LAUNCHES),
            made("all in one", Slot.COMPILER, Slot.DENOISER_LAUNCHES, compiles=True),
            made("nothing"),
        ],
        factors(
            {"parts": (1, 0.8), "graph": (0.2, 1), "all in one": (0.2, 0.7), "nothing": (1, 1)}
        ),
    )
    changes = [ask.change for ask in lab.asked]
    assert changes.index("- nothing") < changes.index("+ all in one - parts - graph")
    assert found.stack == ("all in one",)


def test_search_goes_on_without_what_takes_too_long() -> None:
    lab = Lab(world=factors({"whole": (1, 0.5), "parts": (1, 0.8), "quick": (1, 0.9)}))

    def attempt(ask: Ask) -> Tried:
        if "whole" in ask.stack:
            raise TooLong("80 s left, and it may take 120 s")
        return lab(ask)

    candidates = [made("quick"), made("whole", Slot.COMPILER, compiles=True)]
    candidates.append(made("parts", Slot.COMPILER, compiles=True))
    found = Search(candidates=candidates, attempt=attempt, tell=lambda text: None)
    found.run()
    assert found.stack == ("quick", "parts")
    assert found.untried == ["whole"]
    assert found.left_out == "80 s left, and it may take 120 s"


def test_what_saves_memory_is_tried_where_the_limit_is_exceeded() -> None:
    def world(stack: Stack) -> Took:
        slow, fast = "offload" in stack, "fast" in stack
        return Took(host=0, busy=(2 if slow else 1) * (0.5 if fast else 1), memory=6 - 4 * slow)

    candidates = [made("fast"), made("offload", aim="memory")]
    limited, lab = search(candidates, world, memory=3.0)
    assert limited.stack == ("fast", "offload")
    assert [ask.change for ask in lab.asked][:3] == ["reference", "+ offload", "+ fast"]
    roomy, lab = search(candidates, world, memory=7.0)
    assert roomy.stack == ("fast",)
    assert not any("offload" in ask.stack for ask in lab.asked)
    assert roomy.rejected["offload"].reason == "the stack keeps the limit on memory without it"


def test_rejected_optimization_is_tried_again_when_it_may_help() -> None:
    """The host is not in the way until the GPU has less to do."""
    found, lab = search(
        [made("graph"), made("slim", compiles=True)],
        factors({"graph": (0.2, 1.02), "slim": (1, 0.5)}, host=0.55),
    )
    assert [ask.stack for ask in lab.asked][:3] == [(), ("graph",), ("slim",)]
    assert found.stack == ("graph", "slim")


# What each does to host and GPU on an H200, roughly; all others do nothing.
ON_H200 = {
    "tf32": (1, 0.71),
    "bf16": (1, 0.46),
    "autocast": (1.2, 1.13),
    "channels_last": (1, 0.91),
    "naive_attention": (1.1, 1.5),
    "cudnn_benchmark": (1, 0.91),
    "fused_qkv": (0.98, 0.99),
    "sdpa_flash": (1, 1.05),
    "sdpa_efficient": (1, 1.2),
    "sdpa_math": (1.1, 1.5),
    "compile": (0.6, 0.72),
    "compile_reduce_overhead": (0.3, 0.73),
    "compile_regional": (0.8, 0.9),
    "cuda_graph": (0.25, 1),
    "cuda_graph_step": (0.15, 1),
    "device_steps": (0.9, 1),
}


@pytest.mark.parametrize("seed", range(5))
def test_declared_optimizations_are_candidates(seed: int) -> None:
    """As good as the stack that was made by hand, and in few enough attempts that compile."""
    from diffusers_perf.optimizations import tolerances

    def world(stack: Stack) -> Took:
        of = {**ON_H200, "fp16": (1.0, 0.46 if "tf32" in stack else 0.32)}
        took = factors({name: of.get(name, (1, 1)) for name in stack}, busy=1.9)(stack)
        assert isinstance(took, Took)
        # The decoder and the text encoder, which no graph of the UNet launches.
        rest = 0.04 - 0.015 * sum(
            f"cuda_graph_{what}" in stack for what in ("decoder", "text_encoder")
        )
        return Took(host=max(took.host, took.busy) + rest, busy=took.busy)

    tolerance = tolerances.LOSSLESS.seeded
    assert tolerance is not None
    candidates, _ = shortlist(
        ours().optimizations.values(),
        base=[],
        kind="seeded",
        image=tolerance,
        without=[],
        memory_is_limited=False,
        lacking={
            "xformers": "not installed",
            "fused_mlp": "a UNet has no such feed-forward",
            "fused_rotary": "a UNet has no such attention",
        },
    )
    lab = Lab(world=lambda stack: world(stack), noise=0.003 + seed / 1000)
    found = Search(candidates=candidates, attempt=lab, tell=lambda text: None)
    found.run()
    best = world(ours().stacks["best_lossless"])
    assert world(found.stack).latency <= 1.03 * best.latency
    compiling = [a for a in lab.asked if any(ours().optimizations[n].compiles for n in a.stack)]
    assert len(lab.asked) - len(compiling) < 60
    assert len(compiling) < 40


def test_gain_hidden_by_the_host_counts() -> None:
    """The kernels' gain shows in the latency only once the graph has taken the host away."""
    found, _ = search(
        [made("kernels"), made("steps"), made("graph", needs="steps")],
        factors({"kernels": (1, 0.5), "steps": (1, 1), "graph": (0.1, 1.01)}),
    )
    assert found.stack == ("kernels", "steps", "graph")


def test_what_needs_the_loser_of_a_place_is_not_tried() -> None:
    found, lab = search(
        [
            made("whole", Slot.COMPILER, compiles=True),
            made("parts", Slot.COMPILER, compiles=True),
            made("rest", needs="parts", compiles=True),
        ],
        factors({"whole": (0.5, 0.5), "parts": (0.8, 0.8), "rest": (0.9, 0.9)}),
    )
    assert found.stack == ("whole",)
    assert not any("rest" in ask.stack for ask in lab.asked)
    assert found.untried == []
    assert found.rejected["rest"].reason == "needs parts, which was no better in its place"


def test_requirement_is_added_in_one_step() -> None:
    found, lab = search(
        [made("steps"), made("graph", needs="steps")],
        factors({"steps": (1, 1), "graph": (0.3, 1)}),
    )
    assert [step.change for step in found.steps] == ["reference", "+ steps + graph"]
    assert "steps" not in found.rejected
    assert ("graph",) not in {ask.stack for ask in lab.asked}


def test_better_of_two_in_one_slot_wins() -> None:
    found, _ = search(
        [made("good", Slot.ATTENTION), made("better", Slot.ATTENTION), made("bad", Slot.ATTENTION)],
        factors({"good": (1, 0.9), "better": (1, 0.8), "bad": (1, 1.2)}),
    )
    assert found.stack == ("better",)
    assert found.steps[-1].change == "+ better - good"
    assert found.rejected["bad"].reason == "slower: GPU busy 1.50x as long"


def test_useless_optimization_is_dropped() -> None:
    def world(stack: Stack) -> Took:
        busy = 0.2 if "fp16" in stack else 0.7 if "tf32" in stack else 1.0
        return Took(host=0.1, busy=busy)

    found, _ = search([made("tf32"), made("fp16")], world)
    assert found.stack == ("fp16",)
    assert [step.change for step in found.steps] == ["reference", "+ tf32 + fp16", "- tf32"]
    assert found.rejected["tf32"].reason == "leaving it out costs nothing"


def test_useless_optimization_is_tried_again_later() -> None:
    def world(stack: Stack) -> Took:
        host = 0.3 if "graph" in stack else 1.6
        return Took(host=host, busy=0.7 if {"layout", "graph"} <= {*stack} else 1.0)

    found, _ = search([made("layout"), made("graph")], world)
    assert found.stack == ("layout", "graph")


def test_latency_only_gain_is_timed_twice() -> None:
    """A machine that became faster under way makes no optimization faster."""
    calls = iter([1.0, 0.8, 0.8, 0.8])

    found, lab = search(
        [made("nothing")], lambda stack: Took(host=next(calls), busy=0.0, on_gpu=False)
    )
    assert found.stack == ()
    assert [ask.change for ask in lab.asked][1:] == [
        "+ nothing",
        "again before + nothing",
        "again + nothing",
    ]
    assert found.rejected["nothing"].reason == "gains nothing"


@pytest.mark.parametrize(("pace", "asked"), [(7.0, 2), (1.5, 4)])
def test_obviously_slower_stack_is_timed_once(pace: float, asked: int) -> None:
    found, lab = search(
        [made("slow")], lambda s: Took(host=pace if s else 1.0, busy=0, on_gpu=False)
    )
    assert len(lab.asked) == asked
    how = ", by its first generation alone" if pace > SEVERAL else ""
    assert found.rejected["slow"].reason == f"slower: latency {pace:.2f}x as long{how}"


def test_hopeless_stack_is_slower_and_what_it_may_hide_is_tried_again() -> None:
    """Beside a GPU, whose time was not measured; a CPU's clock says all."""
    for on_gpu in (True, False):

        def world(stack: Stack) -> Took:
            host = 22.0 if "slow" in stack and "graph" not in stack else 1.6
            return Took(host=host, busy=0.6 * 0.8 ** len(stack), on_gpu=on_gpu)  # noqa: B023

        found, lab = search([made("slow", Slot.DTYPE), made("graph")], world)
        again = [ask.change for ask in lab.asked].count("+ slow") - 1
        assert again == on_gpu
        assert found.stack == (("slow", "graph") if on_gpu else ())
        assert ("slow" in found.rejected) == (not on_gpu)


def test_stack_that_is_needed_is_worth_its_place_though_it_is_not_timed_without() -> None:
    told: list[str] = []
    lab = Lab(world=factors({"first": (0.9, 0.9), "needed": (0.1, 0.1)}))
    candidates = [made("first"), made("needed")]
    found = Search(candidates=candidates, attempt=lab, tell=told.append)
    found.run()
    assert found.stack == ("first", "needed")
    assert "not kept: needed is worth its place" in told


def test_slow_stack_is_measured_where_the_best_takes_too_much_memory() -> None:
    def world(stack: Stack) -> Took:
        return Took(host=50.0 if stack else 1.0, busy=0.6, memory=1 if stack else 2)

    found, _ = search([made("offload", aim="memory")], world, memory=1)
    assert found.stack == ("offload",)


def test_stack_timed_once_is_not_untried() -> None:
    lab = Lab(world=lambda stack: Took(host=0.8 if stack else 1.0, busy=0.0, on_gpu=False))

    def attempt(ask: Ask) -> Tried:
        if ask.change.startswith("again"):
            raise Stopped("no time")
        return lab(ask)

    found = Search(
        candidates=[made("quick", Slot.DTYPE), made("later")],
        attempt=attempt,
        tell=lambda text: None,
    )
    with pytest.raises(Stopped):
        found.run()
    assert found.rejected["quick"].reason == "no time left to time it again"
    assert found.untried == ["later"]


def test_interference_in_the_old_stack_is_not_a_gain() -> None:
    new, old = (
        Lab(world=lambda stack: Took(host=1, busy=0, on_gpu=False))(
            Ask(stack=(), change="")
        ).measured
        for _ in range(2)
    )
    assert new is not None
    assert old is not None
    affected = structs.replace(old, rounds_s=(1.5, 1.6, 1.0, 1.5, 1.6, 1.5, 1.6))
    assert gain(new, affected).latency == 1
    assert gain(
        new, structs.replace(old, rounds_s=(1.5, 1.6, 1.2, 1.5, 1.6, 1.5))
    ).latency == pytest.approx(1.2)


def test_best_is_measured_in_full_beside_the_reference_where_latency_decides() -> None:
    found, lab = search(
        [made("fast")], lambda s: Took(host=0.5 if s else 1.0, busy=0, on_gpu=False)
    )
    assert not found.is_confirmed
    confirm(found)
    assert [(ask.change, ask.in_full) for ask in lab.asked][-2:] == [
        ("in full, at the end: reference", True),
        ("in full, at the end: fast", True),
    ]
    assert found.is_confirmed
    on_gpu, lab = search([made("fast")], factors({"fast": (0.1, 0.5)}))
    seen = len(lab.asked)
    confirm(on_gpu)
    assert [ask.stack for ask in lab.asked[seen:]] == [("fast",)]


def test_best_without_time_to_be_measured_in_full_is_compared_with_what_it_was() -> None:
    """Not with a reference that was timed in full when the machine had become slower."""
    pace = 1.0

    def world(stack: Stack) -> Took:
        return Took(host=pace * (0.9 if stack else 1.0), busy=0, on_gpu=False)

    found, lab = search([made("fast")], world)

    def attempt(ask: Ask) -> Tried:
        nonlocal pace
        pace = 2.0
        if ask.stack:
            raise Stopped("no time")
        return lab(ask)

    found.attempt = attempt
    with pytest.raises(Stopped):
        confirm(found)
    assert reference_of(found).latency_s == 1.0
    # In few steps as the best, where that was.
    short = structs.replace(found.steps[0].measured, rounds_s=(0.95,))
    found.steps.insert(1, replace(found.steps[0], measured=short))
    assert reference_of(found).latency_s == 0.95
    found.attempt = lab
    confirm(found)
    assert reference_of(found).latency_s == 2.0


def test_stack_that_is_out_in_full_gives_way_to_the_one_before() -> None:
    """As where the image moves away in later steps, or something is left in memory."""
    lab = Lab(world=factors({"half": (1, 0.9), "leaks": (1, 0.9)}, host=0.1))

    def attempt(ask: Ask) -> Tried:
        out = ask.in_full and "leaks" in ask.stack
        return replace(lab(ask), refused="it leaks" if out else "")

    candidates = [made("half", Slot.DTYPE), made("leaks")]
    found = Search(candidates=candidates, attempt=attempt, tell=lambda text: None)
    found.run()
    before = found.stack
    confirm(found)
    assert (before, found.stack) == (("half", "leaks"), ("half",))
    assert found.rejected["leaks"].reason == "it leaks"
    assert found.is_confirmed


def test_reference_is_measured_in_few_steps_as_well_where_stacks_are() -> None:
    lab = Lab(world=lambda s: Took(host=0, busy=0.8 if s else 1.0))

    def attempt(ask: Ask) -> Tried:
        tried = lab(ask)
        return replace(tried, others_are_shorter=not ask.stack and ask.in_full)

    found = Search(candidates=[made("fast")], attempt=attempt, tell=lambda text: None)
    found.run()
    assert [(ask.stack, ask.in_full) for ask in lab.asked] == [
        ((), True),
        ((), False),
        (("fast",), False),
    ]
    assert [step.change for step in found.steps] == ["reference", "reference", "+ fast"]


ONE_TWO = ("one", "two")
ALL = ("third", "one", "two")


@pytest.mark.parametrize(
    ("earlier", "memory", "stack"),
    [
        ({ONE_TWO: Took(host=0, busy=0.4)}, None, ONE_TWO),
        ({ONE_TWO: Took(host=0, busy=0.6)}, None, ("third",)),
        ({ONE_TWO: Took(host=0, busy=0.4, memory=3)}, 2.0, ("third",)),
        ({("one", "left_out"): Took(host=0, busy=0.1)}, None, ("third",)),
        ({ONE_TWO: Took(host=0, busy=0.4), ALL: Took(host=0, busy=0.3)}, None, ONE_TWO),
    ],
)
def test_better_stack_of_an_earlier_search_is_taken_up(
    earlier: dict[Stack, Took], memory: float | None, stack: Stack
) -> None:
    """Of two that gain only together, which this search did not come to."""

    def world(stack: Stack) -> Took | str:
        if stack == ALL:
            return "its image is no longer close"
        return earlier.get(stack, Took(host=0, busy=0.5 if "third" in stack else 1.0))

    found, lab = search([made(name) for name in ALL], world, memory=memory)
    assert found.stack == ("third",)
    asks = {of: Ask(stack=of, change="", why="against another") for of in earlier}
    found.take_up({ask: lab.measured(ask, earlier[of]) for of, ask in asks.items()})
    assert found.stack == stack


def test_fastest_earlier_stack_is_taken_up() -> None:
    earlier: dict[Stack, Took] = {
        ONE_TWO: Took(host=0, busy=0.45),
        ("one", "four"): Took(host=0, busy=0.4),
        ("two", "four"): Took(host=0, busy=0.42),
    }

    def world(stack: Stack) -> Took:
        return earlier.get(stack, Took(host=0, busy=0.5 if "third" in stack else 1.0))

    found, lab = search([made(name) for name in (*ALL, "four")], world)
    tried = len(lab.asked)
    asks = {of: Ask(stack=of, change="", why="against another") for of in earlier}
    found.take_up({ask: lab.measured(ask, earlier[of]) for of, ask in asks.items()})
    assert found.stack == ("one", "four")
    assert [(ask.stack, ask.why) for ask in lab.asked[tried:]] == [
        (("one", "four"), "against another")
    ]


def test_earlier_stack_that_fits_is_taken_up_though_it_is_slower() -> None:
    """Of a search that came to none that stays below the limit."""
    lean = Took(host=0, busy=2.0, memory=1)

    def world(stack: Stack) -> Took:
        return lean if stack == ONE_TWO else Took(host=0, busy=1.0, memory=3)

    # In halves, it tries none with `one` and `two` alone.
    found, lab = search([made(name) for name in ("one", "third", "two")], world, memory=2.0)
    assert not found.fits(found.steps[-1].measured)
    ask = Ask(stack=ONE_TWO, change="", why="against another")
    found.take_up({ask: lab.measured(ask, lean)})
    assert found.stack == ONE_TWO


@pytest.mark.parametrize("reason", [Stopped, TooLong])
@pytest.mark.parametrize("names", [("fast",), ("fast", "more")])
def test_stack_without_time_for_a_second_timing_is_taken_up_last(
    names: Stack, reason: type[Stopped]
) -> None:
    def attempt(ask: Ask) -> Tried:
        if hurried and ask.change.startswith("again"):
            raise reason("no time")
        return lab(ask)

    lab = Lab(world=lambda s: Took(host=0.5 if s else 1.0, busy=0, on_gpu=False))
    found = Search(candidates=[made(n) for n in names], attempt=attempt, tell=lambda text: None)
    hurried = True
    with suppress(Stopped):
        found.run()
    assert not found.stack
    assert {*found.rejected} == {*names}
    hurried = False
    ask = Ask(stack=names, change="", why="against the reference")
    found.take_up({ask: lab.measured(ask, Took(host=0.5, busy=0, on_gpu=False))})
    assert found.stack == names


def test_what_the_base_has_is_there_for_what_needs_it() -> None:
    found, _ = search(
        [made("alone", needs="of_base"), made("other")],
        factors({"alone": (0.5, 0.5), "other": (0.9, 0.9)}),
    )
    assert found.stack == ("alone", "other")


def test_better_earlier_stack_is_timed_again() -> None:
    """The machine was faster then, and the stack is not."""
    found, lab = search(
        [made("fast", Slot.DTYPE), made("late")],
        lambda s: Took(host=0.5 if "fast" in s else 1.0, busy=0, on_gpu=False),
    )
    ask = Ask(stack=("late",), change="", why="against another")
    found.take_up({ask: lab.measured(ask, Took(host=0.4, busy=0, on_gpu=False))})
    assert [a.stack for a in lab.asked[-3:]] == [("late",), ("fast",), ("late",)]
    assert found.stack == ("fast",)


def test_failed_stack_is_noted_and_the_search_goes_on() -> None:
    def world(stack: Stack) -> Took | str:
        if "broken" in stack:
            return "out of memory"
        return Took(host=1.0 if stack else 2.0, busy=0.5)

    found, _ = search([made("broken"), made("fine")], world)
    assert found.stack == ("fine",)
    assert found.rejected["broken"].reason == "out of memory"


def test_failed_reference_ends_the_search() -> None:
    with pytest.raises(Stopped, match="the reference fails: all is lost"):
        search([], lambda stack: "all is lost")


@pytest.mark.parametrize(
    ("memory", "stack"),
    [(None, ("fast",)), (5.0, ("lean", "fast")), (3.0, ("lean",)), (2.0, ("lean",))],
)
def test_memory_limit_is_kept(memory: float | None, stack: Stack) -> None:
    """The reference takes 6: what takes less is kept though it is slower."""

    def world(stack: Stack) -> Took:
        return Took(
            host=0.1,
            busy=(0.5 if "fast" in stack else 1.0) * (1.2 if "lean" in stack else 1.0),
            memory=6 - 3 * ("lean" in stack) + ("fast" in stack),
        )

    found, _ = search([made("lean"), made("fast")], world, memory=memory)
    assert found.stack == stack
    assert found.fits(found.steps[-1].measured) == (memory != 2.0)


def test_untried_stacks_are_listed() -> None:
    def attempt(ask: Ask) -> Tried:
        if "c" in ask.stack:
            raise Stopped("no time")
        return lab(ask)

    lab = Lab(world=factors({"a": (0.5, 1), "b": (1, 1), "c": (1, 1)}))
    candidates = [made("a", Slot.DTYPE), made("b", Slot.ATTENTION)]
    candidates += [made("c", Slot.ATTENTION), made("d", compiles=True)]
    started = Search(candidates=candidates, attempt=attempt, tell=lambda text: None)
    with pytest.raises(Stopped):
        started.run()
    assert started.stack == ("a",)
    assert started.untried == ["c", "d"]


# What is worth a try


def test_shortlist_gives_reasons() -> None:
    allowed = [Tolerances(seeded=Tolerance(psnr_db=dB)) for dB in (40, 33)]
    found, others = shortlist(
        [
            base := made("base", Slot.DTYPE, tolerance=allowed[0]),
            made("other", Slot.DTYPE, tolerance=allowed[0]),
            made("close", tolerance=allowed[0]),
            made("far", tolerance=allowed[1]),
            made("untolerated"),
            made("after", needs="far", tolerance=allowed[0]),
            made("elsewhere", tolerance=allowed[0]),
            made("unwanted", tolerance=allowed[0]),
            made("slower", tolerance=allowed[0], aim="comparison"),
            made("smaller", tolerance=allowed[0], aim="memory"),
        ],
        base=[base],
        kind="seeded",
        image=Tolerance(psnr_db=40),
        without=["unwanted"],
        memory_is_limited=False,
        lacking={"elsewhere": "needs a moon"},
    )
    assert [o.name for o in found] == ["close"]
    assert others == {
        "other": "the workload already has base in its place",
        "far": "its tolerance is PSNR 33 dB; the search requires PSNR 40 dB",
        "untolerated": "its tolerance is none; the search requires PSNR 40 dB",
        "after": "needs far, which is not tried",
        "elsewhere": "needs a moon",
        "unwanted": "left out by --without",
        "slower": "is what others are compared with, and not faster",
        "smaller": "takes less memory for more time, and --memory sets no limit",
    }


# What the catalogue refuses


@pytest.fixture
def catalog() -> Catalog:
    """Two that decide the same, and one that needs another."""
    there = Catalog()
    for name in ("one", "two"):
        there.add(made(name, Slot.DTYPE))
    there.add(made("steps"))
    there.add(made("graph", needs="steps"))
    return there


@pytest.mark.parametrize(
    ("of", "says"),
    [
        ("one+two", "one and two both decide the dtype"),
        ("graph", "graph needs steps before it"),
        ("graph+steps", "graph needs steps before it"),
        ("steps+one+steps", r"steps\+one\+steps names steps twice"),
        (
            "steps+grph",
            r"no optimization is called 'grph' \(did you mean graph\?\); diffusers-perf explore ",
        ),
    ],
)
def test_wrong_combination_is_refused(catalog: Catalog, of: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        catalog.stack("named", of)
    with pytest.raises(ValueError, match=f"fake4: {says}"):
        catalog.add_cases(WORKLOAD, of)


def test_stack_may_repeat_the_base(catalog: Catalog) -> None:
    case = catalog.case(replace(WORKLOAD, base=("one",)), "steps+graph+one")
    assert [optimization.name for optimization in case.stack] == ["one", "steps", "graph"]


def test_named_stack_excludes_its_own_parts(catalog: Catalog) -> None:
    catalog.stack("chain", "steps+graph")
    with pytest.raises(ValueError, match=r"fake4: chain\+graph names graph twice"):
        catalog.add_cases(WORKLOAD, "chain+graph")


def test_requirement_is_declared_first(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="early needs 'late', which must be declared before it"):
        catalog.add(made("early", needs="late"))
