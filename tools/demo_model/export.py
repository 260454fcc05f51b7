"""Writes a trained model as a Hugging Face LLaVA-OneVision folder, and proves the folder with stock transformers."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from config import (
    END_OF_TEXT,
    IMAGE,
    SPECIAL_TOKENS,
    TURN_END,
    TURN_START,
    VIDEO,
    ModelConfig,
    TextConfig,
    VisionConfig,
)
from model import DemoModel
from tokenizer import Prompts

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def checkpoint_tensors(model: DemoModel) -> dict[str, Tensor]:
    """The state dict in bf16, contiguous; the tied output matrix is not stored twice."""
    return {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}


def hf_config(cfg: ModelConfig, tokenizer: Tokenizer) -> dict:
    """config.json as published for llava-onevision-qwen2-*-ov-hf, with this geometry."""
    text, vision = cfg.text, cfg.vision
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.2",
        "image_token_index": tokenizer.token_to_id(IMAGE),
        "video_token_index": tokenizer.token_to_id(VIDEO),
        "ignore_index": -100,
        "image_grid_pinpoints": [[vision.image_size, vision.image_size]],
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": True,
        "use_image_newline_parameter": True,
        "vision_aspect_ratio": "anyres_max_9",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "attention_dropout": 0.0,
            "bos_token_id": tokenizer.token_to_id(END_OF_TEXT),
            "eos_token_id": tokenizer.token_to_id(TURN_END),
            "hidden_act": "silu",
            "hidden_size": text.hidden,
            "initializer_range": 0.02,
            "intermediate_size": text.mlp,
            "max_position_embeddings": text.positions_max,
            "max_window_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_hidden_layers": text.layers,
            "num_key_value_heads": text.kv_heads,
            "rms_norm_eps": text.norm_eps,
            "rope_theta": text.rope_theta,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": text.vocab,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "attention_dropout": 0.0,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": vision.hidden,
            "image_size": vision.image_size,
            "intermediate_size": vision.mlp,
            "layer_norm_eps": vision.norm_eps,
            "num_attention_heads": vision.heads,
            "num_channels": 3,
            "num_hidden_layers": vision.layers,
            "patch_size": vision.patch_size,
            "vision_use_head": False,
        },
    }


def preprocessor_config(cfg: ModelConfig) -> dict:
    size = cfg.vision.image_size
    return {
        "crop_size": None,
        "default_to_square": False,
        "do_center_crop": None,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": [[size, size]],
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "LlavaOnevisionProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": size, "width": size},
    }


def tokenizer_config(cfg: ModelConfig, tokenizer: Tokenizer) -> dict:
    added = {
        str(tokenizer.token_to_id(text)): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for text in SPECIAL_TOKENS
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [TURN_START, TURN_END],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "errors": "replace",
        "model_max_length": cfg.text.positions_max,
        "pad_token": END_OF_TEXT,
        "processor_class": "LlavaOnevisionProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def export_model(model: DemoModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the whole folder; what an earlier export left there is overwritten file by file."""
    cfg = model.cfg
    folder.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint_tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    eos, pad = tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)
    documents = {
        "config.json": hf_config(cfg, tokenizer),
        "preprocessor_config.json": preprocessor_config(cfg),
        "tokenizer_config.json": tokenizer_config(cfg, tokenizer),
        "special_tokens_map.json": {
            "additional_special_tokens": [TURN_START, TURN_END],
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
        },
        "generation_config.json": {
            "bos_token_id": pad,
            "do_sample": False,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "transformers_version": "4.45.2",
        },
        "processor_config.json": {
            "image_token": IMAGE,
            "num_image_tokens": cfg.vision.grid**2,
            "processor_class": "LlavaOnevisionProcessor",
            "video_token": VIDEO,
            "vision_feature_select_strategy": "full",
        },
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n")


def read_geometry(folder: Path) -> ModelConfig:
    """The geometry of an exported folder; window and retrieval settings are the ones it was trained for."""
    document = json.loads((folder / "config.json").read_text())
    text, vision = document["text_config"], document["vision_config"]
    return ModelConfig(
        vision=VisionConfig(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            hidden=vision["hidden_size"],
            mlp=vision["intermediate_size"],
            layers=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            norm_eps=vision["layer_norm_eps"],
        ),
        text=TextConfig(
            vocab=text["vocab_size"],
            hidden=text["hidden_size"],
            mlp=text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            rope_theta=text["rope_theta"],
            norm_eps=text["rms_norm_eps"],
            positions_max=text["max_position_embeddings"],
        ),
    )


def load_exported(folder: Path) -> tuple[DemoModel, Prompts]:
    """An exported model in f32, ready to evaluate, and its prompts."""
    prompts = Prompts(Tokenizer.from_file(str(folder / "tokenizer.json")))
    model = DemoModel(read_geometry(folder), prompts.init_ids)
    model.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return model.eval(), prompts


@torch.no_grad()
def compare_with_transformers(
    model: DemoModel, folder: Path, frames: Tensor, question_ids: list[int]
) -> dict[str, float]:
    """Largest relative differences (max|a-b| / max|b|) between this code and stock transformers on one clip.

    frames [T, 3, S, S] must fit the window. model must hold the exported (bf16-rounded) weights. The stock model is
    given [prompt, frame tokens, question] as inputs_embeds under plain causal attention, which is what watching a
    short clip and answering over all of it must equal.
    """
    from transformers import LlavaOnevisionForConditionalGeneration

    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float32).eval()
    hidden = stock.vision_tower(frames, output_hidden_states=True).hidden_states[stock.config.vision_feature_layer]
    stock_tokens = stock.apply_pooling(stock.multi_modal_projector(hidden))
    tokens = model.see(frames)

    question = torch.tensor([question_ids])
    embeds = torch.cat([model.embed(model.init_ids)[None], tokens.flatten(0, 1)[None], model.embed(question)], 1)
    stock_logits = stock.language_model(inputs_embeds=embeds).logits[:, -len(question_ids) :]
    memory, _ = model.watch(tokens[None])
    everything = torch.arange(len(frames))[None]
    logits = model.attend(question, lambda layer, q: model.context(memory, layer, everything))
    same_ids = (logits.argmax(-1) == stock_logits.argmax(-1)).float().mean().item()
    return {
        "vision": ((tokens - stock_tokens).abs().max() / stock_tokens.abs().max()).item(),
        "logits": ((logits - stock_logits).abs().max() / stock_logits.abs().max()).item(),
        "argmax_agreement": same_ids,
    }
