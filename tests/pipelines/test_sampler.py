"""The verbs of DiffusersSampler beyond the table: previews, renoising, memory, refusals."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from cases import PROMPT, Case, PipeOf, sampler_of

from pipelines.conditioning import truncated_prompt
from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.errors import NotFinite, OutOfMemory, PipelineError, UnsupportedScheduler, UnsupportedSize
from pipelines.noise import step_noise
from pipelines.video import key_frames

SD = Case("sd")


@pytest.fixture
def sampler(pipe_of: PipeOf) -> DiffusersSampler:
    return sampler_of(pipe_of("sd"), SD, steps=4)


def test_previews_are_the_estimate_and_end_in_the_picture(sampler: DiffusersSampler) -> None:
    half = sampler.advance(sampler.init([0, 1]), to=2)
    end = sampler.advance(half, to=4)
    preview, last = sampler.decode(half), sampler.decode(end)
    assert preview.shape == last.shape == (2, 3, 32, 64)
    assert 0 < (preview - last).abs().mean() < 0.3
    before = sampler.advance(half, to=3)
    table = sampler.schedule
    noise = (half.latents - float(table.alpha[2]) * before.x0) / float(table.sigma[2])
    expected = float(table.alpha[3]) * before.x0 + float(table.sigma[3]) * noise  # the DDIM step from x0
    torch.testing.assert_close(before.latents, expected, rtol=1e-4, atol=1e-4)


def test_a_preview_decoder_serves_unfinished_particles_only(pipe_of: PipeOf) -> None:
    from diffusers import AutoencoderTiny

    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        upsampling_scaling_factor=2,
    ).eval()
    pipe = pipe_of("sd")
    sampler = sampler_of(pipe, SD, steps=3, preview_decoder=tiny)
    plain = sampler_of(pipe, SD, steps=3)
    half = sampler.advance(sampler.init([0]), to=1)
    with torch.no_grad():
        expected = (tiny.decode(half.x0).sample / 2 + 0.5).clamp(0, 1)
    assert torch.equal(sampler.decode(half), expected)
    end = sampler.advance(half, to=3)
    assert torch.equal(sampler.decode(end), plain.decode(end))


def test_renoise_is_the_forward_kernel_by_stream(sampler: DiffusersSampler) -> None:
    clean = sampler.advance(sampler.init([3, 4]), to=4)
    again = sampler.renoise(clean, to=1, seed=9)
    table = sampler.schedule
    noise = step_noise(again.streams, 1, clean.latents.shape[1:], draw=-1)
    ratio = float(table.alpha[1] / table.alpha[4])
    spread = float((table.sigma[1] ** 2 - (ratio * table.sigma[4]) ** 2).sqrt())
    torch.testing.assert_close(again.latents, ratio * clean.latents + spread * noise)
    assert again.step == 1
    assert again.x0 is None
    assert not set(again.streams) & set(clean.streams)
    swapped = sampler.renoise(clean[[1, 0]], to=1, seed=9)
    assert torch.equal(swapped.latents, again.latents[[1, 0]])
    assert not torch.equal(sampler.renoise(clean, to=1, seed=10).latents, again.latents)
    assert sampler.advance(again, to=4).latents.isfinite().all()


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"])
def test_multistep_solvers_start_afresh_after_renoising(name: str, pipe_of: PipeOf) -> None:
    case = Case("sd", name)
    sampler = sampler_of(case.pipe(pipe_of("sd")), case, steps=6)
    clean = sampler.advance(sampler.init([3]), to=6)
    again = sampler.renoise(clean, to=3, seed=0)
    whole = sampler.advance(again, to=6)
    assert torch.equal(sampler.advance(sampler.advance(again, to=4), to=6).latents, whole.latents)
    near, far = sampler.renoise(clean, to=5, seed=0), sampler.renoise(clean, to=1, seed=0)
    moved = [float((sampler.advance(one, to=6).latents - clean.latents).square().mean()) for one in (near, far)]
    assert moved[0] < moved[1]


def test_forks_part_under_a_stochastic_solver_and_duplicates_do_not(pipe_of: PipeOf) -> None:
    case = Case("sd", "EulerAncestralDiscreteScheduler")
    sampler = sampler_of(case.pipe(pipe_of("sd")), case, steps=4)
    half = sampler.advance(sampler.init([0]), to=2)
    same = sampler.advance(half[[0, 0]], to=4).latents
    forked = sampler.advance(half.fork([0, 0]), to=4).latents
    assert torch.equal(same[0], same[1])
    assert torch.equal(forked[0], same[0])
    assert (forked[0] - forked[1]).abs().max() > 0.01


def test_micro_batches_change_nothing_when_invariant_and_halve_when_memory_is_short(
    pipe_of: PipeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipe_of("sd")
    sampler = sampler_of(pipe, SD, steps=2, batch_invariant=True)
    expected = sampler.advance(sampler.init([0, 1, 2, 3, 4]), to=2)
    forward, sizes = type(pipe.unet).forward, []

    def small_memory(self: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(sample) // 2)
        if len(sample) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, sample, *args, **kwargs)

    monkeypatch.setattr(type(pipe.unet), "forward", small_memory)
    got = sampler.advance(sampler.init([0, 1, 2, 3, 4]), to=2)
    assert sizes == [5, 3, 2, 2, 2, 2, 1, 1]
    assert torch.equal(got.latents, expected.latents)
    monkeypatch.setattr(type(pipe.unet), "forward", lambda *args, **kwargs: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemory, match="does not fit"):
        sampler.advance(sampler.init([0]), to=1)


@pytest.mark.parametrize("family", ["sd", "sd3", "flux", "qwen-image"])
def test_each_prompt_is_encoded_once_whatever_the_batch(family: str, pipe_of: PipeOf) -> None:
    pipe = pipe_of(family)
    with count_calls(pipe.text_encoder) as calls:
        sampler = sampler_of(pipe, Case(family), steps=3, batch_size=3)
        particles = sampler.init([0, 1, 2, 3])  # batches of three and of one
        for step in (1, 2, 3):
            particles = sampler.advance(particles, to=step)
            sampler.decode(particles[:2])
    # The prompt, and the negative one where guidance has one; SD 3 has two text encoders of this class.
    assert len(calls) == {"flux": 1, "sd3": 4}.get(family, 2)


@contextmanager
def count_calls(module: torch.nn.Module) -> Iterator[list[int]]:
    calls: list[int] = []
    kind = type(module)
    with mock.patch.object(kind, "forward", autospec=True, side_effect=kind.forward) as forward:
        yield calls
        calls.extend(range(forward.call_count))


def test_the_callers_pipeline_is_left_alone(pipe_of: PipeOf) -> None:
    pipe = pipe_of("sd")
    scheduler, attributes, bar = pipe.scheduler, set(vars(pipe)), copy.deepcopy(pipe._progress_bar_config)
    state = copy.deepcopy(scheduler.__dict__)
    sampler = sampler_of(pipe, SD, steps=3)
    sampler.decode(sampler.advance(sampler.init([0]), to=3))
    assert pipe.scheduler is scheduler
    assert set(vars(pipe)) == attributes
    assert pipe._progress_bar_config == bar
    assert str(scheduler.__dict__) == str(state)


def test_progress_is_told_step_by_step(sampler: DiffusersSampler) -> None:
    told: list[int] = []
    sampler.on_nfe = told.append
    sampler.advance(sampler.init([0, 1, 2]), to=4)
    assert told == [3, 3, 3, 3]


def test_video_frames(pipe_of: PipeOf) -> None:
    sampler = sampler_of(pipe_of("wan"), Case("wan"), steps=1, size=(32, 32))
    videos = sampler.decode(sampler.advance(sampler.init([0, 1]), to=1))
    assert videos.shape == (2, 5, 3, 32, 32)
    frames = key_frames(videos)
    assert torch.equal(frames[:, 0], videos[:, 0])
    assert torch.equal(frames[:, 1], videos[:, 2])
    assert torch.equal(key_frames(videos[:, 0])[:, 0], videos[:, 0])


def test_nan_is_one_clear_error(pipe_of: PipeOf, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipe_of("sd")
    sampler = sampler_of(pipe, SD, steps=2)
    start = sampler.init([7, 8])
    forward = type(pipe.unet).forward

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output[0][1::2] = float("nan")  # rows are [uncond 7, uncond 8, cond 7, cond 8]
        return output

    monkeypatch.setattr(type(pipe.unet), "forward", broken)
    with pytest.raises(NotFinite, match=r"NaN .* step 2 for particle 1 \(seed or stream 8\) of 2"):
        sampler.advance(start, to=2)


def test_moves_that_make_no_sense(sampler: DiffusersSampler) -> None:
    start = sampler.init([0])
    half = sampler.advance(start, to=2)
    for to in (1, 5):
        with pytest.raises(PipelineError, match=f"`to` must be from 2 to 4 here, but is {to}"):
            sampler.advance(half, to=to)
    with pytest.raises(PipelineError, match="`to` must be from 0 to 1 here, but is 2"):
        sampler.renoise(half, to=2, seed=0)
    with pytest.raises(PipelineError, match="advance them by one step before decoding"):
        sampler.decode(start)
    with pytest.raises(PipelineError, match="No seeds"):
        sampler.init([])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HeunDiscreteScheduler", r"4 steps into 7 model calls.*EulerDiscreteScheduler or DPMSolverMultistepScheduler"),
        ("PNDMScheduler", r"4 steps into \d+ model calls.*EulerDiscreteScheduler"),
        ("KDPM2DiscreteScheduler", r"model calls.*EulerDiscreteScheduler"),
        ("IPNDMScheduler", r"cannot be read.*EulerDiscreteScheduler"),
    ],
)
def test_schedulers_that_cannot_be_split_are_refused_with_the_cure(name: str, message: str, pipe_of: PipeOf) -> None:
    case = Case("sd", name)
    with pytest.raises(UnsupportedScheduler, match=f"{name}.*{message}|{message}"):
        sampler_of(case.pipe(pipe_of("sd")), case, steps=4).init([0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"guidance_scal": 3.0},
            "StableDiffusionPipeline has no option `guidance_scal`; did you mean `guidance_scale`",
        ),
        ({"latents": None}, "`latents` is set by the sampler itself"),
        ({"num_images_per_prompt": 2}, "`num_images_per_prompt` is set by the sampler itself"),
        ({"steps": 0}, "`steps` must be at least 1, but is 0"),
        ({"prompt": ["a", "b"]}, "`prompt` must be one string"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], message: str, pipe_of: PipeOf) -> None:
    with pytest.raises(PipelineError, match=message):
        DiffusersSampler(pipe_of("sd"), **{"steps": 2, "prompt": PROMPT, **options})


@pytest.mark.parametrize(
    ("family", "option"), [("sd3", {"skip_guidance_layers": [0]}), ("sdxl", {"denoising_end": 0.8})]
)
def test_options_that_only_an_unbroken_run_can_follow(family: str, option: dict[str, Any], pipe_of: PipeOf) -> None:
    (name,) = option
    with pytest.raises(PipelineError, match=f"`{name}` goes by the place in one unbroken run .* leave it out"):
        DiffusersSampler(pipe_of(family), steps=2, prompt=PROMPT, **option)
    DiffusersSampler(pipe_of(family), steps=2, prompt=PROMPT, **{name: None})


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("sd", (33, 32), "StableDiffusionPipeline refuses this call: .*divisible by"),
        ("sd", (0, 32), "`height` must be a positive number of pixels, but is 0"),
        ("flux", (34, 32), "FluxPipeline makes 32×32 pixels instead of 34×32"),
        ("qwen-image", (32, 36), "QwenImagePipeline makes 32×32 pixels instead of 32×36"),
        ("wan", (32, 40), "WanPipeline refuses this call: .*divisible by 16"),
        ("sana", (32, 48), "SanaPipeline refuses this call: .*divisible by 32"),
    ],
)
def test_sizes_that_the_model_cannot_make(family: str, size: tuple[int, int], message: str, pipe_of: PipeOf) -> None:
    with pytest.raises(UnsupportedSize, match=message):
        sampler_of(pipe_of(family), Case(family), steps=2, size=size).init([0])


def test_the_cut_end_of_a_prompt(pipe_of: PipeOf) -> None:
    fits = "a red circle left of a blue square"  # 8 words and 7 spaces, of 22 that fit between begin and end
    assert truncated_prompt(pipe_of("sd"), fits) is None
    long = fits + " and a cat and a dog and a red circle"
    cut = truncated_prompt(pipe_of("sd"), long)
    assert cut is not None
    assert long.endswith(cut)
    tokens = pipe_of("sd").tokenizer(long, truncation=True, return_offsets_mapping=True)
    assert long.index(cut, tokens.offset_mapping[-2][1]) - tokens.offset_mapping[-2][1] <= 1  # at most a space between
    assert truncated_prompt(pipe_of("sd3"), long) is None  # T5 reads what CLIP does not
    assert truncated_prompt(pipe_of("sd3"), long, max_sequence_length=24) == cut
