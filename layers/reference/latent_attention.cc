#include "layers/reference/latent_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/reference/projection.h"
#include "layers/reference/recurrence.h"

namespace plait {
namespace {

using Settings = LatentAttentionSettings;

Index read_gate_width(Config& config, Index value_head_dim) {
  const int gate =
      config.choice("gate", {"none", "sigmoid"}, "factor on a head's output; sigmoid: sigmoid_gate");
  const int granularity =
      config.choice("gate_granularity", {"elementwise", "headwise"}, "a factor per column or per head");
  if (gate == 0 && granularity != 0) config.refuse("gate_granularity means nothing while gate is none");
  if (gate == 0) return 0;
  return granularity == 0 ? value_head_dim : 1;
}

}  // namespace

Settings read_latent_attention(Config& config) {
  Settings s;
  s.width = config.width();
  s.num_heads = config.integer("num_heads", "query heads");
  s.qk_nope_head_dim = config.integer("qk_nope_head_dim", "columns of a head's query and key without rope");
  s.qk_rope_head_dim =
      config.integer("qk_rope_head_dim", "columns of the key that all heads share, with rope");
  s.value_head_dim = config.integer_or("value_head_dim", s.qk_nope_head_dim, "columns of a value head", 1);
  s.kv_lora_rank = config.integer("kv_lora_rank", "columns of the latent that keys and values are made of");
  s.q_lora_rank = config.integer_or("q_lora_rank", 0, "columns of the latent of the queries; 0 = none");
  s.rope = read_rope(config, s.qk_rope_head_dim);
  s.scale = config.number_or("scale", 0, "factor on q.k; 0 = 1 / sqrt(qk_nope_head_dim + qk_rope_head_dim)");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.query_dim()));
  s.norm_eps = config.number_or("norm_eps", 1e-6, "added to the mean square of a latent", 0);
  s.gate_width = read_gate_width(config, s.value_head_dim);
  s.cache = read_cache(config);
  config.finish();
  return s;
}

std::vector<TensorSpec> latent_attention_tensors(const Settings& s) {
  const Index q = s.num_heads * s.query_dim();
  const std::string q_text = "num_heads * (qk_nope_head_dim + qk_rope_head_dim)";
  std::vector<TensorSpec> specs;
  if (s.q_lora_rank == 0) {
    specs.push_back({"q", {q, s.width}, Init::normal, "[" + q_text + ", width]", true});
  } else {
    specs.push_back({"q_a", {s.q_lora_rank, s.width}, Init::normal, "[q_lora_rank, width]", true});
    specs.push_back({"q_a_norm", {s.q_lora_rank}, Init::around_one, "[q_lora_rank]"});
    specs.push_back({"q_b", {q, s.q_lora_rank}, Init::normal, "[" + q_text + ", q_lora_rank]", true});
  }
  specs.push_back(
      {"kv_a", {s.cached_width(), s.width}, Init::normal, "[kv_lora_rank + qk_rope_head_dim, width]", true});
  specs.push_back({"kv_a_norm", {s.kv_lora_rank}, Init::around_one, "[kv_lora_rank]"});
  specs.push_back({"kv_b",
                   {s.num_heads * (s.qk_nope_head_dim + s.value_head_dim), s.kv_lora_rank},
                   Init::normal,
                   "[num_heads * (qk_nope_head_dim + value_head_dim), kv_lora_rank]",
                   true});
  specs.push_back({"o",
                   {s.width, s.num_heads * s.value_head_dim},
                   Init::normal,
                   "[width, num_heads * value_head_dim]",
                   true});
  if (s.gate_width > 0)
    specs.push_back({"gate",
                     {s.num_heads * s.gate_width, s.width},
                     Init::normal,
                     s.gate_width == 1 ? "[num_heads, width]" : "[num_heads * value_head_dim, width]",
                     true});
  return specs;
}

namespace {

// Keys and values of every head written out, as the paper defines them.
class LatentAttentionTwin final : public Twin {
 public:
  LatentAttentionTwin(const Settings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const reference::Rows q = queries(x);
    reference::Rows latent(x.rows, s_.kv_lora_rank), shared(x.rows, s_.qk_rope_head_dim);
    cached(x, latent, shared);
    const reference::Rows expanded = weights_.project("kv_b", latent.view());
    reference::Rows heads(x.rows, s_.num_heads * s_.value_head_dim);
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < s_.num_heads; ++h)
        attend(q, expanded, shared, i, h, heads.row(i) + h * s_.value_head_dim);
    if (s_.gate_width > 0) {
      const reference::Rows gate = weights_.project("gate", x);
      const Index repeat = heads.cols / gate.cols;
      for (Index i = 0; i < x.rows; ++i)
        for (Index c = 0; c < heads.cols; ++c) heads(i, c) *= reference::sigmoid(gate(i, c / repeat));
    }
    const reference::Rows y = weights_.project("o", heads.view());
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.row(i), s_.width, output.row(i));
  }

 private:
  reference::Rows queries(View<const double> x) const {
    reference::Rows q(0, 0);
    if (s_.q_lora_rank == 0) {
      q = weights_.project("q", x);
    } else {
      reference::Rows latent = weights_.project("q_a", x);
      reference::rms_normalise(latent, s_.q_lora_rank, s_.norm_eps, weights_["q_a_norm"]);
      q = weights_.project("q_b", latent.view());
    }
    for (Index t = 0; s_.rope && t < q.rows; ++t)
      for (Index h = 0; h < s_.num_heads; ++h)
        rotate_head(*s_.rope, static_cast<double>(t), q.row(t) + h * s_.query_dim() + s_.qk_nope_head_dim);
    return q;
  }

  void cached(View<const double> x, reference::Rows& latent, reference::Rows& shared) const {
    const reference::Rows both = weights_.project("kv_a", x);
    for (Index t = 0; t < x.rows; ++t) {
      std::copy_n(both.row(t), s_.kv_lora_rank, latent.row(t));
      std::copy_n(both.row(t) + s_.kv_lora_rank, s_.qk_rope_head_dim, shared.row(t));
      if (s_.rope) rotate_head(*s_.rope, static_cast<double>(t), shared.row(t));
    }
    reference::rms_normalise(latent, s_.kv_lora_rank, s_.norm_eps, weights_["kv_a_norm"]);
    round_cached(s_.cache, latent.data);
    round_cached(s_.cache, shared.data);
  }

  // One row of one head over the keys [nope | shared] and the values of `expanded`. -> out [value_head_dim]
  void attend(const reference::Rows& q, const reference::Rows& expanded, const reference::Rows& shared,
              Index i, Index h, double* out) const {
    const Index nope = s_.qk_nope_head_dim, head = h * (nope + s_.value_head_dim);
    const double* query = q.row(i) + h * s_.query_dim();
    std::vector<double> logits;
    for (Index j = 0; j <= i; ++j) {
      const double plain = std::inner_product(query, query + nope, expanded.row(j) + head, 0.0);
      const double turned = std::inner_product(query + nope, query + s_.query_dim(), shared.row(j), 0.0);
      logits.push_back(s_.scale * (plain + turned));
    }
    const double greatest = *std::max_element(logits.begin(), logits.end());
    double mass = 0;
    for (Index j = 0; j <= i; ++j) {
      const double weight = std::exp(logits[static_cast<std::size_t>(j)] - greatest);
      mass += weight;
      for (Index c = 0; c < s_.value_head_dim; ++c) out[c] += weight * expanded(j, head + nope + c);
    }
    for (Index c = 0; c < s_.value_head_dim; ++c) out[c] /= mass;
  }

  Settings s_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_latent_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<LatentAttentionTwin>(read_latent_attention(config), parameters);
}

}  // namespace plait
