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
# # Best of N: how much does choosing help?
#
# A text-to-image model often knows how to draw a prompt, only not every time. So: make N candidates from N seeds and
# let a reward model choose. This notebook does that with the small model that is shipped inside the package, offline,
# and asks at the end how often the chosen picture is right, compared with a single one.

# %%
import matplotlib.pyplot as plt

from bon_search import BestOfNPipeline
from bon_search.sheet import contact_sheet
from rewards import load_reward

pipe = BestOfNPipeline.from_pretrained("embedded", reward="llava-reward")

# %% [markdown]
# ## Sixteen candidates
#
# One call makes and ranks them. `candidates` is sorted, best first; the frame marks the reward's choice.

# %%
prompt = "a red circle left of a blue square"
out = pipe(prompt, n=16, seed=0)
contact_sheet(out.candidates, prompt)

# %% [markdown]
# ## What it cost
#
# One NFE is one denoiser evaluation for one candidate. Guidance evaluates the network twice for each, which is reported
# beside it.

# %%
print(out.cost)
print("network evaluations per NFE:", out.evaluations_per_nfe)

# %% [markdown]
# ## Was the choice right?
#
# In this little world the truth is known: the reward `shapes` looks at the pixels, finds the objects and checks them
# against the sentence. It gives at least 1 if and only if the picture shows what the sentence says. It took no part in
# the choice.

# %%
judge = load_reward("shapes")


def right(candidates: list, text: str) -> list[bool]:
    """Whether each candidate shows what the text says."""
    return (judge([one.image for one in candidates], [text] * len(candidates)) >= 1).tolist()


PROMPTS = [
    "a red circle left of a blue square",
    "a green star above a purple heart",
    "a cross and a triangle",
    "a yellow star and a cyan square and a red heart",
]
runs = [out, *(pipe(text, n=16, seed=0) for text in PROMPTS[1:])]
single = [sum(right(run.candidates, text)) / 16 for run, text in zip(runs, PROMPTS, strict=True)]
chosen = [right(run.candidates, text)[0] for run, text in zip(runs, PROMPTS, strict=True)]
for text, rate, hit in zip(PROMPTS, single, chosen, strict=True):
    print(f"{text:50} one candidate: {rate:4.0%}   best of 16: {'right' if hit else 'wrong'}")

# %% [markdown]
# ## More candidates, better pictures
#
# The candidates of a smaller N are the first of a larger one (seeds count up), so a single run shows the whole curve.

# %%
sizes = [1, 2, 4, 8, 16]
curve = []
for n in sizes:
    hits = []
    for run, text in zip(runs, PROMPTS, strict=True):
        for start in range(0, 16, n):  # 16 / n disjoint groups of n seeds
            group = [one for one in run.candidates if start <= one.seed < start + n]
            hits += right(group[:1], text)  # ranked already: the first is the group's best
    curve.append(sum(hits) / len(hits))

plt.figure(figsize=(5, 3))
plt.plot(sizes, curve, marker="o")
plt.xscale("log", base=2)
plt.xticks(sizes, [str(n) for n in sizes])
plt.ylim(0, 1.05)
plt.xlabel("candidates")
plt.ylabel("right pictures, by the exact verifier")
plt.tight_layout()

# %% [markdown]
# ## The answer
#
# Choosing among sixteen turns a model that is right now and then into one that is right nearly always, for sixteen
# times the computation and no training. What is left between the curve and 1 is the reward's own error, and the prompts
# for which no candidate was right.

# %%
print(f"right with one candidate: {curve[0]:.0%}; with the best of sixteen: {curve[-1]:.0%}")
assert curve[-1] > curve[0], "choosing did not help"
