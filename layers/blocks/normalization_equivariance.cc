#include "layers/blocks/normalization_equivariance.h"

#include <cmath>

#include "layers/reference/normalization_equivariance.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

using Form = NormalizationEquivarianceSettings::Form;

// Of all values of a signal. `size`: deviation, or root mean square under scale_only.
struct Moments {
  float mean = 0, size = 0;
};

class NormalizationEquivariance final : public Layer {
 public:
  explicit NormalizationEquivariance(const NormalizationEquivarianceSettings& settings) : s_(settings) {}

  Signature signature() const override { return {std::vector<Index>(s_.closes ? 2 : 1, s_.width), s_.width}; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Kernels& k = kernels(context.compute);
    for (const Segment& segment : segments) {
      const Moments moments = moments_of(ports.input().slice_rows(segment.first_row, segment.rows), k);
      for_each_row(segment.first_row, segment.rows, context.compute.threads, [&](Index r) {
        const float* y = ports.input().row(r);
        if (s_.closes)
          close(moments, y, ports.inputs[1].row(r), ports.output.row(r), k);
        else
          open(moments, y, ports.output.row(r), k);
      });
    }
  }

 private:
  // Rows are summed in f32, their sums in f64, in the order of the tokens.
  Moments moments_of(View<const float> y, const Kernels& k) const {
    Arena::Scope scope(scratch());
    float* centred = scope.take(s_.width);
    const double count = static_cast<double>(y.rows * s_.width);
    double sum = 0, squares = 0;
    for (Index r = 0; r < y.rows && s_.form != Form::scale_only; ++r)
      sum += static_cast<double>(k.sum(y.row(r), s_.width));
    const auto mean = static_cast<float>(sum / count);
    for (Index r = 0; r < y.rows; ++r) {
      k.add_scalar(y.row(r), -mean, centred, s_.width);
      squares += static_cast<double>(k.sum_squares(centred, s_.width));
    }
    const double terms = s_.form == Form::scale_only ? count : count - 1;
    return {mean, terms > 0 ? static_cast<float>(std::sqrt(squares / terms)) : 0.0f};
  }

  // A constant signal has no deviation: the network sees zeros.
  void open(const Moments& moments, const float* y, float* out, const Kernels& k) const {
    k.add_scalar(y, -moments.mean, out, s_.width);
    const float size =
        s_.form == Form::scale_only ? moments.size + static_cast<float>(kScaleOnlyEps) : moments.size;
    k.scale(out, size > 0 ? 1 / size : 0.0f, out, s_.width);
  }

  void close(const Moments& moments, const float* y, const float* network, float* out,
             const Kernels& k) const {
    if (s_.form == Form::residual) {
      std::copy_n(y, s_.width, out);
      k.add_scaled(-moments.size, network, out, s_.width);
    } else {
      k.scale(network, moments.size, out, s_.width);
      if (s_.form == Form::direct) k.add_scalar(out, moments.mean, out, s_.width);
    }
  }

  NormalizationEquivarianceSettings s_;
};

}  // namespace

Kind normalization_equivariance_kind() {
  Kind kind;
  kind.key = "normalization_equivariance";
  kind.group = "norm";
  kind.summary = "a pair around a network that follows shifts and scales of the whole signal; encoders only";
  kind.source = "arXiv 2605.08193 (WNE)";
  kind.graphs = Kind::Graphs::encoder;
  kind.examples = {"{}", R"({"form": "residual"})", R"({"form": "scale_only"})"};
  kind.tensors = [](Config& config) {
    read_normalization_equivariance(config);
    return std::vector<TensorSpec>();
  };
  kind.make = [](Config& config, const Parameters&) -> std::unique_ptr<Layer> {
    return std::make_unique<NormalizationEquivariance>(read_normalization_equivariance(config));
  };
  kind.twin = make_normalization_equivariance_twin;
  return kind;
}

}  // namespace plait
