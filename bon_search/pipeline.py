"""The drop-in wrapper: any stock diffusers pipeline and any reward become a pipeline that returns the best picture."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from bon_search.asked import as_reward
from bon_search.critic import PictureCritic
from bon_search.errors import SearchError
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.plan import Plan, make_plan
from bon_search.result import Recipe, SearchResult, Setting
from bon_search.run import Run
from bon_search.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from bon_search.recipe import Remake
    from pipelines import DiffusersSampler
    from rewards import Reward
    from rewards.function import Score

ETA = 1.0  # fresh noise for searches that copy particles, on a solver that draws none: DDPM's
BATCH = 8  # candidates in one model call, unless told otherwise; halves itself when memory runs out


class BestOfNPipeline:
    """A diffusers pipeline that makes N candidates and returns them ranked by a reward.

    Args:
        pipe: Any stock text-to-image diffusers pipeline; it is called unchanged.
        reward: A reward, a function (images, prompts) that scores, or a specification for `rewards.load_reward`.
        model: What the model is called in recipes; the pipeline's own name or path when None.
        batch_size: Candidates in one model call.
        batch_invariant: Compute each candidate's numbers independently of its company, so that batch size cannot
            change a picture by a bit. None: on the CPU, where it costs little; elsewhere only on request.
        lora: What `load_pipeline` was given, for the recipe.
        preview_decoder: A small decoder for unfinished candidates, by folder or hub id (`load_preview_decoder`).

    Raises:
        SearchError: batch_size is not positive, or the reward is none.
    """

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401  diffusers has no type for "some pipeline"
        reward: Reward | Score | str = "llava-reward",
        *,
        model: str | None = None,
        batch_size: int = BATCH,
        batch_invariant: bool | None = None,
        lora: str | None = None,
        preview_decoder: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise SearchError(f"batch_size = {batch_size} leaves no candidate per model call; give at least 1.")
        self.pipe = pipe
        self.reward = as_reward(reward)
        self.reward_spec = reward if isinstance(reward, str) else self.reward.name
        self.model = model or str(getattr(pipe.config, "_name_or_path", "") or type(pipe).__name__)
        self.batch_size = batch_size
        self.batch_invariant = pipe.device.type == "cpu" if batch_invariant is None else batch_invariant
        self.lora = lora
        self.preview_decoder = preview_decoder

    @classmethod
    def from_pretrained(
        cls,
        name: str = "embedded",
        *,
        reward: Reward | Score | str = "llava-reward",
        batch_size: int = BATCH,
        batch_invariant: bool | None = None,
        preview_decoder: str | None = None,
        **loading: Any,
    ) -> Self:
        """Load a model and a reward by name.

        Args:
            name: "embedded", a hub id, a folder, or a .safetensors file.
            reward: As in the constructor.
            batch_size: As in the constructor.
            batch_invariant: As in the constructor.
            preview_decoder: As in the constructor.
            **loading: Options of `pipelines.load_pipeline` (device, dtype, offload, lora, …).
        """
        from pipelines import load_pipeline

        pipe = load_pipeline(name, **loading)
        return cls(
            pipe,
            reward,
            model=name,
            batch_size=batch_size,
            batch_invariant=batch_invariant,
            lora=loading.get("lora"),
            preview_decoder=preview_decoder,
        )

    def __call__(
        self,
        prompt: str,
        *,
        n: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        search: str = "best_of_n",
        options: Mapping[str, object] | None = None,
        budget: Cost | None = None,
        **call: Setting,
    ) -> SearchResult:
        """Search for the best picture of a prompt.

        Args:
            prompt: What the picture should show.
            n: Number of candidates: 16, or what the budget pays for, when None.
            seed: Candidate k starts from seed + k.
            steps: Denoising steps; the model's default when None.
            search: Name in the table of searches (`generate-best --list-searches`), or several that start from each
                other's survivors, such as "halving then zero_order".
            options: Options of the search; of several as "zero_order.neighbours" where more than one has it, and
                "split", the share of the budget that the first gets.
            budget: Limit that is never overshot (`Cost.at_most`); what is finished by then is ranked.
            **call: Further arguments of the pipeline's own call (guidance_scale, height, negative_prompt, …), and `eta`
                for fresh noise in each step; searches that copy particles set it to 1 if nobody else does.

        Raises:
            SearchError: n or seed is out of range, or the search, an option of it or the budget makes no sense.
            PipelineError: The model cannot do what is asked (size, steps, scheduler), or gives NaN.
            RewardError: The reward fails; use `start` to keep what is finished.
        """
        run = self.start(prompt, n=n, seed=seed, steps=steps, search=search, options=options, budget=budget, **call)
        for _ in run:
            pass
        return run.result

    def start(
        self,
        prompt: str,
        *,
        n: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        search: str = "best_of_n",
        options: Mapping[str, object] | None = None,
        budget: Cost | None = None,
        **call: Setting,
    ) -> Run:
        """The same as a run to iterate over: candidates come as they are finished, `run.result` ranks them so far."""
        from rewards.combine import check_prompt

        steps, arguments = self._arguments(steps, call)
        plan = make_plan(search, n=n, seed=seed, steps=steps, options=options or {}, budget=budget)
        run = self._begin(prompt, plan, arguments)
        check_prompt(self.reward, prompt)
        return run

    def remake(self, remake: Remake, *, steps: int | None = None, **call: Setting) -> Run:
        """Make one candidate of an earlier run again: the only one that the run gives out.

        Args:
            remake: `bon_search.recipe.read_remake(path, rank)`.
            steps: Other than they were.
            **call: Further arguments that shall be other than they were.
        """
        steps, arguments = self._arguments(steps or remake.recipe.steps, {**remake.recipe.call, **call})
        run = self._begin(remake.recipe.prompt, remake.plan(steps), arguments)
        run.only = remake.seed
        return run

    def problem(
        self, prompt: str, *, steps: int | None = None, on_nfe: Callable[[int], object] | None = None, **call: Setting
    ) -> tuple[MeteredSampler, PictureCritic]:
        """What a search starts from: a sampler bound to the prompt, and its critic; for searches of one's own.

        Args:
            prompt: What the picture should show.
            steps: Denoising steps; the model's default when None.
            on_nfe: Called with the number of NFE just done.
            **call: Further arguments of the pipeline's own call.
        """
        steps, arguments = self._arguments(steps, call)
        sampler = self._sampler(prompt, steps, arguments)
        sampler.on_nfe = on_nfe or sampler.on_nfe
        return self._metered(sampler, Ledger())

    def _begin(self, prompt: str, plan: Plan, arguments: dict[str, Any]) -> Run:
        sampler = self._sampler(prompt, plan.steps, arguments)
        if plan.entry.branches and "eta" not in arguments and not sampler.stochastic:
            arguments["eta"] = ETA
            sampler = self._sampler(prompt, plan.steps, arguments)
        sampler.on_nfe = lambda nfe: run.on_nfe(nfe)
        ledger = Ledger(plan.budget)
        metered, critic = self._metered(sampler, ledger)
        critic.on_look = lambda look: run.on_look(look)
        group = self.batch_size if self.reward.absolute else None  # scores that compare need all candidates at once
        recipe = self._recipe(prompt, plan, arguments)
        looks = plan.start(metered, critic, ledger, group)
        run = Run(looks, critic, ledger, recipe, lambda: sampler.evaluations_per_nfe, plan.cost)
        return run

    def _metered(self, sampler: DiffusersSampler, ledger: Ledger) -> tuple[MeteredSampler, PictureCritic]:
        from pipelines import batch_invariant

        metered = MeteredSampler(sampler, ledger)
        alone = self.batch_invariant and self.reward.absolute
        return metered, PictureCritic(metered, self.reward, sampler.prompt, ledger, batch_invariant if alone else None)

    def _sampler(self, prompt: str, steps: int, call: dict[str, Any]) -> DiffusersSampler:
        from pipelines import DiffusersSampler

        if not prompt.strip():
            raise SearchError("The prompt is empty; say what the picture should show.")
        return DiffusersSampler(
            self.pipe,
            steps=steps,
            prompt=prompt,
            batch_size=self.batch_size,
            batch_invariant=self.batch_invariant,
            preview_decoder=self._preview_decoder,
            **call,
        )

    @cached_property
    def _preview_decoder(self) -> torch.nn.Module | None:
        from pipelines import load_preview_decoder

        return load_preview_decoder(self.preview_decoder, self.pipe) if self.preview_decoder else None

    @cached_property
    def _revision(self) -> str:
        from pipelines import model_revision

        return model_revision(self.pipe)

    def _arguments(self, steps: int | None, call: dict[str, Setting]) -> tuple[int, dict[str, Any]]:
        """Steps and further arguments of the call: the user's, else the model's, else the pipeline's own defaults."""
        from pipelines import default_call

        own = inspect.signature(type(self.pipe).__call__).parameters
        arguments: dict[str, Any] = {
            **default_call(self.pipe),
            **{key: value for key, value in call.items() if value is not None},
        }
        default = arguments.pop("num_inference_steps", own["num_inference_steps"].default)
        return (default if steps is None else steps), arguments

    def _recipe(self, prompt: str, plan: Plan, call: dict[str, Setting]) -> Recipe:
        return Recipe(
            prompt=prompt,
            model=self.model,
            model_revision=self._revision,
            pipeline=type(self.pipe).__name__,
            scheduler=type(self.pipe.scheduler).__name__,
            scheduler_config={name: _as_setting(value) for name, value in self.pipe.scheduler.config.items()},
            reward=self.reward_spec,
            reward_revision=str(getattr(self.reward, "revision", "")),
            steps=plan.steps,
            call={name: _as_setting(value) for name, value in call.items()},
            search=plan.entry.name,
            n=plan.n,
            seed=plan.seed,
            options={name: _as_setting(value) for name, value in plan.options.items()},
            budget=plan.limits,
            endless=plan.endless,
            references=list(plan.entry.references),
            batch_invariant=self.batch_invariant,
            lora=self.lora,
            preview_decoder=self.preview_decoder,
            dtype=str(self.pipe.dtype).removeprefix("torch."),
            device=str(self.pipe.device),
            versions=versions(),
        )


def _as_setting(value: object) -> Any:  # noqa: ANN401
    """A value as a recipe can hold it: numbers, texts, lists of them; of anything else, such as a picture, its type."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, list | tuple):
        return [_as_setting(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else f"<{type(value).__name__}>"


def generate_best(
    prompt: str,
    *,
    n: int | None = None,
    model: str = "embedded",
    reward: Reward | Score | str = "llava-reward",
    **call: Any,
) -> SearchResult:
    """Load a model and a reward, make n candidates of one prompt, rank them: `BestOfNPipeline` in one call."""
    return BestOfNPipeline.from_pretrained(model, reward=reward)(prompt, n=n, **call)
