#!/usr/bin/env python3
"""Random checkpoints of published size through the whole program: convert, inspect, verify, run. The slow suite.

    python3 tests/golden/full_size.py --plait build/release/tools/plait --folder /var/tmp/full [MODEL ...]

Needs torch and safetensors (for bf16 files), 6 GB of disk and 6 GB of memory; no network, no transformers. One model
at a time is written, used and deleted. Names and shapes are those of the published files; the values are random.
Prints a line per step; exits 1 when a step fails or a parameter total is not the published one.
"""

import argparse
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import time

import torch
from safetensors.torch import save_file

TOKENS = 24  # verified


def qwen3_5():
    width, ffn, layers = 1024, 3584, 24
    types = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(layers)]
    text = {
        "model_type": "qwen3_5_text", "vocab_size": 248320, "hidden_size": width, "intermediate_size": ffn,
        "num_hidden_layers": layers, "layer_types": types, "full_attention_interval": 4, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 256, "attn_output_gate": True, "attention_bias": False,
        "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": True, "max_position_embeddings": 262144, "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False, "mamba_ssm_dtype": "float32", "eos_token_id": 248044,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.25,
                            "mrope_interleaved": True, "mrope_section": [11, 11, 10]},
    }
    config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": text,
              "tie_word_embeddings": True, "image_token_id": 248056, "video_token_id": 248057,
              "vision_start_token_id": 248053, "vision_end_token_id": 248054, "vision_config": {"depth": 12}}

    def layer(prefix, kind):
        shapes = {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,),
                  "mlp.gate_proj.weight": (ffn, width), "mlp.up_proj.weight": (ffn, width),
                  "mlp.down_proj.weight": (width, ffn)}
        if kind == "full_attention":
            shapes |= {"self_attn.q_proj.weight": (4096, width), "self_attn.k_proj.weight": (512, width),
                       "self_attn.v_proj.weight": (512, width), "self_attn.o_proj.weight": (width, 2048),
                       "self_attn.q_norm.weight": (256,), "self_attn.k_norm.weight": (256,)}
        else:
            shapes |= {"linear_attn." + n: s for n, s in {
                "in_proj_qkv.weight": (6144, width), "in_proj_z.weight": (2048, width), "in_proj_b.weight": (16, width),
                "in_proj_a.weight": (16, width), "conv1d.weight": (6144, 1, 4), "A_log": (16,), "dt_bias": (16,),
                "norm.weight": (128,), "out_proj.weight": (width, 2048)}.items()}
        return {prefix + n: s for n, s in shapes.items()}

    root = "model.language_model."
    shapes = {root + "embed_tokens.weight": (248320, width), root + "norm.weight": (width,)}
    for i, kind in enumerate(types):
        shapes |= layer(f"{root}layers.{i}.", kind)
    shapes |= {"mtp.fc.weight": (width, 2 * width), "mtp.pre_fc_norm_embedding.weight": (width,),
               "mtp.pre_fc_norm_hidden.weight": (width,), "mtp.norm.weight": (width,)}
    shapes |= layer("mtp.layers.0.", "full_attention")
    shapes["model.visual.patch_embed.proj.bias"] = (768,)  # stands for the tower, which is left out
    return config, shapes, 752_393_024


def falcon_h1():
    width, ffn, layers, inner, heads, state = 1024, 2048, 36, 1536, 24, 128
    config = {
        "architectures": ["FalconH1ForCausalLM"], "model_type": "falcon_h1", "vocab_size": 32784, "hidden_size": width,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 64, "rope_theta": 100000000000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 16384,
        "tie_word_embeddings": False, "hidden_act": "silu", "mamba_d_ssm": inner, "mamba_n_heads": heads,
        "mamba_d_head": 64, "mamba_d_state": state, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_chunk_size": 128,
        "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False, "mamba_rms_norm": False,
        "mamba_norm_before_gate": False, "attention_bias": False, "mlp_bias": False, "projectors_bias": False,
        "embedding_multiplier": 5.656854249492381, "attention_in_multiplier": 1.0,
        "key_multiplier": 0.39062499999999994, "attention_out_multiplier": 0.9375, "ssm_in_multiplier": 1.25,
        "ssm_multipliers": [0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738],
        "ssm_out_multiplier": 0.23570226039551587, "mlp_multipliers": [0.8838834764831844, 0.5859375],
        "lm_head_multiplier": 0.0390625,
    }
    channels = inner + 2 * state
    shapes = {"model.embed_tokens.weight": (32784, width), "model.final_layernorm.weight": (width,),
              "lm_head.weight": (32784, width)}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{n}": s for n, s in {
            "input_layernorm.weight": (width,), "pre_ff_layernorm.weight": (width,),
            "mamba.in_proj.weight": (inner + channels + heads, width), "mamba.conv1d.weight": (channels, 1, 4),
            "mamba.conv1d.bias": (channels,), "mamba.dt_bias": (heads,), "mamba.A_log": (heads,), "mamba.D": (heads,),
            "mamba.out_proj.weight": (width, inner), "self_attn.q_proj.weight": (512, width),
            "self_attn.k_proj.weight": (128, width), "self_attn.v_proj.weight": (128, width),
            "self_attn.o_proj.weight": (width, 512), "feed_forward.gate_proj.weight": (ffn, width),
            "feed_forward.up_proj.weight": (ffn, width), "feed_forward.down_proj.weight": (width, ffn)}.items()}
    return config, shapes, 521_411_104


def qwen2():
    width, ffn, layers = 896, 4864, 24
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "hidden_size": width,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": 14, "num_key_value_heads": 2,
        "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": True,
        "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24,
        "max_position_embeddings": 32768, "bos_token_id": 151643, "eos_token_id": 151643,
    }
    shapes = {"model.embed_tokens.weight": (151936, width), "model.norm.weight": (width,)}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{n}": s for n, s in {
            "input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,),
            "self_attn.q_proj.weight": (width, width), "self_attn.q_proj.bias": (width,),
            "self_attn.k_proj.weight": (128, width), "self_attn.k_proj.bias": (128,),
            "self_attn.v_proj.weight": (128, width), "self_attn.v_proj.bias": (128,),
            "self_attn.o_proj.weight": (width, width), "mlp.gate_proj.weight": (ffn, width),
            "mlp.up_proj.weight": (ffn, width), "mlp.down_proj.weight": (width, ffn)}.items()}
    return config, shapes, 494_032_768


MODELS = {"Qwen3.5-0.8B": qwen3_5, "Falcon-H1-0.5B": falcon_h1, "Qwen2.5-0.5B": qwen2}


def draw(name, shape, generator):
    values = torch.randn(shape, generator=generator)
    if name.endswith("A_log"):
        return values * 0.5 + 1
    if name.endswith("dt_bias"):
        return values * 0.5 - 3
    if name.endswith(("linear_attn.norm.weight", ".D")) or ("norm" in name and not name.startswith("mtp")):
        return values * 0.1 + (0 if "language_model" in name and "linear_attn" not in name else 1)
    if len(shape) < 2:
        return values * 0.1
    return values / math.sqrt(math.prod(shape[1:]))


def byte_tokenizer(vocab):
    """A byte-level tokenizer.json without merges: text for `run`. Tokens behind the 256 bytes have names of their own."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {letters.get(i, f"token{i}"): i for i in range(vocab)}, "merges": []}}


def write_checkpoint(folder, config, shapes, text, shard=1 << 30):
    """bf16 in shards of about a gigabyte; what the published files keep in float32 stays so."""
    generator = torch.Generator().manual_seed(1)
    shards, size = [[]], 0
    for name, shape in shapes.items():
        if size > 0 and size + 2 * math.prod(shape) > shard:
            shards, size = [*shards, []], 0
        shards[-1].append(name)
        size += 2 * math.prod(shape)
    index = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name in names:
            wide = name.endswith(("A_log", "linear_attn.norm.weight"))
            tensors[name] = draw(name, shapes[name], generator).to(torch.float32 if wide else torch.bfloat16)
            index[name] = file
        save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    if text:
        vocab = config.get("text_config", config)["vocab_size"]
        (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer(vocab)))


def step(what, *command):
    start = time.monotonic()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    seconds = time.monotonic() - start
    print(f"  {what:8} {'ok' if result.returncode == 0 else f'exit {result.returncode}'}  {seconds:6.1f} s", flush=True)
    if result.returncode != 0:
        print((result.stdout[-2000:] + result.stderr[-2000:]).rstrip(), flush=True)
    return result


def check(plait, work, name, text):
    """Whether everything held."""
    config, shapes, published = MODELS[name]()
    folder, model = work / name, work / (name + ".h5")
    folder.mkdir(parents=True)
    print(name, flush=True)
    try:
        start = time.monotonic()
        write_checkpoint(folder, config, shapes, text)
        print(f"  written      {time.monotonic() - start:6.1f} s", flush=True)
        results = [step("convert", plait, "convert", folder, model, "--json", work / "convert.json", "--quiet")]
        if results[0].returncode != 0:
            return False
        total = json.loads((work / "convert.json").read_text())["parameters"]
        print(f"  parameters {total:,}, published {published:,}, file {model.stat().st_size:,} bytes", flush=True)
        results.append(step("inspect", plait, "inspect", model, "--check", "--quiet"))
        results.append(step("verify", plait, "verify", model, "-n", TOKENS, "--quiet"))
        print("\n".join("    " + line for line in results[-1].stdout.splitlines()
                        if re.match(r"Logits end to end|.*verified on", line)), flush=True)
        if text:
            results.append(step("run", plait, "run", model, "--prompt", "To be", "-n", 16, "--seed", 1, "--quiet"))
        return total == published and all(result.returncode == 0 for result in results)
    finally:
        shutil.rmtree(folder)
        model.unlink(missing_ok=True)
        (work / "convert.json").unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plait", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where there is room; made if absent")
    parser.add_argument("--without-text", action="store_true", help="folders without a tokenizer; nothing is generated")
    parser.add_argument("models", nargs="*", help=", ".join(MODELS))
    arguments = parser.parse_args()
    unknown = set(arguments.models) - set(MODELS)
    if unknown:
        parser.error(f"unknown models {sorted(unknown)}")
    plait, text = arguments.plait.resolve(), not arguments.without_text
    failed = [name for name in arguments.models or MODELS if not check(plait, arguments.folder, name, text)]
    print("failed: " + ", ".join(failed) if failed else "all held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
