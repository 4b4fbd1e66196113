"""Tiny random models in the layouts of the published ones, made from seeds, and the pictures and prompts to score.

`numpy.random.RandomState` is frozen, so that the numbers of the original implementations, which were recorded once in
`goldens/`, belong to the same weights for ever.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

Shapes = dict[str, tuple[int, ...]]
GOLDENS = Path(__file__).parent / "goldens"

SIZES = [(64, 64), (97, 61), (61, 97), (31, 28), (28, 28), (90, 28), (53, 200)]  # width, height
PROMPTS = [
    "a red cat",
    "The  <b>red</b> &amp; the blue",
    "three cats' hats, 2 dogs!",
    "“curly” quotes",
    "",
    "one of many " * 30,
    "a red cat",
]

OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 128, "head_width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 518, "width": 64, "heads": 2, "layers": 2},
}
MERGES = [("t", "h"), ("th", "e</w>"), ("r", "e"), ("re", "d</w>")]


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Random weights of these names and shapes, in their order: norms near one, the rest keeping variances."""
    state = np.random.RandomState(seed)
    made = {}
    for name, shape in shapes.items():
        values = state.standard_normal(shape) / (math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 10)
        norm = name.endswith("weight") and any(part in name.lower() for part in ("ln_", "norm", "layrnorm"))
        made[name] = torch.tensor(np.asarray(values + (1 if norm else 0), np.float32))
        if name.endswith("position_ids"):
            made[name] = torch.arange(shape[1])[None]
    if "logit_scale" in made:
        made["logit_scale"] = torch.tensor(4.6)
    return made


def noise(width: int, height: int, seed: int) -> Image.Image:
    """A picture of random bytes: the hardest there is to resize alike."""
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


def pictures() -> list[Image.Image]:
    """One of noise for each of `SIZES`."""
    return [noise(width, height, seed) for seed, (width, height) in enumerate(SIZES)]


def golden(name: str) -> Any:
    """What an original implementation gave."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def open_clip_shapes(settings: Mapping[str, Any] = OPEN_CLIP) -> Shapes:
    """Names and shapes of an open_clip model, as of OpenAI's own."""
    vision, text, dim = settings["vision_cfg"], settings["text_cfg"], settings["embed_dim"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    wide, narrow = vision["width"], text["width"]
    return {
        "positional_embedding": (text["context_length"], narrow),
        "text_projection": (narrow, dim),
        "logit_scale": (),
        "visual.class_embedding": (wide,),
        "visual.positional_embedding": (patches + 1, wide),
        "visual.proj": (wide, dim),
        "visual.conv1.weight": (wide, 3, vision["patch_size"], vision["patch_size"]),
        **_norm("visual.ln_pre", wide),
        **_blocks("visual.transformer", wide, vision["layers"]),
        **_norm("visual.ln_post", wide),
        **_blocks("transformer", narrow, text["layers"]),
        "token_embedding.weight": (text["vocab_size"], narrow),
        **_norm("ln_final", narrow),
    }


def _blocks(prefix: str, width: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in (f"{prefix}.resblocks.{number}" for number in range(layers)):
        shapes |= _norm(f"{layer}.ln_1", width)
        shapes |= {f"{layer}.attn.in_proj_weight": (3 * width, width), f"{layer}.attn.in_proj_bias": (3 * width,)}
        shapes |= _linear(f"{layer}.attn.out_proj", width, width)
        shapes |= _norm(f"{layer}.ln_2", width)
        shapes |= _linear(f"{layer}.mlp.c_fc", width, 4 * width) | _linear(f"{layer}.mlp.c_proj", 4 * width, width)
    return shapes


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def bytes_as_letters() -> list[str]:
    """A printable letter for each byte, in the order of CLIP's and GPT-2's vocabularies."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(len(others))]


def write_clip_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with four merges instead of 48,894."""
    letters = bytes_as_letters()
    names = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in MERGES)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES, unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    end, begin = ("<|endoftext|>", vocabulary["<|endoftext|>"]), ("<|startoftext|>", vocabulary["<|startoftext|>"])
    tokenizer.post_processor = processors.RobertaProcessing(end, begin, trim_offsets=False, add_prefix_space=False)
    tokenizer.add_special_tokens([begin[0], end[0]])
    write_tokenizer(tokenizer, folder, bos_token=begin[0], eos_token=end[0], pad_token=end[0], unk_token=end[0])


def write_tokenizer(tokenizer: Tokenizer, folder: Path, **settings: str) -> None:
    """tokenizer.json and the settings beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def clip_config(activation: str = "gelu") -> dict[str, Any]:
    """The config.json of a CLIP in transformers' layout, of the size of `OPEN_CLIP`."""
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": activation}
    return {
        "model_type": "clip",
        "projection_dim": 32,
        "vision_config": {**tower, "hidden_size": 128, "intermediate_size": 512, "image_size": 28, "patch_size": 14},
        "text_config": {
            **tower, "hidden_size": 64, "intermediate_size": 256, "vocab_size": 518, "bos_token_id": 516,
            "eos_token_id": 517, "pad_token_id": 517,
        },
    }  # fmt: skip


MED: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 70,
    "max_position_embeddings": 40, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0,
    "encoder_width": 128, "add_cross_attention": True,
}  # fmt: skip


def imagereward_shapes(med: Mapping[str, Any] = MED, width: int = 128, layers: int = 2, patches: int = 4) -> Shapes:
    """Names and shapes of ImageReward.pt, those that no score needs among them."""
    tower, bert, wide = "blip.visual_encoder", "blip.text_encoder", med["hidden_size"]
    shapes: Shapes = {
        f"{tower}.cls_token": (1, 1, width),
        f"{tower}.pos_embed": (1, patches + 1, width),
        f"{tower}.patch_embed.proj.weight": (width, 3, 16, 16),
        f"{tower}.patch_embed.proj.bias": (width,),
    }
    for block in (f"{tower}.blocks.{number}" for number in range(layers)):
        shapes |= _norm(f"{block}.norm1", width) | _linear(f"{block}.attn.qkv", width, 3 * width)
        shapes |= _linear(f"{block}.attn.proj", width, width) | _norm(f"{block}.norm2", width)
        shapes |= _linear(f"{block}.mlp.fc1", width, 4 * width) | _linear(f"{block}.mlp.fc2", 4 * width, width)
    shapes |= _norm(f"{tower}.norm", width)
    shapes |= {
        f"{bert}.embeddings.position_ids": (1, med["max_position_embeddings"]),
        f"{bert}.embeddings.word_embeddings.weight": (med["vocab_size"], wide),
        f"{bert}.embeddings.position_embeddings.weight": (med["max_position_embeddings"], wide),
        **_norm(f"{bert}.embeddings.LayerNorm", wide),
    }
    for layer in (f"{bert}.encoder.layer.{number}" for number in range(med["num_hidden_layers"])):
        for part, inputs in (("attention", wide), ("crossattention", width)):
            shapes |= _linear(f"{layer}.{part}.self.query", wide, wide)
            shapes |= _linear(f"{layer}.{part}.self.key", inputs, wide)
            shapes |= _linear(f"{layer}.{part}.self.value", inputs, wide)
            shapes |= _linear(f"{layer}.{part}.output.dense", wide, wide)
            shapes |= _norm(f"{layer}.{part}.output.LayerNorm", wide)
        shapes |= _linear(f"{layer}.intermediate.dense", wide, med["intermediate_size"])
        shapes |= _linear(f"{layer}.output.dense", med["intermediate_size"], wide)
        shapes |= _norm(f"{layer}.output.LayerNorm", wide)
    shapes |= _linear("blip.vision_proj", width, 256) | _linear("blip.text_proj", wide, 256)
    return shapes | {f"mlp.{name}": shape for name, shape in head_shapes(wide).items()}


def head_shapes(width: int) -> Shapes:
    """Names and shapes of the five linear layers over features of this width."""
    steps = zip("02467", (width, 1024, 128, 64, 16), (1024, 128, 64, 16, 1), strict=True)
    return {name: shape for number, *sides in steps for name, shape in _linear(f"layers.{number}", *sides).items()}


def bert_vocabulary() -> list[str]:
    """Of letters and digits, alone and as continuations."""
    letters = "abcdefghijklmnopqrstuvwxyz0123"
    rest = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return [*rest, "cat", "##at", "'", "&"]


def write_bert_tokenizer(folder: Path) -> None:
    """BERT's uncased tokenizer with a small vocabulary."""
    names = bert_vocabulary()
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(names[:5])
    write_tokenizer(tokenizer, folder, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def crossing_shapes(dim: int, layers: int = 4, heads: int = 16, head: int = 64) -> Shapes:
    """Names and shapes of what joins the towers of MPS, its buffers included."""
    inner, wide, shapes = heads * head, 4 * dim, {}
    for number in range(layers):
        look, think = (f"cross_model.layers.{number}.{part}.fn" for part in (0, 1))
        shapes |= _norm(f"{look}.norm", dim)
        shapes |= {
            f"{look}.to_q.weight": (inner, dim),
            f"{look}.to_kv.weight": (2 * head, dim),
            f"{look}.to_out.weight": (dim, inner),
            f"{look}.ff.0.weight": (2 * wide, dim),
            f"{look}.ff.2.weight": (dim, wide),
        }
        shapes |= _norm(f"{think}.norm", dim)
        shapes |= {
            f"{think}.rotary_emb.inv_freq": (head // 2,),
            f"{think}.fused_attn_ff_proj.weight": (inner + 2 * head + 2 * wide, dim),
            f"{think}.attn_out.weight": (dim, inner),
            f"{think}.ff_out.1.weight": (dim, wide),
        }
    return shapes


def mps_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights of an MPS: biases of its norms that are none, the rotary speeds, CLIP's own scale."""
    made = weights(shapes, 7)
    for name in made:
        if name.endswith("norm.bias") and name.startswith("cross_model"):
            made[name] = torch.zeros_like(made[name])
        if name.endswith("inv_freq"):
            made[name] = 1 / 10000 ** (torch.arange(len(made[name])) / len(made[name]))
    return made | {"model.logit_scale": torch.tensor(2.5)}


CLIP_T5: dict[str, Any] = {
    "model_type": "clip_t5", "architectures": ["CLIPT5ForConditionalGeneration"], "d_model": 32, "d_kv": 16, "d_ff": 64,
    "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "vocab_size": 64, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False, "is_encoder_decoder": True, "decoder_start_token_id": 0, "pad_token_id": 0,
    "eos_token_id": 1, "mm_hidden_size": 128, "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch", "use_mm_proj": True,
}  # fmt: skip


def write_t5_tokenizer(folder: Path) -> None:
    """T5's tokenizer with one piece for each letter, and one for "Yes"."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁Yes", -1.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyzADESTUIR?.:,\"'0123456789"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    write_tokenizer(tokenizer, folder, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def clip_t5_shapes() -> Shapes:
    """Names and shapes of a CLIP-T5 without its tower, as saved; of the tower and its projection as in CLIP."""
    wide, inner, deep = 32, 32, 64
    shapes: Shapes = {"shared.weight": (64, wide)}
    for part, layers in (("encoder", 2), ("decoder", 2)):
        for number in range(layers):
            kinds = ["SelfAttention"] + (["EncDecAttention"] if part == "decoder" else [])
            for place, kind in enumerate(kinds):
                layer = f"{part}.block.{number}.layer.{place}"
                shapes |= {f"{layer}.{kind}.{letter}.weight": (inner, wide) for letter in "qkv"}
                shapes |= {f"{layer}.{kind}.o.weight": (wide, inner)}
                if number == 0 and place == 0:
                    shapes |= {f"{layer}.{kind}.relative_attention_bias.weight": (32, 2)}
                shapes |= {f"{layer}.layer_norm.weight": (wide,)}
            layer = f"{part}.block.{number}.layer.{len(kinds)}"
            shapes |= {f"{layer}.DenseReluDense.{name}.weight": (deep, wide) for name in ("wi_0", "wi_1")}
            shapes |= {f"{layer}.DenseReluDense.wo.weight": (wide, deep), f"{layer}.layer_norm.weight": (wide,)}
        shapes |= {f"{part}.final_layer_norm.weight": (wide,)}
    return (
        shapes
        | {"lm_head.weight": (64, wide)}
        | _linear("mm_projector.0", 128, wide)
        | _linear("mm_projector.2", wide, wide)
    )
