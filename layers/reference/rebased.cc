#include "layers/reference/rebased.h"

#include <cmath>

namespace plait {

RebasedSettings read_rebased(Config& config) {
  RebasedSettings s;
  read_feature_heads(config, s);
  read_narrow_keys(config, s);
  s.qk_norm = static_cast<RebasedSettings::QkNorm>(
      config.choice("qk_norm", {"layer_wide", "per_head_shared", "none", "scale", "scale_and_shift"},
                    "layer norm of queries and of keys over all heads, one that every head shares, none, or "
                    "gains without a norm, with biases or not; which a checkpoint has is UNCONFIRMED"));
  if (s.normalises_queries())
    s.qk_norm_eps = config.number_or("qk_norm_eps", s.qk_norm_eps, "of that norm", 0);
  s.eps = config.number_or("eps", 1e-12, "added to the sum of the weights; UNCONFIRMED", 0);
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

std::vector<TensorSpec> rebased_tensors(const RebasedSettings& s) {
  std::vector<TensorSpec> specs = feature_attention_tensors(s);
  const auto norm = [&](const std::string& name, Index width, const char* text) {
    specs.push_back({name, {width}, Init::around_one, text});
    if (s.qk_norm != RebasedSettings::QkNorm::scale)
      specs.push_back({name + "_bias", {width}, Init::small, text});
  };
  if (s.qk_norm == RebasedSettings::QkNorm::per_head_shared) {
    norm("qk_norm", s.head_dim, "[head_dim]");
  } else if (s.qk_norm != RebasedSettings::QkNorm::none) {
    norm("q_norm", s.num_heads * s.head_dim, "[num_heads * head_dim]");
    norm("k_norm", s.num_kv_heads * s.head_dim, "[num_kv_heads * head_dim]");
  }
  return specs;
}

namespace {

class RebasedTwin final : public FeatureAttentionTwin {
 public:
  RebasedTwin(const RebasedSettings& settings, const Parameters& parameters)
      : FeatureAttentionTwin(settings, parameters), s_(settings) {}

 private:
  // vec(x x^T) / sqrt d
  Rows features(Side side, Rows x) const override {
    const Index d = s_.head_dim;
    const std::string name = side == Side::query ? "q_norm" : "k_norm";
    if (s_.qk_norm == RebasedSettings::QkNorm::layer_wide) normalise(x, x.cols, name);
    if (s_.qk_norm == RebasedSettings::QkNorm::per_head_shared) normalise(x, d, "qk_norm");
    const bool shifts = s_.qk_norm == RebasedSettings::QkNorm::scale_and_shift;
    if (shifts || s_.qk_norm == RebasedSettings::QkNorm::scale)
      for (Index t = 0; t < x.rows; ++t)
        for (Index c = 0; c < x.cols; ++c)
          x(t, c) = x(t, c) * weights_.at(name, c) + (shifts ? weights_.at(name + "_bias", c) : 0);
    return each_head(x, d, d * d, [&](const double* from, double* y, Index) {
      for (Index i = 0; i < d; ++i)
        for (Index j = 0; j < d; ++j) *y++ = from[i] * from[j] / std::sqrt(static_cast<double>(d));
    });
  }
  void normalise(Rows& x, Index width, const std::string& name) const {
    reference::layer_normalise(x, width, s_.qk_norm_eps, weights_[name], weights_[name + "_bias"]);
  }

  RebasedSettings s_;
};

}  // namespace

std::shared_ptr<Twin> make_rebased_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<RebasedTwin>(read_rebased(config), parameters);
}

}  // namespace plait
