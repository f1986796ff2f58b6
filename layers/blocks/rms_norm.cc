#include "layers/blocks/rms_norm.h"

#include "layers/blocks/norm_scale.h"
#include "layers/reference/rms_norm.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class RmsNorm final : public Layer, public NormScale {
 public:
  RmsNorm(const RmsNormSettings& settings, const Parameters& parameters)
      : eps_(static_cast<float>(settings.eps)), gain_(to_float(parameters.tensor("weight"))) {
    if (settings.form == RmsNormSettings::Form::one_plus)
      for (float& gain : gain_) gain = 1 + gain;
  }

  Signature signature() const override { return {{width()}, width()}; }
  std::span<const SiteSpec> sites() const override { return norm_sites(); }
  float scale(const float* row, const Kernels& k) const override { return rms_scale(k, row, width(), eps_); }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Kernels& k = kernels(context.compute);
    for_each_frozen(*this, ports, segments, k, [&](Index row, float factor) {
      k.scale(ports.input().row(row), factor, ports.output.row(row), width());
      k.multiply(ports.output.row(row), gain_.data(), ports.output.row(row), width());
    });
    for_each_block(not_frozen(segments), [&](Index first, Index rows) {
      rms_norm(ports.input().slice_rows(first, rows), width(), eps_, gain_,
               ports.output.slice_rows(first, rows), context.compute);
    });
  }

 private:
  Index width() const { return static_cast<Index>(gain_.size()); }
  float eps_;
  std::vector<float> gain_;
};

}  // namespace

Kind rms_norm_kind() {
  Kind kind;
  kind.key = "rms_norm";
  kind.group = "norm";
  kind.summary = "root-mean-square norm over the row, gain w or 1 + w";
  kind.source = "Zhang and Sennrich, arXiv 1910.07467, equation 4";
  kind.examples = {"{}", R"({"eps": 1e-5, "form": "one_plus"})"};
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return rms_norm_tensors(read_rms_norm(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<RmsNorm>(read_rms_norm(config), parameters);
  };
  kind.twin = make_rms_norm_twin;
  return kind;
}

}  // namespace plait
