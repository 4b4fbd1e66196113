"""The base model of the embedded LLaVA-Reward, in two stages: first see, then read.

    python reward_ground.py a POOL RUN/a --steps 1600
    python reward_ground.py b POOL RUN/b --steps 4000 --batch 24 --init RUN/a

a. The vision tower and the projector learn what stands at each patch. The classes are the language model's own word
   embeddings, so that "red" and a red patch are alike before the language model is trained. Gate: 97 % of the patches
   of objects in clean held-out renders have the right shape.
b. The language model learns to list objects with their cells, and to say whether a sentence is true; each noun also
   tells presence, number and place of what it names, each relation whether it holds. Gate: 85 % of held-out twins in
   the right order. At the end RUN/b/base holds a plain LLaVA, for `train-reward --base`.

With --samples the text-to-image model's candidates (`t2i_samples.py`) are looked at beside the renders. A GPU is used
where there is one; then --loaders 12 or so prepare the batches, and a batch of 256 costs little more than one of 24.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from reward_base import save_base
from reward_data import WEIGHTS, Pack, Statement, listing, pack, sentences, statement, twins
from reward_loop import Loop, Metrics, Worker, launch, load_modules
from reward_model import COLOR_WORDS, ID, SHAPE_WORDS, Auxiliary, build_llava, read, see, speed_up
from reward_pictures import Labels, Pool, patch_labels
from reward_samples import load_samples
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import LlavaForConditionalGeneration

from rewards.shapes.render import render
from rewards.shapes.scenes import random_scene

_SHAPE_IDS = [ID[word] for word in SHAPE_WORDS]
_COLOR_IDS = [ID[word] for word in COLOR_WORDS]
_EASY = {"single_object": 0.3, "colors": 1.0}
_TEST_ROWS = 400


def main() -> None:
    """Read the arguments and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("a", "b"))
    parser.add_argument("pool", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=Path, help="folder of candidates that are looked at too")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=48, help="pictures a step, over all processes")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--init", type=Path, help="folder of the stage before")
    parser.add_argument("--processes", type=int, default=1, help="that train, on CPUs")
    parser.add_argument("--loaders", type=int, default=0, help="processes that prepare batches; 0: the training one")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    launch(train, options.processes, options)


def train(worker: Worker, options: argparse.Namespace) -> None:
    """One process of stage a or b."""
    model, auxiliary = build_llava(), Auxiliary()
    speed_up(model)
    modules = {"model": model, "auxiliary": auxiliary}
    if options.init:
        load_modules(options.init / "state.pt", modules)
    model.model.vision_tower.post_layernorm.requires_grad_(False)  # CLIP's own output, which LLaVA does not read
    if options.stage == "a":
        model.model.language_model.layers.requires_grad_(False)
        model.model.language_model.norm.requires_grad_(False)
    loop = Loop(options.out, modules, options.steps, options.rate, worker)
    if options.resume:
        loop.resume()
    Grounding(loop, model, auxiliary, options).run()
    if worker.rank == 0 and options.stage == "b":
        save_base(options.out / "base", model.cpu())


class Batch(NamedTuple):
    """What one step looks at: pixels (B, 3, 64, 64), what stands at their patches and, in stage b, sentences."""

    pixels: Tensor
    labels: Labels
    packed: Pack | None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        labels = Labels(*(part.to(device) for part in self.labels))
        return Batch(self.pixels.to(device), labels, self.packed and self.packed.to(device))


class Batches(Dataset[Batch]):
    """The batch of each step, a function of stage, step and process alone, whoever prepares it."""

    def __init__(self, pool: Pool, stage: str, steps: int, size: int, rank: int) -> None:
        """Of `size` pictures."""
        self.pool, self.stage, self.steps, self.size, self.rank = pool, stage, steps, size, rank

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Of step `step`."""
        rng = Random(f"{self.stage}-{step}-{self.rank}")
        progress = step / self.steps
        weights, lists = (_EASY, 1.0) if progress < 0.08 else (WEIGHTS, 0.5 if progress < 0.3 else 0.15)
        rows = self.rows(rng)
        tables = self.pool.objects[rows]
        pixels = self.pool.pixels(rows, rng)
        if self.stage == "a":
            return Batch(pixels, patch_labels(tables), None)
        told = []
        for objects in map(self.pool.detected, rows):
            spoken = [listing(objects)] if objects and rng.random() < lists else []
            told.append(sentences(objects, rng, weights, spoken))
        return Batch(pixels, patch_labels(tables), pack(tables, told))

    def rows(self, rng: Random) -> list[int]:
        """Random pictures; in stage b most of them with two objects or more, of which there is more to say."""
        rows: list[int] = []
        while len(rows) < self.size:
            row = rng.randrange(len(self.pool))
            if self.stage == "a" or self.pool.objects[row, 1, 0] >= 0 or rng.random() < 0.3:
                rows.append(row)
        return rows


class Grounding:
    """The losses of stages a and b, and their gates."""

    def __init__(
        self, loop: Loop, model: LlavaForConditionalGeneration, auxiliary: Auxiliary, options: argparse.Namespace
    ) -> None:
        """Read the pools."""
        self.loop, self.model, self.auxiliary = loop, model, auxiliary
        self.stage, self.device = options.stage, loop.worker.device
        pool = Pool.read(options.pool.glob("train-*.npz"))
        if options.samples:
            pool = pool + load_samples(options.samples.glob("samples-*.npz"))[0]
        self.test = Pool.read(options.pool.glob("test-*.npz"))
        self.clean = clean_renders()
        size, rank = options.batch // loop.worker.count, loop.worker.rank
        self.batches, self.loaders = Batches(pool, options.stage, loop.steps, size, rank), options.loaders
        self.prepared: Iterator[Batch] = iter(())

    def run(self) -> None:
        """Train; check the gate at each checkpoint."""
        left = range(self.loop.step, self.loop.steps)
        self.prepared = iter(DataLoader(self.batches, batch_size=None, sampler=left, num_workers=self.loaders))
        self.loop.run(self.loss, self.check)

    def loss(self, step: int) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one step."""
        batch = next(self.prepared).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            visual = see(self.model, batch.pixels)
        visual = visual.float()
        dense, metrics = self.patch_loss(visual, batch.labels)
        if batch.packed is None:
            return dense, metrics
        words, told = self.text_loss(visual, batch.packed)
        return words + 0.3 * dense, {"shape": metrics["shape"], **told}

    def patch_loss(self, visual: Tensor, labels: Labels) -> tuple[Tensor, Metrics]:
        """Cross-entropy of shape and colour over the patches, and the place of each object's centre."""
        shape, color, centre, offset = labels
        shapes, colors = self.patch_logits(visual)
        there = shape < 7
        weight = torch.where(there, 2.0, 0.5).flatten()
        cross = lambda logits, target: (  # noqa: E731
            functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none") * weight
        ).mean()
        places = self.auxiliary.place(visual)
        middle = functional.binary_cross_entropy_with_logits(places[..., 0], centre)
        away = functional.smooth_l1_loss(places[..., 1:][there], offset[there], beta=0.1)
        total = cross(shapes, shape) + cross(colors, color) + middle + away
        right = (shapes.argmax(-1) == shape)[there].float().mean().item()
        return total, {"shape": right, "colour": (colors.argmax(-1) == color)[there].float().mean().item()}

    def patch_logits(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 64, 8) of shapes and (B, 64, 9) of colours: likeness to the words for them."""
        words = self.model.get_input_embeddings().weight
        scaled = visual * self.auxiliary.scale
        return scaled @ words[_SHAPE_IDS].T, scaled @ words[_COLOR_IDS].T

    def text_loss(self, visual: Tensor, packed: Pack) -> tuple[Tensor, Metrics]:
        """`words_loss` of a pack behind its pictures."""
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = read(self.model, visual, packed.ids, packed.positions, packed.segments)
        return self.words_loss(hidden.float(), visual, packed)

    def words_loss(self, hidden: Tensor, visual: Tensor, packed: Pack) -> tuple[Tensor, Metrics]:
        """Verdicts, what nouns refer to, relations, and the next word of true sentences."""
        verdict = self.verdicts(hidden, packed)
        judged = functional.binary_cross_entropy_with_logits(verdict, packed.true)
        at = hidden[packed.nouns[:, 0], packed.nouns[:, 1]]  # (M, H)
        facts = self.auxiliary.noun(at)
        presence = functional.binary_cross_entropy_with_logits(facts[:, 0], packed.presence)
        count = functional.cross_entropy(facts[:, 1:7], packed.count)
        known = packed.relation >= 0
        relation = functional.binary_cross_entropy_with_logits(
            facts[known, 7], packed.relation[known].float(), reduction="sum"
        ) / max(1, int(known.sum()))
        heat = functional.binary_cross_entropy_with_logits(
            self.auxiliary.heat(at, visual[packed.nouns[:, 0]]), packed.heat, pos_weight=hidden.new_tensor(3.0)
        )
        single = packed.spot[:, 0].isfinite()
        spots = self.auxiliary.spot(at[single])
        spot = functional.smooth_l1_loss(spots, packed.spot[single], beta=0.1)
        spoken = packed.next_words >= 0
        logits = self.model.lm_head(hidden[spoken])
        speech = functional.cross_entropy(logits, packed.next_words[spoken])
        total = judged + 0.5 * presence + 0.3 * count + 0.7 * relation + heat + 2.0 * spot + 0.2 * speech
        return total, {
            "yes/no": judged.item(),
            "right": ((verdict > 0) == (packed.true > 0.5)).float().mean().item(),
            "presence": ((facts[:, 0] > 0) == (packed.presence > 0.5)).float().mean().item(),
            "count": (facts[:, 1:7].argmax(-1) == packed.count).float().mean().item(),
            "relation": ((facts[known, 7] > 0) == (packed.relation[known] > 0)).float().mean().nan_to_num(0.5).item(),
            "heat": heat.item(),
            "away": (spots - packed.spot[single]).norm(dim=1).mean().item() * 32,
            "speech": speech.item(),
        }

    def verdicts(self, hidden: Tensor, packed: Pack) -> Tensor:
        """Logit of "yes" against "no" at the end of each sentence, (S,)."""
        words = self.model.lm_head.weight
        return hidden[packed.ends[:, 0], packed.ends[:, 1]] @ (words[ID["yes"]] - words[ID["no"]])

    @torch.no_grad()
    def check(self, step: int) -> None:
        """The gate of the stage, into the log."""
        self.model.eval()
        pixels, labels = self.clean
        shapes, colors = (logits.cpu() for logits in self.patch_logits(see(self.model, pixels.to(self.device))))
        shape, color, _, _ = labels
        there = shape < 7
        shape_right = (shapes.argmax(-1) == shape)[there].float().mean().item()
        color_right = (colors.argmax(-1) == color)[there].float().mean().item()
        self.loop.log(f"GATE a: clean held-out patches, shape {shape_right:.4f} colour {color_right:.4f}")
        if self.stage == "b":
            score = twin_accuracy(self.model, self.test, range(_TEST_ROWS), self.verdicts)
            self.loop.log("GATE b: " + " ".join(f"{name} {value:.3f}" for name, value in score.items()))
        self.model.train()


def clean_renders(number: int = 300) -> tuple[Tensor, Labels]:
    """Undamaged renders of held-out combinations, and what stands at their patches."""
    from reward_pool import table

    from rewards.shapes.detector import detect

    rng = Random("clean")
    images = np.stack([render(random_scene(rng, split="test"), rng) for _ in range(number)])
    tables = np.stack([table(found) for found in detect(images.astype(np.float32) / 255)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, patch_labels(tables)


def test_statements(pool: Pool, rows: range) -> tuple[list[int], list[list[Statement]]]:
    """One pair of twins of every picture that has any: held-out renders, all skills."""
    chosen, told = [], []
    for row in rows:
        made = twins(pool.detected(row), Random(f"test-{row}"), WEIGHTS, "test")
        if made:
            objects = pool.detected(row)
            chosen.append(row)
            told.append([statement(made[0], objects, made[0].skill), statement(made[1], objects, made[2])])
    return chosen, told


def twin_accuracy(model: LlavaForConditionalGeneration, pool: Pool, rows: range, verdicts) -> Metrics:  # noqa: ANN001
    """Share of true sentences that score above their false twin, overall and by what was changed."""
    chosen, told = test_statements(pool, rows)
    right: dict[str, list[float]] = {"all": []}
    for start in range(0, len(chosen), 40):
        part, said = chosen[start : start + 40], told[start : start + 40]
        packed = pack(pool.objects[part], said).to(model.device)
        visual = see(model, pool.pixels(part).to(model.device))
        hidden = read(model, visual, packed.ids, packed.positions, packed.segments)
        scores = verdicts(hidden, packed).view(-1, 2)
        for (_, false), won in zip(said, (scores[:, 0] > scores[:, 1]).tolist(), strict=True):
            right["all"].append(won)
            right.setdefault(false.change, []).append(won)
    return {name: float(np.mean(values)) for name, values in right.items()}


if __name__ == "__main__":
    main()
