#include "layers/blocks/short_convolution.h"

#include <array>

#include "layers/reference/short_convolution.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/convolution.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr Index kInputs = 0;  // the field of input rows

Convolution make_convolution(const ShortConvolutionSettings& settings, const Parameters& parameters) {
  const bool silu = settings.activation == ShortConvolutionSettings::Activation::silu;
  return Convolution(settings.kernel, parameters.vector("weight"),
                     settings.bias ? parameters.vector("bias") : std::span<const float>(),
                     silu ? Convolution::Activation::silu : Convolution::Activation::none);
}

Convolution::Mode mode_of(const Segment& segment) {
  if (const Edit* edit = segment.edit(Site::conv, Operator::identity))
    return edit->drop_activation ? Convolution::Mode::bypass : Convolution::Mode::identity;
  if (segment.edit(Site::conv, Operator::current_tap)) return Convolution::Mode::current_tap;
  return Convolution::Mode::normal;
}

class ShortConvolution final : public Layer {
 public:
  ShortConvolution(const ShortConvolutionSettings& settings, const Parameters& parameters)
      : convolution_(make_convolution(settings, parameters)) {
    fields_[kInputs].name = "conv";
    fields_[kInputs].kind = Field::Kind::log;
    fields_[kInputs].shape = {settings.width};
    fields_[kInputs].window = settings.kernel;
  }

  Signature signature() const override { return {{convolution_.channels()}, convolution_.channels()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    for (const Segment& segment : segments) {
      const View<const float> x = ports.input().slice_rows(segment.first_row, segment.rows);
      const View<float> y = ports.output.slice_rows(segment.first_row, segment.rows);
      Log& inputs = segment.state->log(kInputs);
      Arena::Scope scope(scratch());
      const auto count = static_cast<std::size_t>(convolution_.kernel() - 1);
      const std::span<const float*> history(scope.take<const float*>(convolution_.kernel() - 1), count);
      gather_history(inputs, segment.position, history);
      convolution_.run(x, history, y, mode_of(segment), context.compute);
      inputs.append_passed(segment.position, x);
    }
  }

 private:
  Convolution convolution_;
  std::array<Field, 1> fields_;
  std::vector<SiteSpec> sites_ = {{Site::conv, {Operator::identity, Operator::current_tap}}};
};

}  // namespace

Kind short_convolution_kind() {
  Kind kind;
  kind.key = "short_convolution";
  kind.group = "other";
  kind.summary = "depthwise causal convolution over the last few tokens";
  kind.source = "Fu et al., arXiv 2212.14052, section 3.1 (shift); Gu and Dao, arXiv 2312.00752, section 3.4";
  kind.examples = {"{}", R"({"kernel": 3, "bias": true, "activation": "silu"})", R"({"kernel": 1})"};
  kind.tensors = [](Config& config) { return short_convolution_tensors(read_short_convolution(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<ShortConvolution>(read_short_convolution(config), parameters);
  };
  kind.twin = make_short_convolution_twin;
  return kind;
}

}  // namespace plait
