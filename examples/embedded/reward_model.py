"""The embedded LLaVA-Reward's backbone: stock transformers classes in a tiny size, and the forward pass of training.

The picture comes before the sentence and the language model is causal, so what it makes of the picture does not depend
on the sentence: training packs many sentences behind one picture, hidden from each other by the attention mask, with
positions that start again. Each sentence then sees exactly what it sees alone.
"""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase, Replace, Sequence
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewards.shapes.captions import COLORS, SHAPES, VOCABULARY

CELLS = 64  # patches of 8 x 8 pixels, and the grid positions that the language model can name
PREFIX = 1 + CELLS  # <s> and the picture
SHAPE_WORDS = (*SHAPES, "blob", "nothing")
COLOR_WORDS = (*COLORS, "nothing")
WORDS = (
    *("<unk>", "<s>", "</s>", "<image>"),
    *sorted(VOCABULARY),
    *("yes", "no", "blob", "nothing"),
    *(f"cell{cell}" for cell in range(CELLS)),
)
ID = {word: number for number, word in enumerate(WORDS)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One word, one token, whatever the case and punctuation; a word that is not in the list becomes <unk>."""
    words = Tokenizer(WordLevel(ID, unk_token="<unk>"))
    words.normalizer = Sequence([Lowercase(), Replace(Regex(r"[^\w\s]"), " ")])
    words.pre_tokenizer = WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, extra_special_tokens=["<image>"], **special)


def build_llava(seed: int = 0) -> LlavaForConditionalGeneration:
    """An untrained LLaVA of 1.9 million parameters for pictures of 64 x 64 pixels."""
    vision = CLIPVisionConfig(
        hidden_size=160, intermediate_size=480, num_hidden_layers=4, num_attention_heads=5, projection_dim=160,
        image_size=64, patch_size=8, hidden_act="gelu",
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=128, intermediate_size=320, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=128, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        bos_token_id=ID["<s>"], eos_token_id=ID["</s>"], pad_token_id=None,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ID["<image>"], image_seq_length=CELLS,
        vision_feature_layer=-1, vision_feature_select_strategy="default", projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        _initialise(model)
    return model


@torch.no_grad()
def _initialise(model: LlavaForConditionalGeneration) -> None:
    """Words of norm about 3, patches that are seen from the start, attention that starts by looking for the like."""
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.3)
    embeddings = model.model.vision_tower.embeddings
    nn.init.normal_(embeddings.patch_embedding.weight, std=0.06)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.3)
    for layer in model.model.language_model.layers:
        query = nn.init.orthogonal_(layer.self_attn.q_proj.weight)
        layer.self_attn.k_proj.weight.copy_(query)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), *rest, **options)


def speed_up(model: LlavaForConditionalGeneration) -> None:
    """Attention in float32 inside autocast: where the CPU has bfloat16, a step then takes 0.62 of its time."""
    AttentionInterface.register("float32", _attend)
    AttentionMaskInterface.register("float32", sdpa_mask)
    model.set_attn_implementation("float32")


class Auxiliary(nn.Module):
    """Heads that only training uses: what stands at each patch, and what each noun of a sentence refers to."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.place = nn.Linear(width, 3)  # centre logit, and the offset to the centre
        self.noun = nn.Linear(width, 8)  # presence, count 0..5, relation
        self.where = nn.Linear(width, width)
        self.spot = nn.Linear(width, 2)
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def heat(self, nouns: Tensor, visual: Tensor) -> Tensor:
        """Logits (M, 64) that a noun's object covers a cell, from states (M, H) and their pictures (M, 64, H)."""
        return (visual @ self.where(nouns)[..., None])[..., 0] / 8 + self.bias


def see(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Visual tokens (B, 64, H) of pixels (B, 3, 64, 64) in [-1, 1]."""
    features = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    visual: Tensor = model.model.multi_modal_projector(features)
    return visual


def read(
    model: LlavaForConditionalGeneration, visual: Tensor, ids: Tensor, positions: Tensor, segments: Tensor
) -> Tensor:
    """Last hidden states (B, T, H) of packed text.

    Args:
        model: the backbone.
        visual: (B, 64, H).
        ids: (B, T) words.
        positions: (B, T) of each word in its own sentence, from 0.
        segments: (B, T) which sentence a word belongs to; -1 for padding.
    """
    words = model.get_input_embeddings()
    start = words(ids.new_full((len(ids), 1), ID["<s>"]))
    inputs = torch.cat([start, visual, words(ids)], dim=1)  # (B, 65 + T, H)
    length = inputs.shape[1]
    owner = torch.cat([segments.new_full((len(ids), PREFIX), -2), segments], dim=1)
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == -2)
    allowed = same & torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    lowest = torch.finfo(torch.float32).min
    mask = torch.zeros(allowed.shape, device=ids.device).masked_fill(~allowed, lowest)[:, None]
    prefix = torch.arange(PREFIX, device=ids.device).expand(len(ids), -1)
    hidden: Tensor = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=mask,
        position_ids=torch.cat([prefix, positions + PREFIX], dim=1),
        use_cache=False,
    ).last_hidden_state
    return hidden[:, PREFIX:]
