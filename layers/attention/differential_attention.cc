// readout: differential_attention. o_h = a_2h - lambda a_(2h+1); version 1 norms it
#include <algorithm>
#include <cmath>
#include <optional>

#include "layers/attention/head_mix.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

// o := a_2h + factor a_(2h+1). walked [2 heads * width], o [heads * width]
void subtract(const float* walked, const float* lambdas, Index step, Index heads, Index width, float* o,
              const Kernels& k) {
  for (Index h = 0; h < heads; ++h, walked += 2 * width, o += width) {
    std::copy_n(walked, width, o);
    k.add_scaled(-lambdas[h * step], walked + width, o, width);
  }
}

// One lambda per layer, a norm per head.
class Version1 final : public HeadMix {
 public:
  Version1(const DifferentialAttention& option, const SoftmaxAttentionSettings& settings,
           const Parameters& parameters)
      : heads_(settings.heads_out()),
        width_(settings.projection.value_head_dim),
        eps_(static_cast<float>(option.eps)),
        gain_(to_float(parameters.tensor("head_norm"))) {
    const Kernels& k = kernels();
    const auto exp_dot = [&](const char* a, const char* b) {
      const std::vector<float> x = to_float(parameters.tensor(a)), y = to_float(parameters.tensor(b));
      float dot = k.dot(x.data(), y.data(), static_cast<Index>(x.size()));
      k.exp(&dot, &dot, 1);
      return dot;
    };
    lambda_ = exp_dot("lambda_q1", "lambda_k1") - exp_dot("lambda_q2", "lambda_k2") +
              static_cast<float>(option.lambda_init);
    for (float& g : gain_) g *= static_cast<float>(1 - option.lambda_init);
  }

  void run(View<const float>, std::span<const Segment> segments, View<float> walked, View<float> heads,
           const Compute& compute) const override {
    const Kernels& k = kernels(compute);
    for_each_block(segments, [&](Index first, Index rows) {
      for_each_row(first, rows, compute.threads,
                   [&](Index r) { subtract(walked.row(r), &lambda_, 0, heads_, width_, heads.row(r), k); });
      const View<float> block = heads.slice_rows(first, rows);
      rms_norm(block, width_, eps_, gain_, block, compute);
    });
  }

 private:
  Index heads_, width_;
  float eps_, lambda_ = 0;
  std::vector<float> gain_;  // (1 - lambda_init) times the weight [width]
};

// A lambda per token and head.
class Version2 final : public HeadMix {
 public:
  Version2(const SoftmaxAttentionSettings& settings, const Parameters& parameters)
      : heads_(settings.heads_out()),
        width_(settings.projection.value_head_dim),
        lambda_(parameters.tensor("lambda")) {}

  void run(View<const float> x, std::span<const Segment> segments, View<float> walked, View<float> heads,
           const Compute& compute) const override {
    const Kernels& k = kernels(compute);
    Arena::Scope scope(scratch());
    const View<float> lambdas = scope.rows(x.rows, heads_);
    for_each_block(segments, [&](Index first, Index rows) {
      lambda_.run(x.slice_rows(first, rows), lambdas.slice_rows(first, rows), compute);
      for_each_row(first, rows, compute.threads, [&](Index r) {
        k.sigmoid(lambdas.row(r), lambdas.row(r), heads_);
        subtract(walked.row(r), lambdas.row(r), 1, heads_, width_, heads.row(r), k);
      });
    });
  }

 private:
  Index heads_, width_;
  Linear lambda_;
};

}  // namespace

std::unique_ptr<HeadMix> make_differential_attention(const DifferentialAttention& option,
                                                     const SoftmaxAttentionSettings& settings,
                                                     const Parameters& parameters) {
  if (option.version == 1) return std::make_unique<Version1>(option, settings, parameters);
  return std::make_unique<Version2>(settings, parameters);
}

}  // namespace plait
