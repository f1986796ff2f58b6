#include "weights/families/qwen2.h"

#include "runtime/base/error.h"

namespace plait {
namespace {

struct Sizes {
  Index vocab, width, hidden, layers, heads, kv_heads, head_dim;
  double theta, eps;
};

// The family has no key for the width of a head; files that carry one all the same mean it.
Index read_head_dim(SourceConfig& config, Index width, Index heads) {
  if (config.has("head_dim")) return config.size("head_dim");
  config.harmless({"head_dim"});
  if (width % heads != 0)
    fail(config.where(), ": 'hidden_size' ", width, " is no multiple of 'num_attention_heads' ", heads,
         ", and there is no 'head_dim'");
  config.note(
      cat(config.where(), " has no 'head_dim'; it is hidden_size / num_attention_heads = ", width / heads));
  return width / heads;
}

Sizes read_sizes(SourceConfig& config) {
  Sizes s{};
  s.vocab = config.size("vocab_size");
  s.width = config.size("hidden_size");
  s.hidden = config.size("intermediate_size");
  s.layers = read_layer_count(config, std::nullopt);
  s.heads = config.size("num_attention_heads");
  s.kv_heads = config.size("num_key_value_heads");
  s.head_dim = read_head_dim(config, s.width, s.heads);
  s.eps = config.number("rms_norm_eps");
  s.theta = read_rope_keys(config, 1).theta;
  return s;
}

// Per layer the window, 0 for none: only where `use_sliding_window` is set, by the list or by the rule it is
// made by.
std::vector<Index> read_windows(SourceConfig& config, Index layers) {
  const bool sliding = config.flag_or("use_sliding_window", false), listed = config.has("layer_types");
  const Index window = sliding ? config.size("sliding_window") : 0;
  const Index first = sliding && !listed ? config.size_or("max_window_layers", 28, 0) : layers;
  config.harmless({"sliding_window", "max_window_layers", "layer_types"});
  std::vector<Index> windows(static_cast<std::size_t>(layers), 0);
  for (Index i = first; i < layers; ++i) windows[static_cast<std::size_t>(i)] = window;
  if (!listed) return windows;
  const auto types = config.texts("layer_types");
  if (types.size() != windows.size())
    fail(config.where(), ": 'layer_types' lists ", types.size(), " layers, 'num_hidden_layers' is ", layers);
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (types[i] != "full_attention" && !(sliding && types[i] == "sliding_attention"))
      fail(config.where(), ": 'layer_types' names '", types[i].substr(0, 80), "', but this family has ",
           sliding ? "full_attention and sliding_attention"
                   : "full_attention only unless 'use_sliding_window' is true");
    if (types[i] == "sliding_attention") windows[i] = window;
  }
  return windows;
}

Json norm(const Sizes& s) { return {{"kind", "rms_norm"}, {"eps", s.eps}, {"form", "plain"}}; }

Json make_block(const Sizes& s, Index window) {
  Json mixer = {{"name", "mixer"},
                {"norm", norm(s)},
                {"kind", "softmax_attention"},
                {"num_heads", s.heads},
                {"num_kv_heads", s.kv_heads},
                {"head_dim", s.head_dim},
                {"rope", {{"theta", s.theta}}},
                {"bias", true}};
  if (window > 0) mixer["window"] = window;
  return Json::array(
      {mixer, {{"name", "mlp"}, {"norm", norm(s)}, {"kind", "gated_mlp"}, {"hidden", s.hidden}}});
}

Json make_card(const Sizes& s, const std::vector<Index>& windows) {
  Json card = {{"plait_format", 1}, {"vocab", s.vocab}, {"width", s.width}, {"final_norm", norm(s)}};
  for (const Index window : windows) {
    const char* name = window > 0 ? "sliding" : "full";
    card["pattern"].push_back(name);
    if (!card["blocks"].contains(name)) card["blocks"][name] = make_block(s, window);
  }
  return card;
}

void map_layer(TensorMap& map, const Sizes& s, const std::string& from, const std::string& node) {
  const Index q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  map.whole(from + "input_layernorm.weight", {s.width}, node + ".mixer_norm", "weight");
  for (const auto& [name, rows] : {std::pair("q", q), std::pair("k", kv), std::pair("v", kv)}) {
    map.whole(cat(from, "self_attn.", name, "_proj.weight"), {rows, s.width}, node + ".mixer", name);
    map.whole(cat(from, "self_attn.", name, "_proj.bias"), {rows}, node + ".mixer", cat(name, "_bias"));
  }
  map.whole(from + "self_attn.o_proj.weight", {s.width, q}, node + ".mixer", "o");
  map.whole(from + "post_attention_layernorm.weight", {s.width}, node + ".mlp_norm", "weight");
  map_gated_mlp(map, s.width, s.hidden, from + "mlp.", node + ".mlp");
}

Reading read(SourceConfig& config, const std::set<std::string>& names) {
  const Sizes s = read_sizes(config);
  config.only("hidden_act", "silu");
  config.only("use_mrope", false);
  Reading reading{make_card(s, read_windows(config, s.layers)), {}};
  map_ends(reading, s.vocab, s.width, {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"},
           read_head(config, "lm_head.weight", names));
  for (Index i = 0; i < s.layers; ++i)
    map_layer(reading.map, s, cat("model.layers.", i, "."), cat("blocks.", i));
  config.harmless_everywhere();
  config.finish();
  return reading;
}

}  // namespace

Family qwen2_family() { return {"qwen2", {"qwen2"}, read, nullptr}; }

}  // namespace plait
