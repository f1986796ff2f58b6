#include "weights/families/falcon_h1.h"

#include <array>
#include <cmath>

#include "runtime/base/error.h"
#include "weights/json_text.h"

namespace plait {
namespace {

struct Sizes {
  Index vocab, width, hidden, layers, heads, kv_heads, head_dim;
  Index inner, ssm_heads, ssm_head_dim, state, groups, conv;
  double theta, eps;

  Index in_rows() const { return 2 * inner + 2 * groups * state + ssm_heads; }  // z, x, B, C, dt
  Index conv_channels() const { return inner + 2 * groups * state; }            // x, B, C
};

struct Options {
  bool attention_bias, mlp_bias, in_bias, out_bias, conv_bias, norm, norm_before_gate;
  double dt_min, dt_max;  // dt_max is infinite for no limit
};

struct Factors {
  double embedding, head, attention_in, key, attention_out, ssm_in, ssm_out;
  std::vector<double> ssm;  // z, x, B, C, dt
  std::vector<double> mlp;  // gate, down
};

void read_ssm_sizes(SourceConfig& config, Sizes& s) {
  s.ssm_heads = config.size_or("mamba_n_heads", 128);
  s.state = config.size_or("mamba_d_state", 256);
  s.groups = config.size("mamba_n_groups");
  s.conv = config.size("mamba_d_conv");
  // null, unlike absence, means the product.
  const bool expanded = config.raw("mamba_d_ssm").is_null() && config.has("mamba_expand");
  s.inner = expanded ? config.size("mamba_expand") * s.width : config.size_or("mamba_d_ssm", 1024);
  config.harmless({"mamba_expand", "mamba_chunk_size"});  // unused beside d_ssm; no part of the function
  const Json& head_dim = config.raw("mamba_d_head");
  const bool automatic = head_dim.is_null() || head_dim == "auto";
  s.ssm_head_dim = automatic ? s.inner / s.ssm_heads : config.size("mamba_d_head");
  if (s.ssm_heads * s.ssm_head_dim != s.inner)
    fail(config.where(), ": 'mamba_n_heads' ", s.ssm_heads, " of width ", s.ssm_head_dim, " are not the ",
         s.inner, " channels of 'mamba_d_ssm'");
}

Sizes read_sizes(SourceConfig& config) {
  Sizes s{};
  s.vocab = config.size_or("vocab_size", 128000);
  s.width = config.size_or("hidden_size", 4096);
  s.hidden = config.size_or("intermediate_size", 14336);
  s.layers = read_layer_count(config, 32);
  s.heads = config.size_or("num_attention_heads", 32);
  s.kv_heads = config.size_or("num_key_value_heads", 8);
  s.head_dim = config.size("head_dim");
  s.eps = config.number("rms_norm_eps");
  s.theta = read_rope_keys(config, 1).theta;
  read_ssm_sizes(config, s);
  return s;
}

// [low, high], where high may be infinite: {"__float__": "Infinity"}.
void read_step_limits(SourceConfig& config, Options& o) {
  o.dt_min = 0, o.dt_max = INFINITY;
  const Json& limits = config.raw("time_step_limit");
  if (limits.is_null())
    return config.note(cat(config.where(), " lacks 'time_step_limit'; taken as no limit"));
  const bool pair = limits.is_array() && limits.size() == 2 && limits[0].is_number();
  const bool open = pair && limits[1] == Json{{"__float__", "Infinity"}};
  if (!pair || !(open || limits[1].is_number()))
    fail(config.where(), ": 'time_step_limit' must be a list of two numbers, found ",
         printable(limits.dump()));
  o.dt_min = limits[0].get<double>();
  if (!open) o.dt_max = limits[1].get<double>();
}

Options read_options(SourceConfig& config) {
  Options o{};
  o.attention_bias = config.flag_or("attention_bias", false);
  o.mlp_bias = config.flag_or("mlp_bias", false);
  o.in_bias = config.flag_or("mamba_proj_bias", false);
  o.out_bias = config.flag_or("projectors_bias", false);
  o.conv_bias = config.flag_or("mamba_conv_bias", true);
  o.norm = config.flag_or("mamba_rms_norm", false);
  o.norm_before_gate = config.flag_or("mamba_norm_before_gate", true);
  read_step_limits(config, o);
  return o;
}

Factors read_factors(SourceConfig& config) {
  Factors f{};
  f.embedding = config.number_or("embedding_multiplier", 1);
  f.head = config.number_or("lm_head_multiplier", 1);
  f.attention_in = config.number_or("attention_in_multiplier", 1);
  f.key = config.number_or("key_multiplier", 1);
  f.attention_out = config.number_or("attention_out_multiplier", 1);
  f.ssm_in = config.number_or("ssm_in_multiplier", 1);
  f.ssm_out = config.number_or("ssm_out_multiplier", 1);
  f.ssm = config.numbers_or("ssm_multipliers", std::vector<double>(5, 1.0));
  f.mlp = config.numbers_or("mlp_multipliers", std::vector<double>(2, 1.0));
  return f;
}

Json norm(const Sizes& s) { return {{"kind", "rms_norm"}, {"eps", s.eps}, {"form", "plain"}}; }

Json attention(const Sizes& s, const Options& o, const Factors& f) {
  return {{"kind", "softmax_attention"},     {"num_heads", s.heads},
          {"num_kv_heads", s.kv_heads},      {"head_dim", s.head_dim},
          {"rope", {{"theta", s.theta}}},    {"bias", o.attention_bias},
          {"output_bias", o.attention_bias}, {"input_multiplier", f.attention_in},
          {"key_multiplier", f.key}};
}

Json ssm(const Sizes& s, const Options& o, const Factors& f) {
  Json settings = {{"kind", "mamba2"},
                   {"num_heads", s.ssm_heads},
                   {"head_dim", s.ssm_head_dim},
                   {"state_dim", s.state},
                   {"num_groups", s.groups},
                   {"conv", s.conv},
                   {"conv_bias", o.conv_bias},
                   {"norm", !o.norm              ? "gate_only"
                            : o.norm_before_gate ? "norm_before_gate"
                                                 : "gated_rms"},
                   {"norm_eps", s.eps},
                   {"in_bias", o.in_bias},
                   {"out_bias", o.out_bias},
                   {"dt_min", o.dt_min},
                   {"input_multiplier", f.ssm_in},
                   {"slice_multipliers", f.ssm}};
  if (std::isfinite(o.dt_max)) settings["dt_max"] = o.dt_max;
  return settings;
}

Json make_card(const Sizes& s, const Options& o, const Factors& f) {
  const Json mixer = {{"name", "mixer"},
                      {"norm", norm(s)},
                      {"branches", {{"attention", attention(s, o, f)}, {"ssm", ssm(s, o, f)}}},
                      {"scales", {f.attention_out, f.ssm_out}}};  // in the order of the branches' names
  const Json mlp = {{"name", "mlp"},
                    {"norm", norm(s)},
                    {"kind", "gated_mlp"},
                    {"hidden", s.hidden},
                    {"bias", o.mlp_bias},
                    {"gate_multiplier", f.mlp[0]},
                    {"down_multiplier", f.mlp[1]}};
  return {{"plait_format", 1},
          {"vocab", s.vocab},
          {"width", s.width},
          {"embed", {{"multiplier", f.embedding}}},
          {"pattern", std::vector<std::string>(static_cast<std::size_t>(s.layers), "hybrid")},
          {"blocks", {{"hybrid", {mixer, mlp}}}},
          {"final_norm", norm(s)}};
}

// Rows of in_proj's output, in order, with the factor of each.
struct Part {
  Index row, rows;
  double factor;
};
std::array<Part, 5> in_parts(const Sizes& s, const Factors& f) {
  const std::array<Index, 5> rows = {s.inner, s.inner, s.groups * s.state, s.groups * s.state, s.ssm_heads};
  std::array<Part, 5> parts{};
  Index at = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i] = {at, rows[i], f.ssm[i]};
    at += rows[i];
  }
  return parts;
}

void map_ssm(TensorMap& map, const Sizes& s, const Options& o, const Factors& f, const std::string& from,
             const std::string& node) {
  map.whole(from + "in_proj.weight", {s.in_rows(), s.width}, node, "in");
  if (o.in_bias) map.whole(from + "in_proj.bias", {s.in_rows()}, node, "in_bias");
  map.whole(from + "conv1d.weight", {s.conv_channels(), 1, s.conv}, node, "conv_weight");
  if (o.conv_bias) map.whole(from + "conv1d.bias", {s.conv_channels()}, node, "conv_bias");
  map.whole(from + "dt_bias", {s.ssm_heads}, node, "dt_bias");
  map.whole(from + "A_log", {s.ssm_heads}, node, "a_log");
  map.whole(from + "D", {s.ssm_heads}, node, "d");
  if (o.norm) map.whole(from + "norm.weight", {s.inner}, node, "norm");
  map.whole(from + "out_proj.weight", {s.width, s.inner}, node, "out");
  if (o.out_bias) map.whole(from + "out_proj.bias", {s.width}, node, "out_bias");
  for (const Part& part : in_parts(s, f)) {
    map.fold(node, "in", part.row, part.rows, f.ssm_in * part.factor);
    if (o.in_bias) map.fold(node, "in_bias", part.row, part.rows, part.factor);
  }
  map.fold(node, "out", 0, s.width, f.ssm_out);
  if (o.out_bias) map.fold(node, "out_bias", 0, s.width, f.ssm_out);
}

// A product with its factors: `in` acts on the input and leaves the bias alone, `out` scales the bias too.
struct Product {
  Index rows, cols;
  double in = 1, out = 1;
};
void map_product(TensorMap& map, const Product& p, bool bias, const std::string& from,
                 const std::string& node, const std::string& tensor) {
  map.whole(from + ".weight", {p.rows, p.cols}, node, tensor);
  map.fold(node, tensor, 0, p.rows, p.in * p.out);
  if (!bias) return;
  map.whole(from + ".bias", {p.rows}, node, tensor + "_bias");
  map.fold(node, tensor + "_bias", 0, p.rows, p.out);
}

void map_layer(TensorMap& map, const Sizes& s, const Options& o, const Factors& f, const std::string& from,
               const std::string& node) {
  const Index q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  map.whole(from + "input_layernorm.weight", {s.width}, node + ".mixer_norm", "weight");
  map_ssm(map, s, o, f, from + "mamba.", node + ".mixer.ssm");
  const std::string mixer = node + ".mixer.attention", attn = from + "self_attn.";
  map_product(map, {q, s.width, f.attention_in}, o.attention_bias, attn + "q_proj", mixer, "q");
  map_product(map, {kv, s.width, f.attention_in, f.key}, o.attention_bias, attn + "k_proj", mixer, "k");
  map_product(map, {kv, s.width, f.attention_in}, o.attention_bias, attn + "v_proj", mixer, "v");
  map_product(map, {s.width, q, 1, f.attention_out}, o.attention_bias, attn + "o_proj", mixer, "o");
  map.whole(from + "pre_ff_layernorm.weight", {s.width}, node + ".mlp_norm", "weight");
  const std::string mlp = node + ".mlp", ff = from + "feed_forward.";
  map_product(map, {s.hidden, s.width, 1, f.mlp[0]}, o.mlp_bias, ff + "gate_proj", mlp, "gate");
  map_product(map, {s.hidden, s.width}, o.mlp_bias, ff + "up_proj", mlp, "up");
  map_product(map, {s.width, s.hidden, 1, f.mlp[1]}, o.mlp_bias, ff + "down_proj", mlp, "down");
}

Reading read(SourceConfig& config, const std::set<std::string>& names) {
  const Sizes s = read_sizes(config);
  const Options o = read_options(config);
  const Factors f = read_factors(config);
  config.only("hidden_act", "silu");
  config.only("mamba_use_mlp", true);
  config.only("layers_block_type", std::vector<std::string>(static_cast<std::size_t>(s.layers), "hybrid"));
  // Of initialisation and of classes before hf's; the family's class reads none of them.
  config.harmless(
      {"mlp_expansion_factor", "time_step_floor", "time_step_max", "time_step_min", "time_step_rank"});
  Reading reading{make_card(s, o, f), {}};
  const Head head = read_head(config, "lm_head.weight", names);
  map_ends(reading, s.vocab, s.width,
           {"model.embed_tokens.weight", "model.final_layernorm.weight", "lm_head.weight"}, head);
  reading.card["head"]["multiplier"] = f.head;
  if (head == Head::own) {  // a tied matrix cannot take both factors: they stay settings
    reading.map.fold("embed", "weight", 0, s.vocab, f.embedding);
    reading.map.fold("head", "weight", 0, s.vocab, f.head);
  }
  for (Index i = 0; i < s.layers; ++i)
    map_layer(reading.map, s, o, f, cat("model.layers.", i, "."), cat("blocks.", i));
  config.harmless_everywhere();
  config.finish();
  return reading;
}

Json folded(const Json& config, const std::set<std::string>& names) {
  Json ones = config;
  for (const char* key : {"attention_in_multiplier", "key_multiplier", "attention_out_multiplier",
                          "ssm_in_multiplier", "ssm_out_multiplier"})
    ones[key] = 1.0;
  if (names.contains("lm_head.weight")) ones["embedding_multiplier"] = ones["lm_head_multiplier"] = 1.0;
  ones["ssm_multipliers"] = std::vector<double>(5, 1.0);
  ones["mlp_multipliers"] = std::vector<double>(2, 1.0);
  return ones;
}

}  // namespace

Family falcon_h1_family() { return {"falcon_h1", {"falcon_h1"}, read, folded}; }

}  // namespace plait
