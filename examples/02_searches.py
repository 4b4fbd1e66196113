# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Every search: what does each of them do with the same budget?
#
# Best-of-N makes its candidates blindly, one like the other. Every other search spends the same denoiser evaluations
# (NFE) in another way: it looks at unfinished pictures and gives some up, copies others, goes back, moves the noise.
# This notebook runs all searches of the table on one prompt, each with the work of eight pictures, and shows what
# their populations look like on the way. The question at the end: what did each find, compared with best-of-N for the
# same work?

# %%
import textwrap
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
import torch

from bon_search import BestOfNPipeline, Candidate, Look, SearchResult
from bon_search.entry import Entry
from bon_search.ledger import Cost
from bon_search.table import load_search, search_names
from rewards import load_reward

torch.set_num_threads(1)  # the embedded model is too small for more
PROMPT, N, SEED = "a green triangle and a purple star and a blue circle", 8, 0
pipe = BestOfNPipeline.from_pretrained("embedded", reward="llava-reward")

# %% [markdown]
# A search is started by name; `on_look` is told of each population at the moment at which the reward judges it, so
# that watching costs nothing. A backward pass through the denoiser lasts about as long as three evaluations, and
# `Cost.evaluations` counts it so. This is the *work* by which everything below is compared.


# %%
@dataclass(frozen=True)
class Walk:
    """One search that was watched: its looks, and the work done when each was taken."""

    entry: Entry
    planned: Cost
    result: SearchResult
    looks: list[Look]
    work: list[float]

    @property
    def steps(self) -> int:
        """Denoising steps K of a picture."""
        return self.result.recipe.steps


def watch(name: str, *, n: int = N, steps: int | None = None, batch_size: int = 8, **options: object) -> Walk:
    """Run a search and keep all that its reward looked at."""
    wrapped = BestOfNPipeline(pipe.pipe, pipe.reward, batch_size=batch_size)  # shares the models
    run = wrapped.start(PROMPT, n=n, steps=steps, seed=SEED, search=name, options=options)
    looks, work = [], []

    def on_look(look: Look) -> None:
        looks.append(look)
        work.append(run.result.cost.evaluations)

    run.on_look = on_look
    for _ in run:
        pass
    return Walk(load_search(name), run.planned, run.result, looks, work)


# %% [markdown]
# ## The yardstick
#
# The first k of best-of-N's candidates are best-of-k, since seeds count up. So one run tells what best-of-N finds for
# any amount of work.


# %%
ENOUGH = 256  # NFE: more work than any search below does


@cache
def yardstick(steps: int) -> list[Candidate]:
    """Best-of-N's candidates, in the order in which they are made."""
    made = watch("best_of_n", n=ENOUGH // steps, steps=steps).result.candidates
    return sorted(made, key=lambda candidate: candidate.seed)


def best_of(work: float, steps: int) -> tuple[int, Candidate]:
    """How many candidates best-of-N makes with this work, and the best of them."""
    made = yardstick(steps)[: max(1, int(work // steps))]
    return len(made), max(made, key=lambda candidate: candidate.score)


# %% [markdown]
# ## How to read the pictures
#
# Each **block** is a population that the search looked at, best score first, with the step it had reached below
# (20/20 is finished; before that one sees the model's estimate of the finished picture). **Faded** pictures were given
# up: none of the later ones descends from them by name. The **gold** frame is what the search found.
#
# The **chart** has the same looks as dots (hollow: previews, filled: finished) over the work done. The coloured line is
# the best finished so far, the grey one is best-of-N. On the right both winners, for the same work.

# %%
INK, GREY, GOLD, PALE = "#1b1b1f", "#8a8a93", "#e0a100", "#d9d9de"
COLOURS = {
    "independent": "#4c566a", "pruned": "#2a7fba", "particles": "#7a4fb5", "branching": "#1f8a70",
    "neighbours": "#c2571a", "gradients": "#b3305e", "composed": "#8a6a00",
}  # fmt: skip
MOST, ACROSS = 8, 12  # pictures of a block, pictures side by side
FOUND: dict[str, tuple[str, Walk]] = {}


@dataclass(frozen=True)
class Block:
    """What one population shows, best first: pictures (n, 64, 64, 3), scores, who is given up, the step."""

    pictures: np.ndarray
    scores: list[float]
    given_up: list[bool]
    label: str
    finished: bool


def blocks(walk: Walk) -> list[Block]:
    """Looks one after the other at the same unfinished step share a block; of too many blocks some are shown."""
    looks, end = walk.looks, walk.steps
    groups = groupby(range(len(looks)), key=lambda place: (looks[place].step, place * (looks[place].step == end)))
    places = [list(group) for _, group in groups]
    return evenly([block([looks[k] for k in group], looks[group[-1] + 1 :], end) for group in places], ACROSS)


def block(looks: list[Look], later: list[Look], end: int) -> Block:
    """Several looks at one step as a block, knowing the later ones."""
    images, scores = (torch.cat([getattr(look, name) for look in looks]) for name in ("images", "scores"))
    streams = [stream for look in looks for stream in look.streams]
    order = evenly(scores.argsort(descending=True, stable=True).tolist(), MOST)
    step, steps = looks[0].step, looks[0].steps
    goes_on = set(streams) & {stream for look in later for stream in look.streams}
    return Block(
        images[order].permute(0, 2, 3, 1).numpy(),
        scores[order].tolist(),
        [bool(goes_on) and step < end and streams[k] not in goes_on for k in order],
        f"{step}/{steps}" if steps == end else f"draft {step}/{steps}",
        step == end,
    )


def evenly(items: list, most: int) -> list:
    """At most so many of the items, first and last among them."""
    return items if len(items) <= most else [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


# %%
SIDE, GAP, MARGIN = 64, 4, 8  # pixels: a picture, between pictures, more between blocks


def strip(ax: plt.Axes, shown: list[Block], wide: int, best: float) -> None:
    """Draw the blocks, `wide` pictures in a row; the winner gets a frame, and who is given up fades."""
    pitch, rows = SIDE + GAP, max(-(-len(one.scores) // wide) for one in shown)
    canvas = np.ones((rows * pitch, ACROSS * pitch + MARGIN * len(shown), 3))
    left, frame = 0, None
    for one in shown:
        across = min(wide, len(one.scores))
        for k, (picture, faded) in enumerate(zip(one.pictures, one.given_up, strict=True)):
            y, x = k // wide * pitch, left + k % wide * pitch
            canvas[y : y + SIDE, x : x + SIDE] = 0.62 + 0.38 * picture if faded else picture
            if one.finished and abs(one.scores[k] - best) < 1e-6:
                frame = frame or (x - 1, y - 1)
        place = (left + (across * pitch - GAP) / 2, -(-len(one.scores) // wide) * pitch + 4)
        ax.text(*place, one.label, ha="center", va="top", fontsize=7, color=GREY)
        left += across * pitch + MARGIN
    ax.imshow(canvas.clip(0, 1))
    if frame:
        ax.add_patch(plt.Rectangle(frame, SIDE + 1, SIDE + 1, fill=False, ec=GOLD, lw=2.5))
    ax.set(xlim=(-4, canvas.shape[1]), ylim=(rows * pitch + 30, -4))
    ax.set_anchor("NW")
    ax.axis("off")


def chart(ax: plt.Axes, walk: Walk, colour: str) -> None:
    """Scores over work, and best-of-N's."""
    grid = [*range(walk.steps, int(max(walk.work)), walk.steps), max(walk.work)]
    ax.step(grid, [best_of(work, walk.steps)[1].score for work in grid], where="post", color=GREY, lw=1.5)
    best, x, y = -np.inf, [], []
    for work, look in zip(walk.work, walk.looks, strict=True):
        done = look.step == walk.steps
        faces = colour if done else "none"
        ax.scatter([work] * len(look.scores), look.scores, s=14, facecolors=faces, edgecolors=colour, lw=0.7, alpha=0.6)
        if done:
            best = max(best, float(look.scores.max()))
            x, y = [*x, work], [*y, best]
    ax.step([*x, max(walk.work)], [*y, best], where="post", color=colour, lw=2)
    ax.set_xlim(0, 1.05 * max(walk.work))
    ax.margins(y=0.1)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(PALE)
    ax.tick_params(labelsize=7, colors=GREY)
    ax.xaxis.set_major_locator(plt.MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(plt.MaxNLocator(5))
    ax.set_xlabel("work, NFE", fontsize=8, color=GREY)
    ax.set_ylabel("score", fontsize=8, color=GREY)


def winner(ax: plt.Axes, candidate: Candidate, text: str, colour: str) -> None:
    """A finished picture and whose it is."""
    ax.imshow(candidate.image)
    ax.set_xlabel(f"{text}\n{candidate.score:.2f}", fontsize=8, color=colour)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color(PALE)


def counted(cost: Cost) -> str:
    """NFE, rewards and, if there are any, backward passes."""
    back = f", {cost.backwards:g} backward" if cost.backwards else ""
    return f"{cost.nfe:g} NFE, {cost.rewards:g} rewards{back}"


def show(name: str, group: str, **options: object) -> None:
    """Run a search, check its cost against the formula, and draw it."""
    walk = watch(name, **options)
    FOUND[name], spent = (group, walk), walk.result.cost
    for kind in ("nfe", "rewards", "backwards"):
        assert getattr(spent, kind) <= getattr(walk.planned, kind), f"{name} spent more {kind} than its formula says"
    draw(walk, COLOURS[group])


def draw(walk: Walk, colour: str) -> None:
    """The strip, the chart and the winners, under the name and what it costs."""
    shown, name, spent = blocks(walk), walk.entry.name, walk.result.cost
    wide = 1 << (ACROSS // len(shown)).bit_length() - 1  # 1, 2, 4 or 8 pictures of a block side by side
    rows = max(-(-len(one.scores) // wide) for one in shown)
    body = max(2.2, 0.52 * rows + 0.35)
    width, height = 11.4, body + 0.95
    fig = plt.figure(figsize=(width, height), dpi=110)

    def axes(x: float, y: float, wide: float, high: float) -> plt.Axes:
        return fig.add_axes((x / width, y / height, wide / width, high / height))

    figures = f"by the formula {counted(walk.planned)}; in the ledger {counted(spent)}"
    costs = f"{textwrap.shorten(walk.entry.formula, 90)}   |   {figures}"
    for y, text, style in [
        (0.2, name, {"fontsize": 14, "weight": "bold", "color": colour}),
        (0.46, walk.entry.summary.replace("`", ""), {"fontsize": 9, "color": INK}),
        (0.69, costs, {"fontsize": 7.5, "color": GREY}),
    ]:
        fig.text(0.1 / width, 1 - y / height, text, va="center", **style)
    strip(axes(0.1, 0, 6.5, body), shown, wide, walk.result.best.score)
    chart(axes(7.2, body - 1.7, 2.8, 1.7), walk, colour)
    n, plain = best_of(spent.evaluations, walk.steps)
    winner(axes(10.4, body - 0.78, 0.78, 0.78), walk.result.best, "both" if " then " in name else name, colour)
    winner(axes(10.4, body - 1.9, 0.78, 0.78), plain, f"best of {n}", GREY)
    plt.show()


# %% [markdown]
# ## Independent: make many, choose
#
# ### `best_of_n`
#
# N noises, N pictures, the best one. It needs no more of a reward than that it ranks, and no more of a model than that
# it runs; it cannot get stuck, runs in parallel, and is the bar for everything below. Its gain grows ever more slowly:
# for scores of a normal law with the square root of log N. (Ma et al.,
# [arXiv 2501.09732](https://arxiv.org/abs/2501.09732): "random search".)

# %%
show("best_of_n", "independent")

# %% [markdown]
# ### `best_of_n_until`
#
# The same, but it stops: at a score that is good enough (here: that of the third best of the eight above),
# or when the expected gain of one more candidate falls below a `price`. It pays where prompts differ: the easy ones end
# early, and what they save goes to the hard ones. (The expectation of the next record is from Rényi, 1953.)

# %%
enough = FOUND["best_of_n"][1].result.candidates[2].score
show("best_of_n_until", "independent", until=enough, batch_size=2)

# %% [markdown]
# ## Pruned: end the hopeless early
#
# These are best-of-N in disguise: the candidates are the same, from the same seeds, and none is changed. Only most of
# them are not finished. They pay as far as previews rank candidates as the finished pictures would, which
# `calibrate-search` measures for a model and a reward.
#
# ### `halving`
#
# Start n, look at the previews after 35 % and 60 % of the steps, keep the better half each time. The safest way to
# save: here it makes eight starts for the price of less than five pictures. (Karnin et al., 2013; for diffusion TTSnap,
# [arXiv 2511.22242](https://arxiv.org/abs/2511.22242).)

# %%
show("halving", "pruned")

# %% [markdown]
# ### `draft`
#
# Drafts of few steps for all seeds, full runs for the best of them. With a deterministic solver a draft has mostly the
# composition of the full picture. It pays with models of many steps, and where unfinished states look like nothing but
# a short run does not. (Ma et al., [arXiv 2501.09732](https://arxiv.org/abs/2501.09732).)

# %%
show("draft", "pruned")

# %% [markdown]
# ### `pandora`
#
# Every candidate is a box with a price for opening: the next look. Weitzman's rule opens the box that promises most,
# by a forecast of how scores develop (from `calibrate-search`), and stops when no box is worth its price. The only
# search here that decides by itself how much to spend on a prompt. (Weitzman, 1979.)

# %%
show("pandora", "pruned", forecast="embedded_llava_reward")

# %% [markdown]
# ## Particles: copy the promising
#
# A population is denoised together. At some looks each particle gets a weight by its preview's score, and the
# population is *resampled*: the heavy ones are copied, the light ones vanish, and fresh noise parts the copies. So the
# sampler has to draw noise on the way (`eta`, which is set by itself). In the limit of many particles the result
# follows p(x)·exp(score / temperature), which is more than "the best": a law with diversity. They pay where previews
# are good, and the budget is for tens of particles; what they find is what the reward likes, its mistakes included.
#
# ### `smc`
#
# The general case, with every part of it an option: when to look, how to weigh, how to resample. (Singhal et al.,
# [arXiv 2501.06848](https://arxiv.org/abs/2501.06848); resampling by SSP, Gerber et al.,
# [arXiv 1707.01845](https://arxiv.org/abs/1707.01845).)

# %%
show("smc", "particles")

# %% [markdown]
# ### `fk`
#
# FK steering: a particle weighs what the best of its previews so far was worth, so that a good beginning is not
# forgotten. (Singhal et al., [arXiv 2501.06848](https://arxiv.org/abs/2501.06848).)

# %%
show("fk", "particles")

# %% [markdown]
# ### `das`
#
# The tilt grows with the steps: little while previews are vague, all of it at the end. That keeps the population
# diverse for longer. This one takes any reward; with gradients it is `das_gradient` below. (Kim et al.,
# [arXiv 2501.05803](https://arxiv.org/abs/2501.05803).)

# %%
show("das", "particles")

# %% [markdown]
# ### `bfs`
#
# Breadth-first search over paths: resample at every look, then take a small step back by fresh noise and denoise
# again. So copies part with deterministic solvers, too; going back costs NFE of its own, as the ledger shows. (Zhang
# et al., [arXiv 2505.23614](https://arxiv.org/abs/2505.23614).)

# %%
show("bfs", "particles")

# %% [markdown]
# ## Branching: many children, few survivors
#
# One path, or a few, choose greedily among children at each step. All work goes into one family, so the last pictures
# are variations of one composition, decided early. They pay with rewards that can be judged early and improved late
# (colours, style, sharpness), and less where the composition itself must be found.
#
# ### `svdd`
#
# At every step several children, of which the best goes on, judged by a look one step further. (Li et al.,
# [arXiv 2408.08252](https://arxiv.org/abs/2408.08252).)

# %%
show("svdd", "branching")

# %% [markdown]
# ### `code`
#
# The same in blocks of steps: children live for a while before one is chosen, which makes them differ more and costs
# fewer scores. (CoDe, Singh et al., [arXiv 2502.00968](https://arxiv.org/abs/2502.00968).)

# %%
show("code", "branching")

# %% [markdown]
# ### `beam`
#
# The best two of all children go on instead of one; a misleading preview is forgiven. (Oshima et al.,
# [arXiv 2501.19252](https://arxiv.org/abs/2501.19252).)

# %%
show("beam", "branching")

# %% [markdown]
# ### `rbf`
#
# Rollover budget forcing: a step ends as soon as a child beats its parent, and what it has saved the later steps may
# spend. Effort goes where progress is hard. (Kim et al., [arXiv 2503.19385](https://arxiv.org/abs/2503.19385).)

# %%
show("rbf", "branching")

# %% [markdown]
# ### `dfs`
#
# Depth first: pilots say what a good preview scores, then a path that is below it goes back by fresh noise and tries
# again, until it passes. It pays when tries are cheap compared with finishing. (Zhang et al.,
# [arXiv 2505.23614](https://arxiv.org/abs/2505.23614).)

# %%
show("dfs", "branching")

# %% [markdown]
# ## Neighbourhood: around the best so far
#
# A good noise has good neighbours: noise that is partly the old one and partly fresh is as probable as before, and
# makes a similar picture. No gradient is needed, only a reward whose scores of different rounds can be compared. They
# pay when the budget is for many rounds, and the reward is smooth in the picture.
#
# ### `zero_order`
#
# Finish a few neighbours of the best noise, move to the best if it is better, and again. The distance adapts itself, up
# to independent noises, so that it is seldom worse than best-of-N. (Ma et al.,
# [arXiv 2501.09732](https://arxiv.org/abs/2501.09732).)

# %%
show("zero_order", "neighbours", neighbours=2)

# %% [markdown]
# ### `search_over_paths`
#
# The same on the way: unfinished states are noised again a little, denoised a little further, and the best previews
# kept. (Ma et al., [arXiv 2501.09732](https://arxiv.org/abs/2501.09732).)

# %%
show("search_over_paths", "neighbours")

# %% [markdown]
# ### `epsilon_greedy`
#
# At each noise level the noise of one particle is searched: near the best so far, and with probability ε afresh, as a
# bandit would. (Ramesh and Mardani, [arXiv 2506.03164](https://arxiv.org/abs/2506.03164).)

# %%
show("epsilon_greedy", "neighbours")

# %% [markdown]
# ### `evolutionary`
#
# Generations: parents by tournament, children by mutation, first of the noise and later of half-finished states, so
# that late generations are cheap. An elite survives. (He et al.,
# [arXiv 2505.17618](https://arxiv.org/abs/2505.17618).)

# %%
show("evolutionary", "neighbours")

# %% [markdown]
# ## Gradients: ask the reward for the way
#
# If the reward is differentiable, its gradient flows back through decoder and denoiser to the noise, and says which way
# is up. One gradient tells more than many samples, and costs about three evaluations for each step. So they pay with
# models of few steps, and three of them run here in 4 steps instead of 20, as does the best-of-N beside them, whose
# candidates are poor and cheap then. They also exploit the reward's mistakes best of all: look at the pictures, or let
# another reward judge them.
#
# ### `reno`
#
# Ascend in the initial noise, held on the shell where noise lives, and keep the best iterate. (Eyring et al.,
# [arXiv 2406.04312](https://arxiv.org/abs/2406.04312).)

# %%
show("reno", "gradients", n=12, steps=4)

# %% [markdown]
# ### `dno`
#
# Ascend in all noise of the run at once, that of every step, kept plausible by a bound on its moments. (Tang et al.,
# [arXiv 2405.18881](https://arxiv.org/abs/2405.18881).)

# %%
show("dno", "gradients", n=12, steps=4)

# %% [markdown]
# ### `das_gradient`
#
# Particles whose steps are pushed up the gradient, with weights that correct for the push. (Kim et al.,
# [arXiv 2501.05803](https://arxiv.org/abs/2501.05803).)

# %%
show("das_gradient", "gradients", n=4)

# %% [markdown]
# ### `psi`
#
# Before that, the initial noise itself is drawn by its reward, with gradient moves of a Markov chain; it is made for
# models of few steps whose first preview tells something. On this model it is fog (1/4). (Yoon et al.,
# [arXiv 2506.01320](https://arxiv.org/abs/2506.01320).)

# %%
show("psi", "gradients", n=12, steps=4)

# %% [markdown]
# ## Composed: one search from the survivors of another
#
# Searches are good at different things, so they can follow each other: here pruning finds a good noise for little, and
# the rest of the budget goes to its neighbourhood. Finished candidates are handed on unpaid, where the next search
# takes them as they are; `split` divides the work, evenly unless told otherwise.

# %%
show("halving then zero_order", "composed", n=12)

# %% [markdown]
# ## What each has found
#
# The exact verifier, which took no part, says which winners show what the sentence says (at least 1: right).

# %%
judge = load_reward("shapes")
winners = {name: walk.result.best for name, (_, walk) in FOUND.items()}
right = (judge([winner.image for winner in winners.values()], [PROMPT] * len(winners)) >= 1).tolist()
plain = {name: best_of(walk.result.cost.evaluations, walk.steps)[1] for name, (_, walk) in FOUND.items()}
gains = {name: winners[name].score - plain[name].score for name in FOUND}


def gallery() -> None:
    """All winners, with the verdict."""
    across = 8
    fig, grid = plt.subplots(-(-len(winners) // across), across, figsize=(11.4, 5), dpi=110)
    for ax in grid.flat:
        ax.axis("off")
    for ax, (name, best), verdict in zip(grid.flat, winners.items(), right, strict=False):
        ax.imshow(best.image)
        ax.set_title(name, fontsize=8, color=COLOURS[FOUND[name][0]], pad=3)
        ax.text(
            32,
            66,
            f"{best.score:.2f}  {'right' if verdict else 'wrong'}",
            fontsize=7,
            color=GREY,
            ha="center",
            va="top",
        )
    fig.tight_layout(h_pad=1.2)
    plt.show()


gallery()


# %%
def gained() -> None:
    """The winner's score minus that of best-of-N's winner for the same work."""
    fig, ax = plt.subplots(figsize=(8, 5.2), dpi=110)
    names = list(gains)[::-1]
    for y, name in enumerate(names):
        group, walk = FOUND[name]
        ax.hlines(y, 0, gains[name], color=COLOURS[group], lw=2, alpha=0.5)
        ax.plot(gains[name], y, "o", color=COLOURS[group], ms=6)
        ax.text(
            1.02, y, counted(walk.result.cost), fontsize=7, color=GREY, va="center", transform=ax.get_yaxis_transform()
        )
    ax.axvline(0, color=GREY, lw=1)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    for label in ax.get_yticklabels():
        label.set_color(COLOURS[FOUND[label.get_text()][0]])
    ax.tick_params(axis="x", labelsize=7, colors=GREY)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("score above best-of-N for the same work", fontsize=8, color=GREY)
    fig.tight_layout()
    plt.show()


gained()

# %% [markdown]
# ## The answer
#
# * **Pruning** finds best-of-N's winner, or nearly, for part of its price, and cannot make pictures stranger than
#   best-of-N's. Take `halving` first.
# * **Particles, branching and neighbours** reach scores that best-of-N would need many more candidates for. They get
#   there by following the reward, so they need one that deserves it.
# * **Gradients** climb from where they begin. On many prompts that lifts the pictures of few-step models beyond what
#   choosing among as many can (the README has the table); where all first candidates are wrong, as on this prompt, the
#   reward is flat around them, and fresh noises do better for the same work.
#
# One prompt and one seed are an illustration and no ranking. `compare-searches` runs them on many prompts at equal
# cost, has a reward judge that took no part, and gives intervals; its tables are in the README. Every search kept to
# its formula here:

# %%
left_out = sorted(set(search_names()) - set(FOUND))
print(
    f"{len(FOUND)} searches, none above its formula; not shown (from other packages): {', '.join(left_out) or 'none'}"
)
print(f"above best-of-N for the same work: {sum(gain > 0 for gain in gains.values())} of {len(gains)}")
print(f"right, by the exact verifier: {sum(right)} of {len(right)}")
