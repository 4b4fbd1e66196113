"""Each door of `load_pipeline` with a tiny random pipeline, and each way to miss one. Nothing here uses a network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.errors import PipelineError, UnknownModel
from pipelines.loading import LoadOptions, default_call, load_pipeline, load_preview_decoder, model_revision
from pipelines.lora import split_weight
from pipelines.placement import pick_device, pick_dtype, stored_dtype
from pipelines.sources import Source, fingerprint, locate, safetensors_header
from tests.pipelines.original_layout import save_original
from tests.pipelines.tiny import make_sd

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Stable Diffusion; tests that change it take a copy."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_sd().save_pretrained(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def picture(pipe: Any) -> torch.Tensor:
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 32, "width": 32, "output_type": "pt"}
    images: torch.Tensor = pipe("a red circle", generator=torch.Generator().manual_seed(1), **call).images
    return images


def stock(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_folder_gives_the_pipeline_that_it_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = load_pipeline(str(folder), device="cpu")
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert (pipe.device.type, pipe.dtype) == ("cpu", torch.float32)
    expected = picture(stock(folder))
    capsys.readouterr()
    assert torch.equal(picture(pipe), expected)
    assert capsys.readouterr().err == ""  # the progress bar is off


def test_the_embedded_model_loads_and_draws() -> None:
    pipe = load_pipeline()
    call = default_call(pipe)
    assert call == default_call("embedded")
    assert {"num_inference_steps", "guidance_scale", "height", "width"} <= set(call)
    images = pipe("a red circle", **{**call, "num_inference_steps": 2}, output_type="pt").images
    assert images.shape == (1, 3, call["height"], call["width"])
    assert images.std() > 0.01
    assert model_revision(pipe) == model_revision("embedded") != ""


def test_a_single_file_with_a_config_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    save_original(stock(folder), checkpoint)
    bare = without_weights(folder, tmp_path / "config")
    pipe = load_pipeline(str(checkpoint), device="cpu", options=LoadOptions(config=str(bare)))
    assert torch.equal(picture(pipe), picture(stock(folder)))
    assert model_revision(pipe) == fingerprint(checkpoint)


def without_weights(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors")))


def test_a_single_file_is_recognised_by_its_weights(tmp_path: Path) -> None:
    """The class comes from the model that diffusers recognises, whose description is then missing offline."""
    checkpoint = tmp_path / "sdxl.safetensors"
    mark = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"  # what diffusers knows SDXL by
    save_file({mark: torch.zeros(2)}, checkpoint)
    with pytest.raises(
        PipelineError, match=r"parts of stabilityai/stable-diffusion-xl-base-1.0, whose description is not"
    ):
        load_pipeline(str(checkpoint))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"some.weight": torch.zeros(2)}, r"no known model family \(its first weight is some.weight\)"),
        ({"unet.to_q.lora_A.weight": torch.zeros(2)}, "holds LoRA weights, not a model"),
    ],
)
def test_files_of_other_weights_are_refused(tmp_path: Path, weights: dict[str, torch.Tensor], sentence: str) -> None:
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(PipelineError, match=sentence):
        load_pipeline(str(tmp_path / "file.safetensors"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model.ckpt", b"x", "pickled checkpoint, which is never read"),
        ("model.gguf", b"x", "expected a .safetensors file or a folder"),
        ("short.safetensors", b"x", "no safetensors file, or a broken download"),
        ("noise.safetensors", bytes(range(100)), "a broken download"),
        ("list.safetensors", (2).to_bytes(8, "little") + b"[]", "a broken download"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=sentence):
        load_pipeline(str(tmp_path / name))


def test_a_cut_off_download_is_told(copied: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PipelineError, match="its header promises"):
        safetensors_header(weights)
    with pytest.raises(PipelineError, match=r"could not be loaded: "):
        load_pipeline(str(copied), device="cpu")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("dall-e", "Expected 'embedded', a folder in diffusers format, a .safetensors file, or a hub id"),
        ("", "name is empty"),
        ("./nowhere", "no file or folder ./nowhere"),
        ("models/a/b", "no file or folder models/a/b"),
        ("style.safetensors", "no file or folder style.safetensors"),
    ],
)
def test_names_that_lead_nowhere(name: str, sentence: str) -> None:
    with pytest.raises(UnknownModel, match=sentence):
        load_pipeline(name)


def test_folders_that_are_no_pipelines(copied: Path) -> None:
    with pytest.raises(PipelineError, match=f"it has no model_index.json, but {copied} has one"):
        load_pipeline(str(copied.parent))
    with pytest.raises(PipelineError, match=f"one part of {copied}: name that folder"):
        load_pipeline(str(copied / "unet"))
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PipelineError, match=r"weights of unet in .* are pickled"):
        load_pipeline(str(copied))
    shutil.rmtree(copied / "unet")
    shutil.rmtree(copied / "vae")
    with pytest.raises(PipelineError, match="names unet, vae, but there is no such subfolder"):
        load_pipeline(str(copied))
    (copied / "model_index.json").write_text("{")
    with pytest.raises(PipelineError, match=r"model_index.json is damaged"):
        load_pipeline(str(copied))


def test_a_folder_of_another_kind_is_not_taken_for_text_to_image(copied: Path) -> None:
    index = copied / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"))
    with pytest.raises(
        PipelineError, match=r"StableDiffusionImg2ImgPipeline makes no pictures from a prompt alone: .* image"
    ):
        load_pipeline(str(copied), device="cpu")


def test_code_in_a_folder_is_not_run(copied: Path) -> None:
    index = json.loads((copied / "model_index.json").read_text())
    index["unet"] = ["mine", "UNet"]
    (copied / "model_index.json").write_text(json.dumps(index))
    (copied / "unet" / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(PipelineError, match="could not be loaded"):
        load_pipeline(str(copied), device="cpu")


def test_a_hub_id_comes_from_the_cache_with_its_commit(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    code = (
        "from pipelines.loading import load_pipeline, model_revision\n"
        "pipe = load_pipeline('someone/tiny', device='cpu')\n"
        "print(type(pipe).__name__, model_revision(pipe), model_revision('someone/tiny'))\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["StableDiffusionPipeline", COMMIT, COMMIT], done.stderr


def test_a_hub_id_that_is_not_cached_is_told_offline() -> None:
    with pytest.raises(PipelineError, match=r"There is no folder someone/other, .* HF_HUB_OFFLINE forbids a download"):
        load_pipeline("someone/other")
    assert model_revision("someone/other") == ""


def test_lora_weights_change_the_picture_in_proportion(folder: Path, tmp_path: Path) -> None:
    style = save_lora(folder, tmp_path / "style")
    plain, none, half, full = (
        picture(load_pipeline(str(folder), device="cpu", lora=lora))
        for lora in (None, f"{style}:0", f"{style}:0.5", str(style))
    )
    torch.testing.assert_close(none, plain)
    assert (full - plain).abs().max() > 1e-3
    assert 0 < (half - plain).abs().mean() < (full - plain).abs().mean()
    from_folder = picture(load_pipeline(str(folder), device="cpu", lora=str(style.parent)))
    assert torch.equal(from_folder, full)
    twice = picture(load_pipeline(str(folder), device="cpu", lora=[f"{style}:0.5", f"{style}:0.5"]))
    torch.testing.assert_close(twice, full, rtol=0, atol=1e-5)


def save_lora(folder: Path, to: Path) -> Path:
    """LoRA weights as a training script saves them, with B off zero so that they do something."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = stock(folder).unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(to, unet_lora_layers=get_peft_model_state_dict(unet))
    return next(to.glob("*.safetensors"))


def test_lora_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    style = save_lora(folder, tmp_path / "style")
    weights = {key: torch.zeros(3, 5) for key in load_file(style)}
    save_file(weights, tmp_path / "large.safetensors")
    with pytest.raises(PipelineError, match=r"The LoRA .*large.safetensors could not be loaded"):
        load_pipeline(str(folder), device="cpu", lora=str(tmp_path / "large.safetensors"))
    save_file({f"transformer.blocks.0.{key}": w for key, w in weights.items()}, tmp_path / "other.safetensors")
    with pytest.raises(PipelineError, match=r"other.safetensors (has no weights for|could not be loaded)"):
        load_pipeline(str(folder), device="cpu", lora=str(tmp_path / "other.safetensors"))
    with pytest.raises(PipelineError, match=r"no LoRA file, folder or hub id nix.safetensors"):
        load_pipeline(str(folder), device="cpu", lora="nix.safetensors:0.3")


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ("style.safetensors:0.8", ("style.safetensors", 0.8)),
        ("owner/name", ("owner/name", 1.0)),
        (r"C:\loras\style.safetensors", (r"C:\loras\style.safetensors", 1.0)),
        ("a:b:-1", ("a:b", -1.0)),
    ],
)
def test_the_weight_behind_a_lora(lora: str, expected: tuple[str, float]) -> None:
    assert split_weight(lora) == expected


def test_a_preview_decoder_fits_the_latents(folder: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    for channels in (4, 16):
        options = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        tiny = AutoencoderTiny(latent_channels=channels, **options, **blocks)
        tiny.save_pretrained(tmp_path / str(channels))
    pipe = load_pipeline(str(folder), device="cpu")
    decoder = load_preview_decoder(str(tmp_path / "4"), pipe)
    assert decoder.decode(torch.zeros(1, 4, 8, 8)).sample.shape == (1, 3, 16, 16)
    assert not decoder.training
    with pytest.raises(PipelineError, match="latents of 16 channels, but those of StableDiffusionPipeline have 4"):
        load_preview_decoder(str(tmp_path / "16"), pipe)
    with pytest.raises(PipelineError, match=r"preview decoder .* could not be loaded"):
        load_preview_decoder(str(folder), pipe)


def test_slicing_tiling_and_compilation_are_set(folder: Path) -> None:
    options = LoadOptions(vae_slicing=True, vae_tiling=True, compile=True)
    pipe = load_pipeline(str(folder), device="cpu", options=options)
    assert pipe.vae.use_slicing
    assert pipe.vae.use_tiling
    assert pipe.unet._compiled_call_impl is not None
    plain = load_pipeline(str(folder), device="cpu")
    assert not plain.vae.use_slicing
    assert not plain.vae.use_tiling
    assert plain.unet._compiled_call_impl is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "gpu"}, "Unknown device 'gpu'"),
        ({"device": "cuda:99"}, "'cuda:99' was asked for, but there"),
        ({"dtype": "float61"}, "did you mean 'float16'"),
        ({"dtype": torch.int8}, "Unknown dtype 'int8'"),
        ({"offload": "disk"}, "expected one of none, model, sequential"),
        ({"device": "cpu", "offload": "model"}, "use 'none' on the cpu"),
    ],
)
def test_devices_and_dtypes_that_do_not_exist(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PipelineError, match=sentence):
        load_pipeline(**options)


def test_dtypes_can_be_named_three_ways(folder: Path) -> None:
    for dtype in ("bfloat16", "bf16", torch.bfloat16):
        assert load_pipeline(str(folder), device="cpu", dtype=dtype).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_auto_takes_the_stored_half_precision_on_an_accelerator(
    folder: Path, tmp_path: Path, stored: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = None if stored == torch.float32 else "half"
    stock(folder).to(stored).save_pretrained(tmp_path / "stored", variant=variant)
    source = Source("stored", tmp_path / "stored")
    assert stored_dtype(source, variant) == stored
    assert pick_dtype("auto", torch.device("cpu"), source, variant) == torch.float32
    for has_bfloat16, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bfloat16, **_: has)
        wanted = torch.float16 if stored == torch.float16 else expected
        assert pick_dtype("auto", torch.device("cuda"), source, variant) == wanted


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_device(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Present:
        is_available, device_count = staticmethod(lambda: True), staticmethod(lambda: 1)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "get_device_module", lambda _: Present)
    assert pick_device("auto").type == expected


def test_the_fingerprint_follows_the_content(copied: Path, folder: Path) -> None:
    assert model_revision(str(copied)) == model_revision(str(folder)) == locate(str(folder)).revision
    (copied / "README.md").write_text("about")
    assert fingerprint(copied) == fingerprint(folder)
    weights = copied / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(copied) != fingerprint(folder)


def test_a_large_file_is_sampled_from_end_to_end(tmp_path: Path) -> None:
    large = tmp_path / "large.safetensors"
    with large.open("wb") as file:
        file.truncate(65 << 20)
    before = fingerprint(large)
    for place in (0, 40 << 20, (65 << 20) - 1):
        with large.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        after = fingerprint(large)
        assert after != before
        before = after


def test_a_pipeline_made_in_memory_has_no_revision_and_no_defaults() -> None:
    pipe = make_sd()
    assert model_revision(pipe) == ""
    assert default_call(pipe) == {}
