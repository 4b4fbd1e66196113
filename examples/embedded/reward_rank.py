"""Stage c of the embedded LLaVA-Reward: the Bradley-Terry loss on pairs of one style.

    python reward_rank.py POOL SAMPLES RUN/c --init RUN/b --steps 900 --seed 0 [--no-skip-ca]

Three kinds of pairs, each within one style, a render against a render and a candidate of the text-to-image model
against another, so that style tells nothing: (1) one picture, a true sentence and its false twin; (2) one prompt, a
candidate that passes the verifier and one that fails; (3) any true statement against any false one of the same style,
with less weight, which makes scores comparable between pictures. The losses of stage b go on beside it, so that
grounding is not unlearnt.
"""

import argparse
from pathlib import Path
from random import Random

import numpy as np
import torch
from reward_data import WEIGHTS, Pack, Statement, pack, sentences, statement
from reward_ground import Grounding
from reward_loop import Loop, Metrics, Worker, launch, load_modules
from reward_model import Auxiliary, build_llava, build_tokenizer, read, see, speed_up
from reward_pictures import Pool
from reward_samples import Group, load_samples, mirrored, wandered
from torch import Tensor, nn
from torch.nn import functional

from rewards.llava.checkpoint import Checkpoint, Settings, build_head, save_checkpoint
from rewards.llava.images import ImageSettings
from rewards.shapes.captions import parse

TAU = 0.1
PLAIN = ("single_object", "two_object")  # skills whose sentences name no colour
CANDIDATES = 8  # of one prompt in a batch
SETTINGS = ImageSettings(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TEMPLATE = "<s><image>{prompt}</s>"


def main() -> None:
    """Read the arguments and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--init", type=Path, required=True, help="folder of stage b")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--groups", type=int, default=2, help="prompts a step and process, 8 candidates each")
    parser.add_argument("--renders", type=int, default=8, help="renders a step and process")
    parser.add_argument("--held-back", type=int, default=40, help="prompts of the samples that only the check sees")
    parser.add_argument("--plain", type=float, default=1.0, help="weight of prompts without colours")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-ca", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    launch(train, options.processes, options)


def train(worker: Worker, options: argparse.Namespace) -> None:
    """One process of stage c; the first one writes the checkpoint that `load_reward` reads."""
    model, auxiliary = build_llava(), Auxiliary()
    load_modules(options.init / "state.pt", {"model": model, "auxiliary": auxiliary})
    speed_up(model)
    model.model.vision_tower.post_layernorm.requires_grad_(False)
    settings = Settings(TEMPLATE, SETTINGS, skip_ca=options.skip_ca, tau=TAU)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        head = build_head(model.config.text_config.hidden_size, settings)
    modules: dict[str, nn.Module] = {"model": model, "auxiliary": auxiliary, "head": head}
    loop = Loop(options.out, modules, options.steps, options.rate, worker)
    if options.resume:
        loop.resume()
    options.stage, options.batch = "b", options.renders * worker.count
    Ranking(loop, Grounding(loop, model, auxiliary, options), head, options).run()
    if worker.rank == 0:
        model.set_attn_implementation("sdpa")
        save_checkpoint(options.out / "checkpoint", Checkpoint(model, build_tokenizer(), head, settings))


class Ranking:
    """The loss of stage c, and how well groups that it never saw are ordered."""

    def __init__(self, loop: Loop, grounding: Grounding, head: nn.Module, options: argparse.Namespace) -> None:
        """Read the samples; `grounding` has the renders."""
        self.loop, self.grounding, self.head, self.options = loop, grounding, head, options
        self.samples, groups = load_samples(options.samples.glob("samples-*.npz"))
        mixed = [group for group in groups if group.mixed and len(group.rows) >= CANDIDATES]
        self.held_back, self.groups = mixed[: options.held_back], mixed[options.held_back :]
        self.sayings = {skill: w * options.plain if skill in PLAIN else w for skill, w in WEIGHTS.items()}
        self.weights = [options.plain if group.skill in PLAIN else 1.0 for group in self.groups]

    def run(self) -> None:
        """Train; check at each checkpoint."""
        self.loop.run(self.loss, self.check)

    def loss(self, step: int) -> tuple[Tensor, Metrics]:
        """Bradley-Terry over renders and samples, and the dense losses over both at once."""
        rng = Random(f"c-{self.options.seed}-{step}-{self.loop.worker.rank}")
        rows = self.grounding.rows(rng)
        renders = Pool(self.grounding.pool.images[rows], self.grounding.pool.objects[rows])
        told = [sentences(renders.detected(row), rng, WEIGHTS) for row in range(len(renders))]
        shown = [renders]
        for group in rng.choices(self.groups, self.weights, k=self.options.groups):
            candidates, said = self.tell(group, rng)
            shown.append(candidates)
            told += said
        pixels = torch.cat([pool.pixels(range(len(pool)), rng) for pool in shown])
        tables = np.concatenate([pool.objects for pool in shown])
        packed = pack(tables, told)
        with torch.autocast("cpu", torch.bfloat16):
            visual = see(self.grounding.model, pixels)
            hidden = read(self.grounding.model, visual, packed.ids, packed.positions, packed.segments)
        visual, hidden = visual.float(), hidden.float()
        scores = self.head(hidden[packed.ends[:, 0], packed.ends[:, 1]], visual[packed.ends[:, 0]]) / TAU
        ranked, metrics = self.preferences(scores, packed, len(rows))
        dense, seen = self.grounding.patch_loss(visual, tables)
        words, told = self.grounding.words_loss(hidden, visual, packed)
        total = ranked + 0.3 * words + 0.1 * dense
        return total, {**metrics, "shape": seen["shape"], "presence": told["presence"]}

    def tell(self, group: Group, rng: Random) -> tuple[Pool, list[list[Statement]]]:
        """Eight candidates for one prompt, moved a little, each with that prompt and with twins of its own."""
        mirror = rng.random() < 0.5
        rows = rng.sample(group.rows, CANDIDATES)
        candidates = wandered(self.samples, rows, rng, mirror=mirror)
        spec = mirrored(parse(group.prompt)) if mirror else parse(group.prompt)
        told = []
        for row in range(CANDIDATES):
            objects = candidates.detected(row)
            told.append(sentences(objects, rng, self.sayings, [statement(spec, objects, "prompt")]))
        return candidates, told

    def preferences(self, scores: Tensor, packed: Pack, renders: int) -> tuple[Tensor, Metrics]:
        """The three kinds of pairs; `scores` are in units of tau."""
        true = packed.true > 0.5
        picture = packed.ends[:, 0]
        prompt = torch.tensor([change == "prompt" for change in packed.changes])
        same_picture = (picture[:, None] == picture[None]) & ~(prompt[:, None] | prompt[None])
        group = torch.where(prompt, (picture - renders) // CANDIDATES, -1)
        same_prompt = (group[:, None] == group[None]) & prompt[:, None] & prompt[None]
        same_style = (picture < renders)[:, None] == (picture < renders)[None]
        prefer = true[:, None] & ~true[None]
        margin = scores[:, None] - scores[None]
        loss = -functional.logsigmoid(margin)
        parts = {"twins": same_picture & prefer, "prompts": same_prompt & prefer, "any": same_style & prefer}
        total = (
            1.0 * loss[parts["twins"]].mean() + 1.5 * loss[parts["prompts"]].mean() + 0.5 * loss[parts["any"]].mean()
        )
        return total, {name: (margin[pairs] > 0).float().mean().item() for name, pairs in parts.items()}

    @torch.no_grad()
    def check(self, step: int) -> None:
        """Order within the groups that training never saw, and best of 8 against the oracle's, into the log."""
        model = self.grounding.model.eval()
        right, best, first = [], [], []
        for group in self.held_back:
            rows = list(group.rows[:CANDIDATES])
            correct = torch.from_numpy(group.correct[:CANDIDATES])
            told = [[statement(parse(group.prompt), self.samples.detected(row), "prompt")] for row in rows]
            packed = pack(self.samples.objects[rows], told)
            visual = see(model, self.samples.pixels(rows))
            hidden = read(model, visual, packed.ids, packed.positions, packed.segments)
            scores = self.head(hidden[packed.ends[:, 0], packed.ends[:, 1]], visual)
            right.append((scores[correct][:, None] > scores[~correct][None]).float().mean().item())
            best.append(float(correct[scores.argmax()]))
            first.append(float(correct.float().mean()))
        self.loop.log(
            f"CHECK c: held-back groups, pass above fail {np.mean(right):.3f}, best of 8 {np.mean(best):.3f}, "
            f"at random {np.mean(first):.3f}, oracle 1"
        )
        self.grounding.check(step)
        model.train()


if __name__ == "__main__":
    main()
