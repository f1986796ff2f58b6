#include "layers/reference/based.h"

#include <cmath>

namespace plait {

FeatureAttentionSettings read_based(Config& config) {
  FeatureAttentionSettings s;
  read_feature_heads(config, s);
  read_narrow_keys(config, s);
  s.eps = config.number_or("eps", 1e-12, "added to the sum of the weights; UNCONFIRMED", 0);
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

namespace {

class BasedTwin final : public FeatureAttentionTwin {
 public:
  BasedTwin(const FeatureAttentionSettings& settings, const Parameters& parameters)
      : FeatureAttentionTwin(settings, parameters), d_(settings.head_dim) {}

 private:
  // 1, x / d^(1/4), vec(x x^T) / sqrt(2 d): the layout of the paper, each product twice.
  Rows features(Side, Rows x) const override {
    const double d = static_cast<double>(d_);
    return each_head(x, d_, 1 + d_ + d_ * d_, [&](const double* from, double* y, Index) {
      *y++ = 1;
      for (Index i = 0; i < d_; ++i) *y++ = from[i] / std::pow(d, 0.25);
      for (Index i = 0; i < d_; ++i)
        for (Index j = 0; j < d_; ++j) *y++ = from[i] * from[j] / std::sqrt(2 * d);
    });
  }

  Index d_;
};

}  // namespace

std::shared_ptr<Twin> make_based_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<BasedTwin>(read_based(config), parameters);
}

}  // namespace plait
