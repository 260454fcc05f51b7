"""The demo model in plain PyTorch: LLaVA-OneVision's layers under their Hugging Face names, driven as ReKV drives them.

The module tree has the names of transformers' LlavaOnevisionForConditionalGeneration (4.45), so the state dict is
the checkpoint. What differs is the driving: keys are kept un-rotated, frames are encoded under a sliding window, and
every layer answers from frames of its own choice (ReKV, ICLR'25, sections 3 and A.1).

Shapes: B streams, n tokens, H query heads, G key/value heads, D head dimension, F frames, P tokens a frame,
Q questions, S context frames of a question, L layers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import ModelConfig, TextConfig, VisionConfig

MASKED = -1e9


# ---- vision tower and projector ------------------------------------------------------------------------------------


class SiglipEmbeddings(nn.Module):
    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, cfg.hidden, cfg.patch_size, cfg.patch_size)
        self.position_embedding = nn.Embedding(cfg.grid**2, cfg.hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight


class SiglipAttention(nn.Module):
    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.q_proj = nn.Linear(cfg.hidden, cfg.hidden)
        self.k_proj = nn.Linear(cfg.hidden, cfg.hidden)
        self.v_proj = nn.Linear(cfg.hidden, cfg.hidden)
        self.out_proj = nn.Linear(cfg.hidden, cfg.hidden)

    def forward(self, x: Tensor) -> Tensor:
        rows, n, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(rows, n, self.heads, width // self.heads).transpose(1, 2)

        logits = attention_logits(split(self.q_proj(x)), split(self.k_proj(x)))
        out = attention_values(logits, split(self.v_proj(x)))
        return self.out_proj(out.transpose(1, 2).reshape(rows, n, width))


class SiglipMlp(nn.Module):
    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(cfg.hidden, cfg.mlp)
        self.fc2 = nn.Linear(cfg.mlp, cfg.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SiglipLayer(nn.Module):
    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(cfg.hidden, eps=cfg.norm_eps)
        self.self_attn = SiglipAttention(cfg)
        self.layer_norm2 = nn.LayerNorm(cfg.hidden, eps=cfg.norm_eps)
        self.mlp = SiglipMlp(cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SiglipEncoder(nn.Module):
    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipLayer(cfg) for _ in range(cfg.layers))


class SiglipTransformer(nn.Module):
    """post_layernorm is in the checkpoint because the published layout has it; the selected features come before it."""

    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(cfg)
        self.encoder = SiglipEncoder(cfg)
        self.post_layernorm = nn.LayerNorm(cfg.hidden, eps=cfg.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x


class SiglipTower(nn.Module):
    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.vision_model = SiglipTransformer(cfg)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision_model(pixels)


class Projector(nn.Module):
    def __init__(self, vision_hidden: int, text_hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_hidden, text_hidden)
        self.linear_2 = nn.Linear(text_hidden, text_hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x)))


# ---- decoder -------------------------------------------------------------------------------------------------------


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class QwenAttention(nn.Module):
    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.cfg = cfg
        kv_width = cfg.kv_heads * cfg.head_dim
        self.q_proj = nn.Linear(cfg.hidden, cfg.hidden)
        self.k_proj = nn.Linear(cfg.hidden, kv_width)
        self.v_proj = nn.Linear(cfg.hidden, kv_width)
        self.o_proj = nn.Linear(cfg.hidden, cfg.hidden, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Un-rotated q [B, H, n, D], k and v [B, G, n, D]."""
        rows, n, _ = x.shape
        cfg = self.cfg
        q = self.q_proj(x).view(rows, n, cfg.heads, cfg.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(rows, n, cfg.kv_heads, cfg.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(rows, n, cfg.kv_heads, cfg.head_dim).transpose(1, 2)
        return q, k, v


class QwenMlp(nn.Module):
    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(cfg.hidden, cfg.mlp, bias=False)
        self.up_proj = nn.Linear(cfg.hidden, cfg.mlp, bias=False)
        self.down_proj = nn.Linear(cfg.mlp, cfg.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class QwenLayer(nn.Module):
    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.self_attn = QwenAttention(cfg)
        self.mlp = QwenMlp(cfg)
        self.input_layernorm = RmsNorm(cfg.hidden, cfg.norm_eps)
        self.post_attention_layernorm = RmsNorm(cfg.hidden, cfg.norm_eps)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after attention; attended [B, H, n, D]."""
        rows, _, n, _ = attended.shape
        x = x + self.self_attn.o_proj(attended.transpose(1, 2).reshape(rows, n, -1))
        return x + self.mlp(self.post_attention_layernorm(x))


class QwenModel(nn.Module):
    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab, cfg.hidden)
        self.layers = nn.ModuleList(QwenLayer(cfg) for _ in range(cfg.layers))
        self.norm = RmsNorm(cfg.hidden, cfg.norm_eps)


class QwenForCausalLM(nn.Module):
    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.model = QwenModel(cfg)


class Rotary(nn.Module):
    """Rotary tables in the half-split form; angles are made in double because a table costs nothing."""

    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        half = cfg.head_dim // 2
        inverse = cfg.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(cfg.positions_max, dtype=torch.float64)[:, None] * inverse[None]
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [B, heads, n, D] turned to positions [n] or [B, n]."""
        cos, sin = self.cos[positions].to(x.dtype), self.sin[positions].to(x.dtype)
        if positions.dim() == 2:
            cos, sin = cos[:, None], sin[:, None]
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attention_logits(q: Tensor, k: Tensor) -> Tensor:
    """Scaled q.k with the query heads of a group sharing one key head: [B, H, n, D], [B, G, m, D] -> [B, H, n, m]."""
    rows, heads, n, dim = q.shape
    groups = k.shape[1]
    logits = q.reshape(rows, groups, heads // groups * n, dim) @ k.transpose(-1, -2)
    return logits.view(rows, heads, n, -1) * dim**-0.5


def attention_values(logits: Tensor, v: Tensor) -> Tensor:
    """One softmax over all keys, then the values: [B, H, n, m], [B, G, m, D] -> [B, H, n, D]."""
    rows, heads, n, m = logits.shape
    groups = v.shape[1]
    weights = torch.softmax(logits, -1).to(v.dtype)
    return (weights.view(rows, groups, heads // groups * n, m) @ v).view(rows, heads, n, -1)


# ---- what a stream leaves behind -----------------------------------------------------------------------------------


@dataclass
class Memory:
    """Un-rotated keys and values of a set of frames, per layer; what the store keeps.

    init_k, init_v: L x [1, G, n_init, D], the same for every stream;  frame_k, frame_v: L x [F, G, P, D].
    """

    init_k: list[Tensor]
    init_v: list[Tensor]
    frame_k: list[Tensor]
    frame_v: list[Tensor]

    def representatives(self, layer: int) -> Tensor:
        """Mean key of every frame, heads side by side: [F, G * D]."""
        return self.frame_k[layer].float().mean(2).flatten(1)


@dataclass
class Context:
    """What Q questions see in one layer: rotated keys and values [Q, G, m, D], an additive mask [Q, m], and the
    position [Q, 1] at which the question begins."""

    k: Tensor
    v: Tensor
    mask: Tensor
    end: Tensor


@dataclass
class Window:
    """The newest tokens of B streams, per layer, and how many tokens came before the next one."""

    k: list[Tensor]
    v: list[Tensor]
    init_k: list[Tensor]
    init_v: list[Tensor]
    tokens: int


class DemoModel(nn.Module):
    def __init__(self, cfg: ModelConfig, init_ids: list[int]) -> None:
        super().__init__()
        self.cfg = cfg
        self.vision_tower = SiglipTower(cfg.vision)
        self.multi_modal_projector = Projector(cfg.vision.hidden, cfg.text.hidden)
        self.image_newline = nn.Parameter(torch.zeros(cfg.text.hidden))
        self.language_model = QwenForCausalLM(cfg.text)
        self.rotary = Rotary(cfg.text)
        self.register_buffer("init_ids", torch.tensor(init_ids), persistent=False)
        self.apply(initialise)

    # -- pictures ----------------------------------------------------------------------------------------------------

    def see(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [F, 3, S, S] to frame tokens [F, P, hidden]."""
        return self.project(self.vision_tower(pixels))

    def project(self, features: Tensor) -> Tensor:
        """The tower's features [F, grid * grid, vision hidden] to frame tokens [F, P, hidden]."""
        grid = self.cfg.vision.grid
        x = self.multi_modal_projector(features)
        x = x.transpose(1, 2).unflatten(2, (grid, grid))
        pooled = self.cfg.pooled_grid
        x = F.interpolate(x.float(), size=(pooled, pooled), mode="bilinear", align_corners=False)
        return x.flatten(2).transpose(1, 2)

    # -- streams -----------------------------------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        return self.language_model.model.embed_tokens(ids)

    def watch(self, tokens: Tensor, window: Window | None = None) -> tuple[Memory, Window]:
        """Encodes the next frames of B streams, tokens [B, T, P, hidden], under the sliding window.

        A query sees the n_local newest tokens, itself included, and the system prompt: as ordinary tokens while it
        is near, at the fixed distance n_local - 1 once it is not. Memory's frames are ordered stream by stream.
        """
        batch, frames, per_frame, _ = tokens.shape
        x = tokens.flatten(1, 2)
        past = 0
        if window is None:
            x = torch.cat([self.embed(self.init_ids).expand(batch, -1, -1).to(x.dtype), x], 1)
        else:
            past = window.tokens
        n, n_init, n_local = x.shape[1], len(self.init_ids), self.cfg.n_local
        kept = window.k[0].shape[2] if window else 0
        key_at = torch.arange(past - kept, past + n)
        query_at = torch.arange(past, past + n)
        distance = query_at[:, None] - key_at[None]
        near = torch.where((distance >= 0) & (distance < n_local), 0.0, MASKED)
        far = torch.where(query_at[:, None] - torch.arange(n_init)[None] >= n_local, 0.0, MASKED)
        mask = torch.cat([far, near], 1)
        turn = torch.arange(kept + n)
        far_turn = torch.full((n,), n_local - 1)

        out = Memory([], [], [], [])
        nxt = Window([], [], [], [], past + n)
        for index, layer in enumerate(self.language_model.model.layers):
            q, k, v = layer.self_attn.project(layer.input_layernorm(x))
            all_k = torch.cat([window.k[index], k], 2) if window else k
            all_v = torch.cat([window.v[index], v], 2) if window else v
            init_k = window.init_k[index] if window else k[:, :, :n_init]
            init_v = window.init_v[index] if window else v[:, :, :n_init]
            near_logits = attention_logits(self.rotary(q, turn[kept:]), self.rotary(all_k, turn))
            far_logits = attention_logits(self.rotary(q, far_turn), init_k)
            logits = torch.cat([far_logits, near_logits], -1)
            logits = logits + mask.to(logits.dtype)
            x = layer.finish(x, attention_values(logits, torch.cat([init_v, all_v], 2)))

            skip = 0 if window else n_init
            out.init_k.append(init_k[:1])
            out.init_v.append(init_v[:1])
            out.frame_k.append(self.split_frames(k[:, :, skip:], frames, per_frame))
            out.frame_v.append(self.split_frames(v[:, :, skip:], frames, per_frame))
            nxt.k.append(all_k[:, :, -n_local:])
            nxt.v.append(all_v[:, :, -n_local:])
            nxt.init_k.append(init_k)
            nxt.init_v.append(init_v)
        return out, nxt

    @staticmethod
    def split_frames(x: Tensor, frames: int, per_frame: int) -> Tensor:
        """[B, G, T * P, D] -> [B * T, G, P, D]."""
        return x.unflatten(2, (frames, per_frame)).transpose(1, 2).flatten(0, 1)

    # -- questions ---------------------------------------------------------------------------------------------------

    def context(self, memory: Memory, layer: int, frames: Tensor) -> Context:
        """What Q questions see in one layer: the prompt, then frames [Q, S] at contiguous positions.

        frames are indices in time order, -1 for an empty slot, empty slots first.
        """
        rows, slots = frames.shape
        n_init, per_frame = len(self.init_ids), self.cfg.frame_tokens
        empty = frames < 0
        rank = (torch.arange(slots)[None] - empty.sum(1, keepdim=True)).clamp(min=0)
        at = n_init + rank[:, :, None] * per_frame + torch.arange(per_frame)
        safe = frames.clamp(min=0)
        init_k = self.rotary(memory.init_k[layer], torch.arange(n_init)).expand(rows, -1, -1, -1)
        init_v = memory.init_v[layer].expand(rows, -1, -1, -1)
        k = self.rotary(gather(memory.frame_k[layer], safe), at.flatten(1))
        hidden = torch.zeros(rows, n_init + slots * per_frame)
        hidden[:, n_init:] = empty.repeat_interleave(per_frame, 1) * MASKED
        return Context(
            k=torch.cat([init_k.to(k.dtype), k], 2),
            v=torch.cat([init_v, gather(memory.frame_v[layer], safe)], 2),
            mask=hidden,
            end=n_init + (slots - empty.sum(1, keepdim=True)) * per_frame,
        )

    def attend(
        self,
        ids: Tensor,
        choose: Callable[[int, Tensor], Context],
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Runs Q right-padded token rows ids [Q, n] over contexts that every layer chooses for itself.

        choose(layer, q) gets the layer's un-rotated queries [Q, H, n, D], watch(layer, logits) its attention logits
        [Q, H, n, m + n] over the context and the rows themselves. Returns logits [Q, n, vocab].
        """
        x = self.embed(ids)
        rows, n = ids.shape
        causal = torch.full((n, n), MASKED).triu(1).expand(rows, 1, n, n)
        for index, layer in enumerate(self.language_model.model.layers):
            q, k, v = layer.self_attn.project(layer.input_layernorm(x))
            context = choose(index, q)
            at = context.end + torch.arange(n)
            all_k = torch.cat([context.k, self.rotary(k, at)], 2)
            logits = attention_logits(self.rotary(q, at), all_k)
            mask = torch.cat([context.mask[:, None, None].expand(-1, 1, n, -1), causal], -1)
            logits = logits + mask.to(logits.dtype)
            if watch is not None:
                watch(index, logits)
            x = layer.finish(x, attention_values(logits, torch.cat([context.v, v], 2)))
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(self.language_model.model.norm(x), self.language_model.model.embed_tokens.weight)


def gather(frames: Tensor, index: Tensor) -> Tensor:
    """frames [F, G, P, D] at index [Q, S] -> [Q, G, S * P, D]."""
    return frames[index].transpose(1, 2).flatten(2, 3)


def mean_query(q: Tensor, valid: Tensor, kv_heads: int) -> Tensor:
    """Mean over the question's tokens of the un-rotated queries, the heads of a group summed: [Q, G * D].

    The released method repeats key heads to the query heads; summing query heads instead gives the same scores.
    """
    weight = valid.float() / valid.sum(1, keepdim=True)
    mean = (q.float() * weight[:, None, :, None]).sum(2)
    return mean.unflatten(1, (kv_heads, -1)).sum(2).flatten(1)


def initialise(module: nn.Module) -> None:
    """Small normal weights, as both families' reference initialisation has them; norms keep their ones."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        fan_in = module.weight[0].numel()
        nn.init.normal_(module.weight, std=math.sqrt(0.5 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
