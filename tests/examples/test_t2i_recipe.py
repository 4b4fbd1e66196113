"""The recipe of the embedded text-to-image model: its mathematics, and that an interrupt loses nothing."""

import argparse
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "pipelines" / "embedded"
sys.path.insert(0, str(ROOT / "examples" / "embedded"))

import t2i_sampling  # noqa: E402
import t2i_train  # noqa: E402
from muon import orthogonal  # noqa: E402
from t2i_data import scenes, sentences  # noqa: E402
from t2i_evaluate import oracle  # noqa: E402

from rewards.shapes import try_parse  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def options(out: Path, **changes: object) -> argparse.Namespace:
    settings = {"init": MODEL, "out": out, "steps": 4, "batch": 4, "lr": 1e-3, "pool": 16, "seed": 0, "ranks": 1}
    return argparse.Namespace(**(settings | {"save_every": 2, "resume": False} | changes))


def test_candidates_are_those_of_the_stock_pipeline() -> None:
    pipe = t2i_sampling.load(MODEL)
    prompts = ["a red circle", "three blue stars"]
    ours = t2i_sampling.generate(pipe, prompts, [4, 5], steps=6, guidance=3.0, look_at=[6]).images
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5)]
    stock = pipe(prompts, generator=generators, num_inference_steps=6, guidance_scale=3.0, output_type="np").images
    assert np.abs(ours / 255 - stock).max() < 1.5 / 255


def test_muon_makes_updates_orthogonal() -> None:
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(0))
    for candidate in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(candidate))
        assert 0.6 < values.min() < values.max() < 1.4


def test_the_velocity_loss_is_zero_for_the_velocity_itself() -> None:
    """A network that knows the clean latents recovers v from the noisy ones exactly."""
    clean = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    alphas = torch.linspace(0.999, 0.001, 1000)

    class Knowing(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> argparse.Namespace:
            alpha, sigma = (share[timesteps, None, None, None].sqrt() for share in (alphas, 1 - alphas))
            noise = (noisy - alpha * clean) / sigma
            return argparse.Namespace(sample=alpha * noise - sigma * clean)

    class Silent(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> argparse.Namespace:
            return argparse.Namespace(last_hidden_state=ids)

    networks = torch.nn.ModuleDict({"unet": Knowing(), "text_encoder": Silent()})
    assert t2i_train.v_loss(networks, clean, torch.zeros(8, 20), alphas, seed=3) < 1e-6


def test_the_learning_rate_warms_up_stays_and_ends_at_zero() -> None:
    run = options(Path(), steps=1000, lr=2.0)
    rates = [t2i_train.learning_rate(step, run) for step in (50, 100, 300, 650, 1000)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1.0, 0.0])


def test_sentences_are_of_the_grammar_and_some_are_dropped() -> None:
    tokenizer = t2i_sampling.load(MODEL).tokenizer
    ids = sentences(scenes(400, seed=2), tokenizer, Random(0))
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert all(try_parse(text) for text in texts if text)
    assert 20 <= texts.count("") <= 60  # a tenth of 400, within three standard deviations


def test_oracle_is_the_expectation_without_replacement() -> None:
    passes = np.array([True, False, False, False])
    assert [oracle(passes, n) for n in (1, 2, 4, 9)] == pytest.approx([0.25, 0.5, 1.0, 1.0])
    assert oracle(~passes & passes, 4) == 0


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in step 4 after a checkpoint at step 2, it repeats step 3 and ends where an undisturbed run ends."""
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    whole.mkdir()
    halted.mkdir()
    t2i_train.train(0, options(whole))
    update = t2i_train._update

    def interrupted(training: t2i_train.Training, *rest: object) -> None:
        if training.step == 4:
            raise KeyboardInterrupt
        update(training, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(t2i_train, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            t2i_train.train(0, options(halted))
    t2i_train.train(0, options(halted, resume=True))
    for name in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        start, first, second = (
            load_file(folder / name) for folder in (MODEL, whole / "step-00004", halted / "step-00004")
        )
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert any(not torch.equal(first[key], start[key]) for key in first)
