"""Geometry of the demo model, and the settings its training is run with.

Everything a reader may want to change stands here; the other modules take these objects and hold no numbers of
their own. The geometry is written into the checkpoint's config.json; the engine reads it from there.
"""

from dataclasses import dataclass, field

INIT_PROMPT = "<|im_start|>system \nYou are a helpful assistant.<|im_end|><|im_start|>user "
ANSWER_PROMPT = "\n{question}<|im_end|><|im_start|>assistant\n"

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
IMAGE = "<image>"
VIDEO = "<video>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, IMAGE, VIDEO)


@dataclass(frozen=True)
class VisionConfig:
    """A SigLIP tower. The image is squashed to a square; patches do not overlap."""

    image_size: int = 64
    patch_size: int = 8
    hidden: int = 128
    mlp: int = 256
    layers: int = 4
    heads: int = 4
    norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TextConfig:
    """A Qwen2 decoder with grouped-query attention; input and output embeddings are one matrix."""

    vocab: int = 448
    hidden: int = 128
    mlp: int = 384
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    rope_theta: float = 1000000.0
    norm_eps: float = 1e-6
    positions_max: int = 8192

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads


@dataclass(frozen=True)
class ModelConfig:
    """The whole model, and the three ReKV settings it is trained for."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    window_frames: int = 16
    retrieved_frames: int = 8
    recent_frames: int = 1

    @property
    def pooled_grid(self) -> int:
        return (self.vision.grid + 1) // 2

    @property
    def frame_tokens(self) -> int:
        return self.pooled_grid**2

    @property
    def n_local(self) -> int:
        return self.window_frames * self.frame_tokens


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Batch figures are a worker's; workers are processes of one thread that average gradients."""

    seed: int = 1
    train_videos: int = 300
    video_seconds: int = 150
    score_videos: int = 6

    see_steps: int = 2500
    see_batch: int = 48
    see_rate: float = 1e-3

    answer_steps: int = 13000
    clip_frames: tuple[tuple[int, tuple[int, ...]], ...] = (
        (1350, (4, 4, 8)),
        (2700, (8, 16)),
        (4500, (16, 32)),
        (9750, (32, 48)),
        (13000, (48, 64)),
    )
    batch_frames: int = 32
    batch_questions: int = 40
    contiguous_share: float = 0.1
    answer_rate: float = 1.5e-3
    taught_until: int = 3600
    taught_share: float = 0.15
    see_weight: float = 0.02
    retrieval_weight: float = 0.3
    pointing_weight: float = 0.2
    tally_weight: float = 0.5

    weight_decay: float = 0.02
    warm_steps: int = 200
    flat_share: float = 0.75
    clip_norm: float = 1.0
    save_every: int = 250
    score_every: int = 1000
    workers: int = 2
