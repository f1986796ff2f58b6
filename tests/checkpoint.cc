#include "tests/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "tests/testing.h"

namespace plait::testing {
namespace {

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string encode(const std::vector<float>& values, const std::string& type) {
  std::string bytes;
  const auto append = [&](const auto& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (const float value : values) {
    if (type == "F32") append(value);
    if (type == "BF16") append(to_bf16(value).bits);
    if (type == "F16") append(to_f16(value).bits);
  }
  return bytes;
}

std::vector<float> decode(const PublishedTensor& tensor) {
  std::vector<float> values;
  const std::size_t size = tensor.type == "F32" ? 4 : 2;
  for (std::size_t at = 0; at < tensor.bytes.size(); at += size) {
    float value = 0;
    std::uint16_t bits = 0;
    if (size == 4) std::memcpy(&value, tensor.bytes.data() + at, 4);
    if (size == 2) std::memcpy(&bits, tensor.bytes.data() + at, 2);
    values.push_back(size == 4 ? value : tensor.type == "BF16" ? to_float(bf16{bits}) : to_float(f16{bits}));
  }
  return values;
}

std::uint64_t number_of(const std::string& name) {
  std::uint64_t hash = 1;
  for (const char c : name) hash = hash * 1099511628211ull + static_cast<unsigned char>(c);
  return hash;
}

void add_mlp(Checkpoint& c, const std::string& at, Index width, Index hidden, bool bias, const char* type) {
  c.add(at + "gate_proj.weight", {hidden, width}, type);
  c.add(at + "up_proj.weight", {hidden, width}, type);
  c.add(at + "down_proj.weight", {width, hidden}, type);
  if (!bias) return;
  c.add(at + "gate_proj.bias", {hidden}, type);
  c.add(at + "up_proj.bias", {hidden}, type);
  c.add(at + "down_proj.bias", {width}, type);
}

void add_qwen3_5_attention(Checkpoint& c, const std::string& at) {
  c.add(at + "input_layernorm.weight", {40}, "BF16");
  c.add(at + "post_attention_layernorm.weight", {40}, "BF16");
  c.add(at + "self_attn.q_proj.weight", {2 * 4 * 24, 40}, "BF16");
  c.add(at + "self_attn.k_proj.weight", {2 * 24, 40}, "BF16");
  c.add(at + "self_attn.v_proj.weight", {2 * 24, 40}, "BF16");
  c.add(at + "self_attn.o_proj.weight", {40, 4 * 24}, "BF16");
  c.add(at + "self_attn.q_norm.weight", {24}, "BF16");
  c.add(at + "self_attn.k_norm.weight", {24}, "BF16");
  add_mlp(c, at + "mlp.", 40, 56, false, "BF16");
}

void add_qwen3_5_linear(Checkpoint& c, const std::string& at) {
  constexpr Index kKeys = 2 * 24, kValues = 4 * 40;
  c.add(at + "input_layernorm.weight", {40}, "BF16");
  c.add(at + "post_attention_layernorm.weight", {40}, "BF16");
  c.add(at + "linear_attn.in_proj_qkv.weight", {2 * kKeys + kValues, 40}, "BF16");
  c.add(at + "linear_attn.in_proj_z.weight", {kValues, 40}, "BF16");
  c.add(at + "linear_attn.in_proj_b.weight", {4, 40}, "BF16");
  c.add(at + "linear_attn.in_proj_a.weight", {4, 40}, "BF16");
  c.add(at + "linear_attn.conv1d.weight", {2 * kKeys + kValues, 1, 4}, "BF16");
  c.add(at + "linear_attn.A_log", {4}, "F32");
  c.add(at + "linear_attn.dt_bias", {4}, "BF16");
  c.add(at + "linear_attn.norm.weight", {40}, "F32");
  c.add(at + "linear_attn.out_proj.weight", {40, kValues}, "BF16");
  add_mlp(c, at + "mlp.", 40, 56, false, "BF16");
}

void add_falcon_h1_layer(Checkpoint& c, const std::string& at) {
  constexpr Index kInner = 48, kGroups = 2 * 16, kHeads = 6;
  c.add(at + "input_layernorm.weight", {40}, "F32");
  c.add(at + "pre_ff_layernorm.weight", {40}, "F32");
  c.add(at + "mamba.in_proj.weight", {2 * kInner + 2 * kGroups + kHeads, 40}, "F32");
  c.add(at + "mamba.in_proj.bias", {2 * kInner + 2 * kGroups + kHeads}, "F32");
  c.add(at + "mamba.conv1d.weight", {kInner + 2 * kGroups, 1, 4}, "F32");
  c.add(at + "mamba.conv1d.bias", {kInner + 2 * kGroups}, "F32");
  for (const char* name : {"dt_bias", "A_log", "D"}) c.add(at + "mamba." + name, {kHeads}, "F32");
  c.add(at + "mamba.norm.weight", {kInner}, "F32");
  c.add(at + "mamba.out_proj.weight", {40, kInner}, "F32");
  c.add(at + "mamba.out_proj.bias", {40}, "F32");
  for (const auto& [name, rows, cols] :
       {std::tuple("q", Index{96}, Index{40}), {"k", 48, 40}, {"v", 48, 40}, {"o", 40, 96}}) {
    c.add(at + "self_attn." + name + "_proj.weight", {rows, cols}, "F32");
    c.add(at + "self_attn." + name + "_proj.bias", {rows}, "F32");
  }
  add_mlp(c, at + "feed_forward.", 40, 56, true, "F32");
}

std::string layer_of(const std::string& prefix, int index) {
  return prefix + "layers." + std::to_string(index) + ".";
}

}  // namespace

std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return bytes + header + data;
}

std::string safetensors_bytes(const PublishedTensors& tensors) {
  Json header = Json::object();
  std::string data;
  for (const char* wanted : {"I64", "F32", "BF16", "F16"})  // wide elements first: offsets stay aligned
    for (const auto& [name, tensor] : tensors) {
      if (tensor.type != wanted) continue;
      header[name] = {{"dtype", tensor.type},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
  return safetensors_bytes(header.dump(), data);
}

PublishedTensors parse_safetensors(const std::string& bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  PublishedTensors tensors;
  const Json header = Json::parse(bytes.substr(8, length));
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    const std::size_t begin = json["data_offsets"][0], end = json["data_offsets"][1];
    tensors[name] = {json["dtype"], json["shape"].get<Shape>(),
                     bytes.substr(8 + length + begin, end - begin)};
  }
  return tensors;
}

void Checkpoint::add(const std::string& name, const Shape& shape, const std::string& type) {
  tensors[name] = {type, shape, encode(Numbers(number_of(name)).normals(element_count(shape), 0.2), type)};
}

void Checkpoint::retype(const std::string& type) {
  for (auto& [name, tensor] : tensors)
    if (tensor.type != "I64") tensor = {type, tensor.shape, encode(decode(tensor), type)};
}

void Checkpoint::rename_prefix(const std::string& from, const std::string& to) {
  PublishedTensors renamed;
  for (const auto& [name, tensor] : tensors)
    renamed[name.starts_with(from) ? to + name.substr(from.size()) : name] = tensor;
  tensors = std::move(renamed);
}

void Checkpoint::write(const std::string& folder) const {
  std::filesystem::create_directories(folder);
  write_bytes(folder + "/config.json", config.dump(2));
  write_bytes(folder + "/model.safetensors", safetensors_bytes(tensors));
}

void Checkpoint::write_shards(const std::string& folder, std::size_t count) const {
  std::filesystem::create_directories(folder);
  write_bytes(folder + "/config.json", config.dump(2));
  std::vector<PublishedTensors> shards(count);
  Json map = Json::object();
  std::size_t next = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t shard = next++ % count;
    shards[shard][name] = tensor;
    map[name] = cat("model-", shard, ".safetensors");
  }
  for (std::size_t i = 0; i < count; ++i)
    write_bytes(cat(folder, "/model-", i, ".safetensors"), safetensors_bytes(shards[i]));
  write_bytes(folder + "/model.safetensors.index.json",
              Json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
}

Checkpoint tiny_qwen3_5(Tie tie) {
  Checkpoint c;
  c.config = Json::parse(R"({
    "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
    "image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93,
    "transformers_version": "5.23.0", "vision_config": {"depth": 1, "hidden_size": 32},
    "text_config": {
      "model_type": "qwen3_5_text", "vocab_size": 97, "hidden_size": 40, "intermediate_size": 56,
      "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24,
      "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
      "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 24, "linear_value_head_dim": 40,
      "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": false,
      "attn_output_gate": true, "mamba_ssm_dtype": "float32", "mtp_num_hidden_layers": 1,
      "mtp_use_dedicated_embeddings": false, "max_position_embeddings": 512, "eos_token_id": 3,
      "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25,
                          "mrope_interleaved": true, "mrope_section": [1, 1, 1]}}})");
  c.config["tie_word_embeddings"] = tie == Tie::tied;
  const std::string prefix = "model.language_model.";
  c.add(prefix + "embed_tokens.weight", {97, 40}, "BF16");
  if (tie == Tie::own) c.add("lm_head.weight", {97, 40}, "BF16");
  c.add(prefix + "norm.weight", {40}, "BF16");
  for (int i = 0; i < 4; ++i)
    i == 1 ? add_qwen3_5_attention(c, layer_of(prefix, i)) : add_qwen3_5_linear(c, layer_of(prefix, i));
  c.add("model.visual.patch_embed.proj.weight", {32, 3, 2, 4, 4}, "BF16");
  c.tensors["model.visual.position_ids"] = {"I64", {3}, std::string(24, '\1')};
  c.add("mtp.fc.weight", {40, 80}, "BF16");
  for (const char* name : {"pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"})
    c.add(cat("mtp.", name, ".weight"), {40}, "BF16");
  add_qwen3_5_attention(c, layer_of("mtp.", 0));
  return c;
}

Checkpoint tiny_falcon_h1(Tie tie) {
  Checkpoint c;
  c.config = Json::parse(R"({
    "architectures": ["FalconH1ForCausalLM"], "model_type": "falcon_h1", "vocab_size": 97, "hidden_size": 40,
    "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24,
    "rope_theta": 1e11, "rope_scaling": null, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "mamba_d_ssm": 48, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 2,
    "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 128, "mamba_conv_bias": true, "mamba_proj_bias": true,
    "projectors_bias": true, "attention_bias": true, "mlp_bias": true, "mamba_rms_norm": true,
    "mamba_norm_before_gate": false, "time_step_limit": [0.0, {"__float__": "Infinity"}],
    "embedding_multiplier": 5.656854249492381, "lm_head_multiplier": 0.0390625, "attention_in_multiplier": 1.1,
    "key_multiplier": 0.39062499999999994, "attention_out_multiplier": 0.9375, "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.23570226039551587, "mlp_multipliers": [0.8838834764831844, 0.5859375],
    "ssm_multipliers": [0.3535533905932738, 0.25, 0.45, 0.5, 0.7]})");
  c.config["tie_word_embeddings"] = tie == Tie::tied;
  c.add("model.embed_tokens.weight", {97, 40}, "F32");
  if (tie == Tie::own) c.add("lm_head.weight", {97, 40}, "F32");
  c.add("model.final_layernorm.weight", {40}, "F32");
  for (int i = 0; i < 3; ++i) add_falcon_h1_layer(c, layer_of("model.", i));
  return c;
}

Checkpoint tiny_qwen2(Tie tie) {
  Checkpoint c;
  c.config = Json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 101, "hidden_size": 48,
    "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": false,
    "sliding_window": 32768, "max_window_layers": 2, "torch_dtype": "bfloat16", "use_cache": true})");
  c.config["tie_word_embeddings"] = tie == Tie::tied;
  c.add("model.embed_tokens.weight", {101, 48}, "BF16");
  if (tie == Tie::own) c.add("lm_head.weight", {101, 48}, "BF16");
  c.add("model.norm.weight", {48}, "BF16");
  for (int i = 0; i < 3; ++i) {
    const std::string at = layer_of("model.", i);
    c.add(at + "input_layernorm.weight", {48}, "BF16");
    c.add(at + "post_attention_layernorm.weight", {48}, "BF16");
    for (const auto& [name, rows] : {std::pair("q", Index{48}), {"k", 24}, {"v", 24}}) {
      c.add(at + "self_attn." + name + "_proj.weight", {rows, 48}, "BF16");
      c.add(at + "self_attn." + name + "_proj.bias", {rows}, "BF16");
    }
    c.add(at + "self_attn.o_proj.weight", {48, 48}, "BF16");
    add_mlp(c, at + "mlp.", 48, 72, false, "BF16");
  }
  return c;
}

}  // namespace plait::testing
