#!/usr/bin/env python3
"""Golden numbers of whole models, from transformers: tiny checkpoints of the families plait reads, with their logits.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    venv/bin/python tests/golden/make_family_goldens.py [CASE ...]     # rewrites tests/golden/families/CASE

The environment must not have flash-linear-attention: with it the forward of Qwen3.5 fails on a CPU. Weights are numbers
of the type they are stored in; the model runs on them in float64 (`widened` of make_goldens.py says how). README.md
describes the folders.
"""

import importlib
import importlib.util
import json
import math
import pathlib
import shutil
import sys
import zlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, modeling_rope_utils

from make_goldens import version, widened

HERE = pathlib.Path(__file__).resolve().parent / "families"
LENGTHS = (1, 5, 63, 130)
PROMPT = 1           # the sequence that greedy generation continues, by its place in LENGTHS
GENERATED = 64
LIMIT = 300_000      # bytes of a folder
AGREEMENT = 1e-12    # of one shot and token by token, relative to the largest logit
MARGIN = 2e-4        # of every greedy choice, relative to the largest logit: ten times what float32 may be off
VARIETY = 10         # different tokens a greedy text must have


def rows_kept(length):
    """All rows of a short sequence; of a long one every eighth and the last two."""
    if length < 10:
        return list(range(length))
    return sorted({*range(0, length, 8), length - 2, length - 1})


# -- weights ---------------------------------------------------------------------------------------------------------

# By the end of a tensor's name: mean and deviation, all away from what a fresh model has.
VECTORS = {
    "A_log": (0.5, 0.7),
    "dt_bias": (-1.5, 1.0),
    ".D": (0.7, 0.5),
    "conv1d.weight": (0.0, 0.5),
    "bias": (0.0, 0.4),
}
# Matrices that write to the residual stream are larger, so that a tied head does not just repeat the token it read.
OUTPUTS = ("o_proj.weight", "out_proj.weight", "down_proj.weight")


def draw(name, parameter, one_plus, generator):
    normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    if "norm" in name and parameter.dim() == 1:
        plain = not one_plus or name.endswith("linear_attn.norm.weight")
        return normal * 0.3 + (1.0 if plain else 0.0)
    for end, (mean, deviation) in VECTORS.items():
        if name.endswith(end):
            return normal * deviation + mean
    if name.endswith("embed_tokens.weight"):
        return normal
    return normal * (2.5 if name.endswith(OUTPUTS) else 1.2) / math.sqrt(parameter[0].numel())


class Case:
    """One tiny checkpoint of architecture `family`.`cls` and what transformers computes with it."""

    def __init__(self, name, family, cls, config, dtype=torch.float32, shards=1, draft=False, published=None,
                 covers=""):
        self.name, self.family, self.cls, self.config = name, family, cls, config
        self.dtype, self.shards, self.draft, self.covers = dtype, shards, draft, covers
        self.published = published or {}  # of the text part of config.json: keys as published files have them, None removes
        self.folder = HERE / name

    def make(self):
        for attempt in range(100):
            seed = zlib.crc32(self.name.encode()) + attempt
            self.generator = torch.Generator().manual_seed(seed)
            if self.compute(seed):
                return
        raise SystemExit(f"{self.name}: no seed gives a varied greedy text with safe margins")

    def compute(self, seed):
        module = importlib.import_module(f"transformers.models.{self.family}.modeling_{self.family}")
        with widened(module, modeling_rope_utils), torch.no_grad():
            model = self.model(module)
            sequences = [torch.randint(self.vocab, (n,), generator=self.generator).tolist() for n in LENGTHS]
            continuation = self.greedy(model, sequences[PROMPT])
            if continuation is None:
                return False
            logits = [self.forward(model, tokens) for tokens in [*sequences, sequences[PROMPT] + continuation]]
            together = zip([*sequences, sequences[PROMPT] + continuation], logits)
            gap = max(self.difference(model, tokens, rows) for tokens, rows in together)
        assert gap < AGREEMENT, (self.name, gap)
        self.write(model, seed, sequences, logits, continuation, gap)
        with widened(module, modeling_rope_utils), torch.no_grad():
            again = getattr(module, self.cls).from_pretrained(self.folder, dtype=torch.float64, attn_implementation="eager")
            off = (self.forward(again.double().eval(), sequences[-1]) - logits[len(sequences) - 1]).abs().max().item()
        assert off < AGREEMENT, (self.name, "the folder as transformers reads it is another model", off)
        return True

    def model(self, module):
        config = AutoConfig.for_model(self.config["model_type"], **{k: v for k, v in self.config.items() if k != "model_type"})
        config._attn_implementation = "eager"
        model = getattr(module, self.cls)(config).double().eval()
        one_plus = self.family.startswith("qwen3_5")
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(draw(name, parameter, one_plus, self.generator).to(self.dtype).double())
        self.vocab = config.get_text_config().vocab_size
        return model

    @staticmethod
    def forward(model, tokens):
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]

    @staticmethod
    def step(model, token, cache):
        """Logits behind one token, computed from the cache of those before it, and the new cache."""
        out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        return out.logits[0, -1], out.past_key_values

    def difference(self, model, tokens, rows):
        """Of one shot from token by token."""
        cache, steps = None, []
        for token in tokens:
            logits, cache = self.step(model, token, cache)
            steps.append(logits)
        return ((torch.stack(steps) - rows).abs().max() / rows.abs().max()).item()

    def greedy(self, model, prompt):
        """The continuation of a prompt; None if it is dull or a choice is close to a tie."""
        text, cache = [], None
        for token in prompt:
            logits, cache = self.step(model, token, cache)
        while len(text) < GENERATED:
            best = logits.topk(2).values
            if best[0] - best[1] < MARGIN * logits.abs().max():
                return None
            text.append(int(logits.argmax()))
            if len(text) == GENERATED // 2 and len(set(text)) < VARIETY // 2:
                return None
            logits, cache = self.step(model, text[-1], cache)
        return text if len(set(text)) >= VARIETY else None

    # -- the folder ---------------------------------------------------------------------------------------------------

    def tensors(self, model):
        """By published name, in the type of the file; what the published files keep in float32 stays so."""
        tied = getattr(model.config, "tie_word_embeddings", False)
        tensors = {n: t for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
        if self.draft:
            tensors |= self.draft_head(model)
        wide = ("A_log", "linear_attn.norm.weight")
        return {n: t.to(torch.float32 if n.endswith(wide) else self.dtype).contiguous() for n, t in tensors.items()}

    def draft_head(self, model):
        """`mtp.*` as the published files have it; transformers ignores it, and the logits are without it."""
        text = model.config.get_text_config()
        width = text.hidden_size
        shapes = {f"mtp.{n}.weight": (width,) for n in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
        shapes["mtp.fc.weight"] = (width, 2 * width)
        full = text.layer_types.index("full_attention")
        prefix = f"model.language_model.layers.{full}."
        shapes |= {"mtp.layers.0." + n.removeprefix(prefix): t.shape for n, t in model.state_dict().items() if n.startswith(prefix)}
        return {n: draw(n, torch.empty(shape), True, self.generator) for n, shape in shapes.items()}

    def save_weights(self, tensors):
        if self.shards == 1:
            save_file(tensors, self.folder / "model.safetensors", metadata={"format": "pt"})
            return
        files, index = [f"model-{i + 1:05}-of-{self.shards:05}.safetensors" for i in range(self.shards)], {}
        for place, name in enumerate(sorted(tensors)):
            index[name] = files[place % self.shards]  # neighbours in different files
        for file in files:
            save_file({n: t for n, t in tensors.items() if index[n] == file}, self.folder / file, metadata={"format": "pt"})
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
        (self.folder / "model.safetensors.index.json").write_text(text + "\n")

    def rewrite_config(self):
        file = self.folder / "config.json"
        config = json.loads(file.read_text())
        text = config.get("text_config", config)
        text.update(self.published)
        for key in [key for key, value in self.published.items() if value is None]:
            del text[key]
        file.write_text(json.dumps(config, indent=1) + "\n")

    def write(self, model, seed, sequences, logits, continuation, gap):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        model.config.architectures = [self.cls]
        model.config.dtype = self.dtype
        model.config.save_pretrained(self.folder)
        self.rewrite_config()
        tensors = self.tensors(model)
        self.save_weights(tensors)
        kept = [rows_kept(len(tokens)) for tokens in sequences]
        blob = b"".join(rows[keep].numpy().astype("<f8").tobytes() for rows, keep in zip(logits, kept))
        header = {
            "source": f"transformers.{self.cls}", "covers": self.covers, "seed": seed,
            "versions": {name: version(name) for name in ("torch", "transformers", "safetensors")},
            "one_shot_against_steps": gap, "vocab": self.vocab,
            "parameters": sum(t.numel() for n, t in tensors.items() if not n.startswith(("mtp.", "model.visual."))),
            "sequences": [{"tokens": tokens, "rows": keep} for tokens, keep in zip(sequences, kept)],
            "greedy": {"prompt": PROMPT, "tokens": continuation},
        }
        (self.folder / "expected.json").write_text(json.dumps(header) + "\n")
        (self.folder / "expected.bin").write_bytes(blob)
        size = sum(file.stat().st_size for file in self.folder.iterdir())
        assert size < LIMIT, (self.name, size)
        print(f"{self.name:26} {size:7} bytes  {header['parameters']:6} parameters  seed {seed}  steps off by {gap:.1e}  "
              f"|logit| up to {max(rows.abs().max() for rows in logits):.2f}  {len(set(continuation))} different tokens",
              file=sys.stderr)


# -- the cases -------------------------------------------------------------------------------------------------------

NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def qwen3_5_text(**more):
    return {"vocab_size": 67, "hidden_size": 20, "intermediate_size": 27, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.25,
                                "mrope_interleaved": True, "mrope_section": [1, 1, 1]}, **NO_TOKENS, **more}


def falcon_h1(**more):
    return {"model_type": "falcon_h1", "vocab_size": 61, "hidden_size": 20, "intermediate_size": 29, "head_dim": 24,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}, "mamba_expand": 2, "mamba_chunk_size": 32,
            "embedding_multiplier": 1.7, "lm_head_multiplier": 0.6, "attention_in_multiplier": 1.3, "key_multiplier": 0.55,
            "attention_out_multiplier": 0.9, "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.8,
            "ssm_multipliers": [0.7, 1.4, 0.9, 1.2, 0.65], "mlp_multipliers": [1.15, 0.85], **NO_TOKENS, **more}


def qwen2(**more):
    return {"model_type": "qwen2", "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}, **NO_TOKENS, **more}


CASES = [
    Case("qwen3_5_wrapped", "qwen3_5", "Qwen3_5ForConditionalGeneration",
         {"model_type": "qwen3_5", "tie_word_embeddings": True,
          "vision_config": {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "patch_size": 2,
                            "temporal_patch_size": 1, "spatial_merge_size": 2, "out_hidden_size": 20,
                            "num_position_embeddings": 4, "in_channels": 3},
          "text_config": qwen3_5_text(
              num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=24, linear_num_key_heads=1,
              linear_num_value_heads=2, linear_key_head_dim=24, linear_value_head_dim=40, linear_conv_kernel_dim=4,
              tie_word_embeddings=True)},
         draft=True,
         published={"layer_types": None, "full_attention_interval": 4, "attn_output_gate": True, "mtp_num_hidden_layers": 1,
                    "mtp_use_dedicated_embeddings": False, "mamba_ssm_dtype": "float32"},
         covers="prefix model.language_model., vision tower and mtp in the file, tied head, 2 value heads a key head, "
                "keys 24 and values 40 wide, layers by the interval"),
    Case("qwen3_5_text", "qwen3_5", "Qwen3_5ForCausalLM",
         {"model_type": "qwen3_5_text", **qwen3_5_text(
             num_hidden_layers=5, num_attention_heads=3, num_key_value_heads=1, head_dim=40, linear_num_key_heads=2,
             linear_num_value_heads=2, linear_key_head_dim=40, linear_value_head_dim=24, linear_conv_kernel_dim=3,
             layer_types=["full_attention", "linear_attention", "linear_attention", "full_attention", "linear_attention"],
             attention_bias=True, tie_word_embeddings=False)},
         shards=3,
         covers="prefix model., three shards, own head, biases of attention, keys 40 and values 24 wide, a list of layers"),
    Case("qwen3_5_bf16", "qwen3_5", "Qwen3_5ForCausalLM",
         {"model_type": "qwen3_5_text", **qwen3_5_text(
             vocab_size=131, hidden_size=36, intermediate_size=45, num_hidden_layers=3, num_attention_heads=2,
             num_key_value_heads=2, head_dim=24, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=24,
             linear_value_head_dim=40, linear_conv_kernel_dim=4,
             layer_types=["linear_attention", "full_attention", "linear_attention"], tie_word_embeddings=True)},
         dtype=torch.bfloat16,
         covers="stored in bf16 with A_log and the gated norm in f32, 4 value heads on 2 key heads"),
    Case("falcon_h1_gate", "falcon_h1", "FalconH1ForCausalLM",
         falcon_h1(num_hidden_layers=3, mamba_d_ssm=120, mamba_n_heads=5, mamba_d_head=24, mamba_d_state=24,
                   mamba_n_groups=1, mamba_d_conv=4, mamba_conv_bias=True, mamba_proj_bias=False, mamba_rms_norm=False,
                   mamba_norm_before_gate=False, tie_word_embeddings=False),
         covers="no norm behind the state-space branch, no biases but the convolution's, own head, as the published 0.5B"),
    Case("falcon_h1_norm_after", "falcon_h1", "FalconH1ForCausalLM",
         falcon_h1(num_hidden_layers=3, mamba_d_ssm=80, mamba_n_heads=2, mamba_d_head=40, mamba_d_state=24,
                   mamba_n_groups=2, mamba_d_conv=4, mamba_conv_bias=True, mamba_proj_bias=True, projectors_bias=True,
                   attention_bias=True, mlp_bias=True, mamba_rms_norm=True, mamba_norm_before_gate=False,
                   tie_word_embeddings=True),
         covers="gate, then norm, in two groups; biases everywhere; tied head"),
    Case("falcon_h1_norm_before", "falcon_h1", "FalconH1ForCausalLM",
         falcon_h1(num_hidden_layers=3, mamba_d_ssm=72, mamba_n_heads=3, mamba_d_head=24, mamba_d_state=40,
                   mamba_n_groups=3, mamba_d_conv=3, mamba_conv_bias=False, mamba_proj_bias=True, projectors_bias=False,
                   mamba_rms_norm=True, mamba_norm_before_gate=True, head_dim=40, num_attention_heads=2,
                   num_key_value_heads=1, tie_word_embeddings=False),
         shards=2,
         covers="norm, then gate, in three groups; bias of the input projection only, no bias of the convolution, kernel 3; "
                "two shards"),
    Case("qwen2_tied", "qwen2", "Qwen2ForCausalLM",
         qwen2(vocab_size=83, hidden_size=48, intermediate_size=50, num_hidden_layers=3, num_attention_heads=2,
               num_key_value_heads=1, tie_word_embeddings=True, use_sliding_window=False),
         covers="head_dim 24, two query heads on one key head, tied head"),
    Case("qwen2_sliding", "qwen2", "Qwen2ForCausalLM",
         qwen2(vocab_size=101, hidden_size=80, intermediate_size=45, num_hidden_layers=3, num_attention_heads=2,
               num_key_value_heads=2, tie_word_embeddings=False, use_sliding_window=True, sliding_window=17,
               max_window_layers=1),
         dtype=torch.bfloat16, shards=2,
         covers="stored in bf16 in two shards, head_dim 40, own head, a window of 17 on the upper two layers"),
]


def main():
    if importlib.util.find_spec("fla"):
        raise SystemExit("flash-linear-attention is installed here; use an environment without it")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # nothing here is worth a second one, and sums keep their order
    wanted = sys.argv[1:]
    unknown = set(wanted) - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"unknown cases {sorted(unknown)}")
    for case in CASES:
        if not wanted or case.name in wanted:
            case.make()


if __name__ == "__main__":
    main()
