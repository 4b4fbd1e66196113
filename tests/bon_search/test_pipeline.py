"""The wrapper on the embedded model: what it returns is the stock pipeline's picture, ranked."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bon_search import BestOfNPipeline, Cost, SearchError, SearchResult, generate_best
from rewards.function import Score

PROMPT = "a red circle left of a blue square"
STEPS = 4


@pytest.fixture(scope="module")
def pipe() -> BestOfNPipeline:
    return BestOfNPipeline.from_pretrained("embedded", reward="shapes", batch_size=3)


@pytest.fixture(scope="module")
def result(pipe: BestOfNPipeline) -> SearchResult:
    return pipe(PROMPT, n=4, seed=11, steps=STEPS, guidance_scale=3.0)


def test_each_candidate_is_what_the_stock_pipeline_gives_for_its_seed_alone(
    pipe: BestOfNPipeline, result: SearchResult
) -> None:
    for candidate in result.candidates:
        generator = torch.Generator().manual_seed(candidate.seed)
        stock = pipe.pipe(
            PROMPT, num_inference_steps=STEPS, guidance_scale=3.0, height=64, width=64, generator=generator
        )
        assert np.array_equal(np.asarray(candidate.image), np.asarray(stock.images[0]))


def test_scores_are_the_rewards_own(pipe: BestOfNPipeline, result: SearchResult) -> None:
    images = [candidate.image for candidate in result.candidates]
    again = pipe.reward(images, [PROMPT] * len(images))
    torch.testing.assert_close(torch.tensor([c.score for c in result.candidates]), again, atol=0.02, rtol=0)


def test_cost_is_counted(result: SearchResult) -> None:
    assert (result.cost.nfe, result.cost.decodes, result.cost.rewards) == (4 * STEPS, 4, 4)
    assert result.evaluations_per_nfe == 2.0


def test_the_recipe_names_what_took_part(result: SearchResult) -> None:
    recipe = result.recipe
    assert (recipe.pipeline, recipe.scheduler, recipe.model) == ("StableDiffusionPipeline", "DDIMScheduler", "embedded")
    assert recipe.call["guidance_scale"] == 3.0
    assert recipe.versions["torch"] == torch.__version__


def test_a_stock_pipeline_can_be_wrapped(pipe: BestOfNPipeline, result: SearchResult) -> None:
    wrapped = BestOfNPipeline(pipe.pipe, pipe.reward, batch_size=2)
    again = wrapped(PROMPT, n=4, seed=11, steps=STEPS, guidance_scale=3.0)
    assert [c.pixels for c in again.candidates] == [c.pixels for c in result.candidates]


def test_a_budget_is_kept(pipe: BestOfNPipeline) -> None:
    out = pipe(PROMPT, n=16, steps=STEPS, budget=Cost.at_most(nfe=5 * STEPS))
    assert len(out.candidates) == 5  # the second batch is smaller
    assert (out.cost.nfe, out.recipe.n) == (5 * STEPS, 5)
    with pytest.raises(SearchError, match="does not pay for"):
        pipe(PROMPT, n=16, steps=STEPS, budget=Cost.at_most(nfe=1))


def test_a_search_by_name_with_an_option(pipe: BestOfNPipeline) -> None:
    out = pipe(PROMPT, n=2, steps=STEPS, search="best_of_n_until", options={"until": -1e9})
    assert len(out.candidates) == 2  # all that came with the first batch
    assert (out.recipe.search, out.recipe.options) == ("best_of_n_until", {"until": -1e9})


def test_in_one_call() -> None:
    assert len(generate_best(PROMPT, n=2, steps=2, reward="pixels:brightness").candidates) == 2


@pytest.mark.parametrize(("prompt", "n"), [("  ", 4), (PROMPT, 0)])
def test_nothing_to_do_is_an_error(pipe: BestOfNPipeline, prompt: str, n: int) -> None:
    with pytest.raises(SearchError):
        pipe(prompt, n=n)


def test_a_batch_of_none_is_an_error(pipe: BestOfNPipeline) -> None:
    with pytest.raises(SearchError, match="at least 1"):
        BestOfNPipeline(pipe.pipe, pipe.reward, batch_size=0)


class Rank:
    """A relative reward: a picture's place by brightness among those it is given with."""

    name, absolute = "rank", False

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3)).argsort().argsort().float()


def test_a_relative_reward_sees_all_candidates_at_once(pipe: BestOfNPipeline) -> None:
    out = BestOfNPipeline(pipe.pipe, Rank(), batch_size=2)(PROMPT, n=5, steps=2)
    assert [candidate.score for candidate in out.candidates] == [4, 3, 2, 1, 0]


def darkness(images, prompts, weight=-1.0):  # noqa: ANN001, ANN201
    return weight * images.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("function", [darkness, partial(darkness, weight=-2.0)], ids=["plain", "partial"])
def test_a_function_is_a_reward(pipe: BestOfNPipeline, function: Score) -> None:
    out = BestOfNPipeline(pipe.pipe, function)(PROMPT, n=3, steps=2)
    means = [float(np.asarray(candidate.image).mean()) for candidate in out.candidates]
    assert means == sorted(means)
    assert out.recipe.reward == "darkness"


def test_a_method_is_a_reward(pipe: BestOfNPipeline) -> None:
    class Lamp:
        weight = -2.0

        def weighed(self, images, prompts):  # noqa: ANN001, ANN202
            return self.weight * images.mean(dim=(1, 2, 3))

    found = BestOfNPipeline(pipe.pipe, Lamp().weighed).reward
    assert found.name == "weighed"
    assert found(torch.full((2, 3, 4, 4), 0.5), ["", ""]).tolist() == [-1.0, -1.0]


def test_what_is_no_reward_is_refused_at_once(pipe: BestOfNPipeline) -> None:
    for wrong in (Rank, object()):
        with pytest.raises(SearchError, match="is no reward"):
            BestOfNPipeline(pipe.pipe, wrong)  # type: ignore[arg-type]


def test_arguments_that_json_does_not_know_can_be_saved(pipe: BestOfNPipeline, tmp_path: Path) -> None:
    out = pipe(PROMPT, n=1, steps=2, guidance_scale=np.float32(3.5))  # type: ignore[arg-type]
    assert out.recipe.call["guidance_scale"] == 3.5
    assert out.save(tmp_path / "run").exists()


def test_a_small_decoder_shows_unfinished_candidates_and_leaves_the_finished_as_they_are(
    pipe: BestOfNPipeline, tmp_path: Path
) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    channels = pipe.pipe.vae.config.latent_channels
    small = {"encoder_block_out_channels": [8] * 4, "decoder_block_out_channels": [8] * 4}
    AutoencoderTiny(latent_channels=channels, **small).save_pretrained(tmp_path / "tiny")
    quick = BestOfNPipeline(pipe.pipe, pipe.reward, preview_decoder=str(tmp_path / "tiny"))
    plain, pruned = quick(PROMPT, n=4, steps=STEPS), quick(PROMPT, n=4, steps=STEPS, search="halving")
    pixels = {candidate.seed: candidate.pixels for candidate in pipe(PROMPT, n=4, steps=STEPS).candidates}
    assert {candidate.seed: candidate.pixels for candidate in plain.candidates} == pixels
    assert all(pixels[candidate.seed] == candidate.pixels for candidate in pruned.candidates)
    assert pruned.recipe.preview_decoder == str(tmp_path / "tiny")
