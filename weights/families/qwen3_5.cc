#include "weights/families/qwen3_5.h"

#include <algorithm>

#include "runtime/base/error.h"

namespace plait {
namespace {

struct Sizes {
  Index vocab, width, hidden, layers;
  Index heads, kv_heads, head_dim, rotary;                 // full attention
  Index key_heads, value_heads, key_dim, value_dim, conv;  // linear attention
  bool bias;
  double theta, eps;
};

Sizes read_sizes(SourceConfig& config) {
  Sizes s{};
  s.vocab = config.size_or("vocab_size", 248320);
  s.width = config.size_or("hidden_size", 4096);
  s.hidden = config.size_or("intermediate_size", 12288);
  s.layers = read_layer_count(config, 32);
  s.heads = config.size_or("num_attention_heads", 16);
  s.kv_heads = config.size_or("num_key_value_heads", 4);
  s.head_dim = config.size("head_dim");
  s.key_heads = config.size("linear_num_key_heads");
  s.value_heads = config.size_or("linear_num_value_heads", 32);
  s.key_dim = config.size("linear_key_head_dim");
  s.value_dim = config.size("linear_value_head_dim");
  s.conv = config.size("linear_conv_kernel_dim");
  s.bias = config.flag_or("attention_bias", false);
  s.eps = config.number_or("rms_norm_eps", 1e-6);
  const RopeKeys rope = read_rope_keys(config, 0.25);
  s.theta = rope.theta;
  s.rotary = static_cast<Index>(static_cast<double>(s.head_dim) * rope.partial);
  if (s.rotary < 2 || s.rotary % 2 != 0 || s.rotary > s.head_dim)
    fail(config.where(), ": 'partial_rotary_factor' ", rope.partial, " of 'head_dim' ", s.head_dim, " gives ",
         s.rotary, " rotary channels, which must be an even number from 2 to ", s.head_dim);
  return s;
}

// Per layer "linear_attention" or "full_attention": the list, or the rule it is made by.
std::vector<std::string> read_layers(SourceConfig& config, Index count) {
  std::vector<std::string> layers;
  if (!config.has("layer_types")) {
    config.harmless({"layer_types"});
    if (!config.has("full_attention_interval"))
      fail(config.where(), " has neither 'layer_types' nor 'full_attention_interval'");
    const Index interval = config.size("full_attention_interval");
    for (Index i = 1; i <= count; ++i) layers.push_back(i % interval ? "linear_attention" : "full_attention");
    return layers;
  }
  config.harmless({"full_attention_interval"});  // the list has been made
  layers = config.texts("layer_types");
  if (static_cast<Index>(layers.size()) != count)
    fail(config.where(), ": 'layer_types' lists ", layers.size(), " layers, 'num_hidden_layers' is ", count);
  for (std::string& layer : layers) {
    if (layer == "mamba") layer = "linear_attention";
    if (layer == "attention") layer = "full_attention";
    if (layer != "linear_attention" && layer != "full_attention")
      fail(config.where(), ": 'layer_types' names '", layer.substr(0, 80),
           "'; this family has linear_attention and full_attention");
  }
  return layers;
}

Json norm(const Sizes& s) { return {{"kind", "rms_norm"}, {"eps", s.eps}, {"form", "one_plus"}}; }

Json linear_mixer(const Sizes& s) {
  return {{"name", "mixer"},
          {"norm", norm(s)},
          {"kind", "gated_delta_net"},
          {"num_heads", s.key_heads},
          {"num_value_heads", s.value_heads},
          {"head_dim", s.key_dim},
          {"value_head_dim", s.value_dim},
          {"conv", s.conv},
          {"gate", "silu"},
          {"norm_eps", s.eps}};
}

Json full_mixer(const Sizes& s) {
  return {{"name", "mixer"},
          {"norm", norm(s)},
          {"kind", "softmax_attention"},
          {"num_heads", s.heads},
          {"num_kv_heads", s.kv_heads},
          {"head_dim", s.head_dim},
          {"rope", {{"theta", s.theta}, {"dim", s.rotary}}},
          {"qk_norm", {{"eps", s.eps}, {"form", "one_plus"}}},
          {"gate", "sigmoid"},
          {"gate_packing", "per_query_head"},
          {"bias", s.bias},
          {"output_bias", s.bias}};
}

Json make_card(const Sizes& s, const std::vector<std::string>& layers) {
  const Json mlp = {{"name", "mlp"}, {"norm", norm(s)}, {"kind", "gated_mlp"}, {"hidden", s.hidden}};
  Json card = {{"plait_format", 1}, {"vocab", s.vocab}, {"width", s.width}, {"final_norm", norm(s)}};
  for (const std::string& layer : layers) {
    const bool linear = layer == "linear_attention";
    const char* name = linear ? "linear" : "full";
    card["pattern"].push_back(name);
    if (!card["blocks"].contains(name))
      card["blocks"][name] = Json::array({linear ? linear_mixer(s) : full_mixer(s), mlp});
  }
  return card;
}

void map_linear(TensorMap& map, const Sizes& s, const std::string& from, const std::string& node) {
  const Index keys = s.key_heads * s.key_dim, values = s.value_heads * s.value_dim;
  map.stacked(from + "in_proj_qkv.weight", {2 * keys + values, s.width}, node,
              {{"q", keys}, {"k", keys}, {"v", values}});
  map.whole(from + "in_proj_z.weight", {values, s.width}, node, "gate");
  map.whole(from + "in_proj_b.weight", {s.value_heads, s.width}, node, "beta");
  map.whole(from + "in_proj_a.weight", {s.value_heads, s.width}, node, "a");
  map.stacked(from + "conv1d.weight", {2 * keys + values, 1, s.conv}, node,
              {{"q_conv", keys}, {"k_conv", keys}, {"v_conv", values}});
  map.whole(from + "A_log", {s.value_heads}, node, "a_log");
  map.whole(from + "dt_bias", {s.value_heads}, node, "dt_bias");
  map.whole(from + "norm.weight", {s.value_dim}, node, "norm");
  map.whole(from + "out_proj.weight", {s.width, values}, node, "o");
}

// The rows of q_proj are, head by head, [query | gate]: what `gate_packing` per_query_head means.
void map_full(TensorMap& map, const Sizes& s, const std::string& from, const std::string& node) {
  const Index q = 2 * s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  const auto projection = [&](const std::string& name, Index out, Index in) {
    map.whole(cat(from, name, "_proj.weight"), {out, in}, node, name);
    if (s.bias) map.whole(cat(from, name, "_proj.bias"), {out}, node, name + "_bias");
  };
  projection("q", q, s.width);
  projection("k", kv, s.width);
  projection("v", kv, s.width);
  projection("o", s.width, s.heads * s.head_dim);
  map.whole(from + "q_norm.weight", {s.head_dim}, node, "q_norm");
  map.whole(from + "k_norm.weight", {s.head_dim}, node, "k_norm");
}

void map_layer(TensorMap& map, const Sizes& s, const std::string& layer, const std::string& from,
               const std::string& node) {
  map.whole(from + "input_layernorm.weight", {s.width}, node + ".mixer_norm", "weight");
  if (layer == "linear_attention")
    map_linear(map, s, from + "linear_attn.", node + ".mixer");
  else
    map_full(map, s, from + "self_attn.", node + ".mixer");
  map.whole(from + "post_attention_layernorm.weight", {s.width}, node + ".mlp_norm", "weight");
  map_gated_mlp(map, s.width, s.hidden, from + "mlp.", node + ".mlp");
}

// The head that drafts the token after the next. It is no part of the graph: the card names it as kept aside.
TensorMap draft_map(const Sizes& s) {
  TensorMap map;
  map.whole("mtp.fc.weight", {s.width, 2 * s.width}, "mtp.fc", "weight");
  map.whole("mtp.pre_fc_norm_embedding.weight", {s.width}, "mtp.embedding_norm", "weight");
  map.whole("mtp.pre_fc_norm_hidden.weight", {s.width}, "mtp.hidden_norm", "weight");
  map.whole("mtp.norm.weight", {s.width}, "mtp.final_norm", "weight");
  map_layer(map, s, "full_attention", "mtp.layers.0.", "mtp.blocks.0");
  return map;
}

// hf stores these and never reads them.
void read_fixed_keys(SourceConfig& config) {
  config.only("hidden_act", "silu");
  config.only("attn_output_gate", true);
  config.only("mrope_interleaved", true);
  config.only("mamba_ssm_dtype", "float32");
  config.only("mtp_num_hidden_layers", 1);
  config.only("mtp_use_dedicated_embeddings", false);
  config.only("mlp_only_layers", Json::array());
}

std::string find_prefix(const std::set<std::string>& names, const std::string& where) {
  const bool nested = names.contains("model.language_model.embed_tokens.weight"),
             plain = names.contains("model.embed_tokens.weight");
  if (nested == plain)
    fail(where, " comes with ", nested ? "both" : "neither",
         " of the tensors 'model.language_model.embed_tokens.weight' and 'model.embed_tokens.weight'");
  return nested ? "model.language_model." : "model.";
}

// The text model may stand inside a vision-language model, whose class looks at its own flag for tying.
Head read_tied(SourceConfig& top, SourceConfig& text, const std::set<std::string>& names) {
  text.harmless({"tie_word_embeddings"});
  top.harmless({"tie_word_embeddings"});
  return read_head(top.has("tie_word_embeddings") ? top : text, "lm_head.weight", names);
}

Reading read(SourceConfig& top, const std::set<std::string>& names) {
  std::optional<SourceConfig> inner;
  if (top.has("text_config")) {
    inner.emplace(top.object("text_config"));
    inner->only("model_type", "qwen3_5_text");
    top.harmless({"vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
                  "vision_end_token_id"});
  }
  SourceConfig& config = inner ? *inner : top;
  const Sizes s = read_sizes(config);
  const auto layers = read_layers(config, s.layers);
  read_fixed_keys(config);
  const std::string prefix = find_prefix(names, top.where());

  Reading reading{make_card(s, layers), {}};
  TensorMap& map = reading.map;
  map.skipped = {"model.visual."};
  map_ends(reading, s.vocab, s.width,
           {prefix + "embed_tokens.weight", prefix + "norm.weight", "lm_head.weight"},
           read_tied(top, config, names));
  for (std::size_t i = 0; i < layers.size(); ++i)
    map_layer(map, s, layers[i], cat(prefix, "layers.", i, "."), cat("blocks.", i));
  if (std::any_of(names.begin(), names.end(),
                  [](const std::string& name) { return name.starts_with("mtp."); }))
    keep_aside(reading, "mtp", draft_map(s));

  config.harmless_everywhere();
  config.finish();
  if (inner) top.harmless_everywhere(), top.finish();
  return reading;
}

}  // namespace

Family qwen3_5_family() { return {"qwen3_5", {"qwen3_5", "qwen3_5_text"}, read, nullptr}; }

}  // namespace plait
