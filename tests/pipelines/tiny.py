"""Tiny random pipelines of nine families, built from configurations alone: no hub, no files.

Each `make_*` returns a stock diffusers pipeline with random weights from a fixed seed, and each takes well under a
second. `CALL` has the options that keep the pictures tiny.
"""

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("a", "red", "green", "blue", "circle", "square", "left", "right", "of", "above", "two", "cat", "dog", "and")
LIMIT = 24


def make_tokenizer(limit: int = LIMIT) -> Any:
    """Whole words where known, else bytes; with begin, end and padding tokens, as CLIP's has."""
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|begin|>", "<|end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(special + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for word in WORDS:
        tokenizer.add_tokens([word])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 1), ("<|end|>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        model_max_length=limit,
    )
    fast.chat_template = "{% for message in messages %}user: {{ message['content'] }}{% endfor %}"
    return fast


VOCABULARY = 400


def clip(projection: bool = False, width: int = 16) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LIMIT,
        projection_dim=width,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(kind: str = "T5") -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def vae(channels: int = 4, **options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        **options,
    )


def unet(cross: int, **options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=cross,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **options,
    )


def make_sd() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=make_tokenizer(),
        unet=unet(16),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_sdxl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    network = unet(
        32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 16,
        transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip(projection=True),
        tokenizer=make_tokenizer(),
        tokenizer_2=make_tokenizer(),
        unet=network,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def make_sd3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=32,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.1, scaling_factor=0.9),
        text_encoder=clip(projection=True, width=8),
        tokenizer=make_tokenizer(),
        text_encoder_2=clip(projection=True, width=8),
        tokenizer_2=make_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=make_tokenizer(256),
    )


def make_flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=256, base_shift=0.5, max_shift=1.15
        ),
        vae=vae(shift_factor=0.1, scaling_factor=0.9),
        text_encoder=clip(),
        tokenizer=make_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=make_tokenizer(256),
        transformer=transformer,
    )


def make_pixart() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        norm_type="ada_norm_single",
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        tokenizer=make_tokenizer(300),
        text_encoder=t5(),
        vae=vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def make_sana() -> Any:
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    encoder = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return SanaPipeline(
        tokenizer=make_tokenizer(1000),
        text_encoder=Gemma2Model(encoder),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        ),
        transformer=SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=8,
            sample_size=32,
        ),
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def make_z_image() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    encoder = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    with torch.no_grad():  # made with torch.empty
        for name, parameter in transformer.named_parameters():
            if "pad_token" in name:
                parameter.normal_(std=0.02)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.1, scaling_factor=0.9),
        text_encoder=Qwen3Model(encoder),
        tokenizer=make_tokenizer(512),
        transformer=transformer,
    )


def make_qwen() -> Any:
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    encoder = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        image_token_id=396,
        video_token_id=397,
        vision_start_token_id=398,
        vision_end_token_id=399,
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_image_seq_len=16,
            max_image_seq_len=256,
            base_shift=0.5,
            max_shift=0.9,
            shift_terminal=0.02,
            time_shift_type="exponential",
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.1, -0.2, 0.0, 0.3],
            latents_std=[1.0, 1.5, 0.8, 1.2],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(encoder),
        tokenizer=make_tokenizer(1200),
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
    )


def make_wan() -> Any:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    return WanPipeline(
        tokenizer=make_tokenizer(512),
        text_encoder=t5("UMT5"),
        vae=AutoencoderKLWan(
            base_dim=4,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=16,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=32,
        ),
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "sd": make_sd,
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "flux": make_flux,
    "pixart": make_pixart,
    "sana": make_sana,
    "z-image": make_z_image,
    "qwen-image": make_qwen,
    "wan": make_wan,
}

CALL: dict[str, dict[str, Any]] = {
    "sd": {"guidance_scale": 4.0, "negative_prompt": "dog"},
    "sdxl": {"guidance_scale": 4.0},
    "sd3": {"guidance_scale": 4.0},
    "flux": {"guidance_scale": 3.5, "max_sequence_length": 24},
    "pixart": {
        "guidance_scale": 4.0,
        "use_resolution_binning": False,
        "max_sequence_length": 24,
        "clean_caption": False,
    },
    "sana": {
        "guidance_scale": 4.0,
        "use_resolution_binning": False,
        "max_sequence_length": 24,
        "complex_human_instruction": None,
        "clean_caption": False,
    },
    "z-image": {"guidance_scale": 4.0, "max_sequence_length": 24},
    "qwen-image": {"true_cfg_scale": 3.0, "negative_prompt": "dog"},
    "wan": {"guidance_scale": 4.0, "num_frames": 5, "max_sequence_length": 24},
}


def make(family: str) -> Any:
    """A tiny pipeline of the family, in evaluation mode, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = MAKERS[family]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # as from_pretrained does; T5 has dropout
    pipe.set_progress_bar_config(disable=True)
    return pipe
