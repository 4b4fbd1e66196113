"""A comparison measures every cell once, at the cost that it allows, on the same candidates."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from bon_search.compare import Comparison, Journal, Key, first_seed
from bon_search.compare_grid import Contender, make_grid
from bon_search.errors import SearchError
from rewards.errors import RewardError
from tests.bon_search.compare_toy import PROMPTS, SETTINGS, Brightness, Darkness, ToyMaker, compared, grid
from tests.bon_search.toy import STEPS

TOY = "toy-brightness"


def values(journal: Journal) -> dict[Key, tuple[object, ...]]:
    """All of a cell but its time."""
    return {key: tuple(replace(cell, seconds=0.0).as_json().values()) for key, cell in journal.cells.items()}


def test_every_cell_is_measured_within_its_budget(tmp_path: Path) -> None:
    wanted = grid("halving", "smc:eta=1,strength=2,looks=2", "best_of_n_until:until=0.6")
    journal, _ = compared(tmp_path, wanted)
    assert list(journal.cells) == [key for key, _ in wanted.cells()]
    assert len(journal.cells) == len(PROMPTS) * 3 * 4
    for key, cell in journal.cells.items():
        assert 0 < cell.nfe <= key.budget
        assert cell.finished >= 1
        assert cell.seconds > 0
        assert cell.held_out == pytest.approx(1 - cell.target, abs=1 / 255)  # judged as it would be saved, in 8 bits


def test_best_of_n_has_the_expected_maximum_of_a_gaussian(tmp_path: Path) -> None:
    prompts = tuple(f"prompt {k}" for k in range(100))
    journal, _ = compared(tmp_path, grid(images=(1, 4, 8), prompts=prompts))
    for images, expected in ((1, 0.0), (4, 1.0294), (8, 1.4236)):  # E max of n standard normals
        cells = [cell for cell in journal.cells.values() if cell.key.budget == images * STEPS]
        points = [(cell.target - 0.5) * 12 / math.cos(math.pi / (2 * STEPS)) ** STEPS for cell in cells]
        assert sum(points) / 100 == pytest.approx(expected, abs=0.3)  # 3 standard errors at n = 1, 5 at n = 8


def test_candidates_are_the_same_in_every_search(tmp_path: Path) -> None:
    journal, _ = compared(tmp_path, grid("halving", "best_of_n_until:until=99"))
    for prompt in PROMPTS:
        plain, endless = (
            journal.cells[Key(search, TOY, prompt, 0, 8 * STEPS)]
            for search in ("best_of_n", "best_of_n_until:until=99")
        )
        assert (plain.winner, plain.target) == (endless.winner, endless.target)
        start = first_seed(prompt, 0)
        assert all(start <= cell.winner < start + 32 for key, cell in journal.cells.items() if key.prompt == prompt)
    assert len({first_seed(prompt, seed) for prompt in PROMPTS for seed in range(3)}) == 18


def test_a_nested_best_of_n_is_the_same_as_one_run_anew_and_cheaper(tmp_path: Path) -> None:
    nested, cheap = compared(tmp_path / "nested", grid(images=(2, 3, 8)))
    anew, dear = compared(tmp_path / "anew", grid(images=(2, 3, 8)), ToyMaker(batch_invariant=False))
    assert values(nested) == values(anew)
    warm = STEPS
    assert cheap.nfe == len(PROMPTS) * 8 * STEPS + warm
    assert dear.nfe == len(PROMPTS) * (2 + 3 + 8) * STEPS + warm


def test_a_reward_that_only_ranks_is_not_nested(tmp_path: Path) -> None:
    maker = ToyMaker()
    maker.reward.absolute = False
    compared(tmp_path, grid(images=(2, 4)), maker)
    assert maker.nfe == len(PROMPTS) * 6 * STEPS + STEPS


def test_budgets_that_pay_for_the_same_number_are_one_run(tmp_path: Path) -> None:
    wanted = make_grid([], [TOY], PROMPTS[:1], [2 * STEPS, 2 * STEPS + 1], steps=STEPS)
    journal, maker = compared(tmp_path, wanted)
    assert len({cell.winner for cell in journal.cells.values()}) == 1
    assert maker.nfe == 2 * STEPS + STEPS


def test_a_comparison_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole, _ = compared(tmp_path / "whole", grid("halving"))
    _, first = compared(tmp_path / "parts", grid("halving"), at_most=7)
    resumed, second = compared(tmp_path / "parts", grid("halving"))
    assert values(resumed) == values(whole)
    _, third = compared(tmp_path / "parts", grid("halving"))
    assert third.nfe == 0
    spent = sum(cell.nfe for cell in whole.cells.values() if cell.key.search == "halving")
    assert first.nfe + second.nfe == spent + len(PROMPTS) * 8 * STEPS + 2 * STEPS  # nothing but the warm-up twice


@pytest.mark.parametrize("lost", [1, 40, 4000])
def test_a_killed_comparison_measures_only_what_was_cut_off(tmp_path: Path, lost: int) -> None:
    whole, _ = compared(tmp_path, grid("halving"))
    path = tmp_path / "cells.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])  # in the middle of a line
    intact = path.read_bytes().count(b"\n") - 1
    resumed, maker = compared(tmp_path, grid("halving"))
    assert values(resumed) == values(whole)
    assert path.read_bytes().count(b"\n") == 1 + len(whole.cells)
    assert maker.nfe > 0
    again = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert len({json.dumps(record, sort_keys=True) for record in again}) == len(whole.cells)
    assert 0 < intact < len(whole.cells)


def test_a_journal_cut_off_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text('{"schema": 1, "mod')
    journal, _ = compared(tmp_path, grid(prompts=PROMPTS[:1]))
    assert len(journal.cells) == 3
    assert json.loads(path.read_text().splitlines()[0])["model"] == "toy"


def test_a_grid_may_grow(tmp_path: Path) -> None:
    compared(tmp_path, grid(images=(2, 8), prompts=PROMPTS[:3]))
    before = (tmp_path / "cells.jsonl").read_text()
    grown, maker = compared(tmp_path, grid("halving", images=(2, 4, 8), prompts=PROMPTS[:4]))
    assert (tmp_path / "cells.jsonl").read_text().startswith(before)
    fresh, _ = compared(tmp_path / "fresh", grid("halving", images=(2, 4, 8), prompts=PROMPTS[:4]))
    assert values(grown) == values(fresh)
    assert maker.nfe < sum(cell.nfe for cell in fresh.cells.values())


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"steps": 9}, "steps 4 then, 9 now"), ({"rewards": {TOY: "new"}}, f"rewards {TOY} '' then, 'new' now")],
)
def test_other_settings_are_refused(tmp_path: Path, changed: dict[str, object], told: str) -> None:
    compared(tmp_path, grid(prompts=PROMPTS[:1]))
    before = (tmp_path / "cells.jsonl").read_bytes()
    with pytest.raises(SearchError, match="other settings") as refused:
        Journal(tmp_path / "cells.jsonl", {**SETTINGS, **changed})
    assert told in str(refused.value)
    assert (tmp_path / "cells.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "[1]\n", '{"schema": 1}\n{"x": 1}\n', "hello", '{"schema": 2}\n'])
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text(content)
    with pytest.raises(SearchError, match="no" if "schema" not in content else "journal"):
        Journal(path, SETTINGS)
    assert path.read_text() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match="cannot be written"):
        Journal(tmp_path / "file" / "cells.jsonl", SETTINGS)


def test_a_reward_that_fails_keeps_what_was_measured(tmp_path: Path) -> None:
    maker = ToyMaker()
    maker.reward = Brightness(broken=8)
    with pytest.raises(ValueError, match="toy-brightness"):
        compared(tmp_path, grid(), maker)
    journal, _ = compared(tmp_path, grid(), at_most=1)
    assert len(journal.cells) > 5  # six of the seven looks that went well, and one more


def test_a_specification_has_options_of_the_search_and_of_the_sampler() -> None:
    contender = Contender.parse("smc: strength=2, looks=0.25,0.5, eta=0.7")
    assert contender.entry.name == "smc"
    assert contender.options == {"strength": 2.0, "looks": (0.25, 0.5)}
    assert contender.call == {"eta": 0.7}


def test_a_specification_can_be_of_searches_one_after_the_other() -> None:
    contender = Contender.parse("halving then zero_order:neighbours=2,zero_order.start=3,split=0.4,eta=0.7")
    assert contender.entry.name == "halving then zero_order"
    assert contender.options == {"zero_order.neighbours": 2, "zero_order.start": 3, "split": 0.4}
    assert contender.call == {"eta": 0.7}
    n = contender.starts(8 * STEPS, STEPS)
    assert n is not None
    assert contender.entry.cost(n, STEPS, contender.options).nfe <= 8 * STEPS


def test_another_file_makes_another_contender(tmp_path: Path) -> None:
    path, labels = tmp_path / "schedule.json", set()
    for at in (0.3, 0.5):
        path.write_text(json.dumps({"cuts": [{"at": at, "keep": 0.5}]}))
        labels |= {Contender.parse(f"halving:schedule={path}").label for _ in range(2)}
    assert len(labels) == 2


def test_a_judge_is_asked_about_all_prompts_before_anything_is_made(tmp_path: Path) -> None:
    class Choosy(Darkness):
        def check_prompt(self, prompt: str) -> None:
            if prompt == PROMPTS[-1]:
                raise RewardError(f"{prompt!r} is none for me.")

    maker = ToyMaker()
    with Journal(tmp_path / "cells.jsonl", SETTINGS) as journal, pytest.raises(RewardError, match="none for me"):
        list(Comparison(grid(), {TOY: maker}, Choosy(), journal))
    assert maker.nfe == 0


def test_a_judge_that_only_ranks_or_fails_is_named(tmp_path: Path) -> None:
    class Broken(Darkness):
        def __call__(self, images: object, prompts: list[str]) -> Tensor:
            raise RuntimeError("out of order")

    class Ranking(Darkness):
        absolute = False

    with Journal(tmp_path / "cells.jsonl", SETTINGS) as journal:
        with pytest.raises(RewardError, match=r"judge toy-darkness failed .*out of order"):
            list(Comparison(grid(), {TOY: ToyMaker()}, Broken(), journal))
        with pytest.raises(SearchError, match="only ranks"):
            Comparison(grid(), {TOY: ToyMaker()}, Ranking(), journal)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("halvin", "did you mean 'halving'"),
        ("smc:strenght=2", "did you mean 'strength'"),
        ("smc:strength", "name=value"),
        ("smc:eta=much", "eta=1"),
        ("smc:strength=much", "a number"),
    ],
)
def test_a_bad_specification_is_refused(spec: str, told: str) -> None:
    with pytest.raises(SearchError, match=told):
        Contender.parse(spec)


def test_best_of_n_is_always_there_and_first() -> None:
    labels = [contender.label for contender in grid("halving", "best_of_n", "halving").contenders]
    assert labels == ["best_of_n", "halving"]


def test_the_number_is_the_largest_that_the_budget_pays_for() -> None:
    halving = Contender.parse("halving")
    for budget in range(STEPS, 200, 7):
        n = halving.starts(budget, STEPS)
        assert n is not None
        assert halving.entry.cost(n, STEPS, {}).nfe <= budget < halving.entry.cost(n + 1, STEPS, {}).nfe
    assert halving.starts(STEPS - 1, STEPS) is None


def test_a_grid_without_anything_to_compare_is_refused() -> None:
    with pytest.raises(SearchError, match="at least one of each"):
        make_grid([], [TOY], [], [STEPS], steps=STEPS)
    with pytest.raises(SearchError, match="does not pay for one candidate"):
        make_grid([], [TOY], PROMPTS, [STEPS - 1], steps=STEPS)
