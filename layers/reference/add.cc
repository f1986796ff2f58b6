#include "layers/reference/add.h"

namespace plait {

AddSettings read_add(Config& config) {
  AddSettings s;
  s.width = config.width();
  const auto inputs = static_cast<std::size_t>(config.surroundings().inputs);
  s.scales = config.numbers_or("scales", std::vector<double>(inputs, 1.0),
                               "one factor per input port, in port order");
  if (s.scales.size() != inputs)
    config.refuse("setting 'scales' has ", s.scales.size(), " factors, but the node has ", inputs, " inputs");
  config.finish();
  return s;
}

std::vector<TensorSpec> add_tensors(const AddSettings&) { return {}; }

namespace {

class AddTwin final : public Twin {
 public:
  explicit AddTwin(AddSettings settings) : settings_(std::move(settings)) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    for (Index t = 0; t < output.rows; ++t)
      for (Index c = 0; c < output.cols; ++c) {
        double sum = 0;
        for (std::size_t i = 0; i < inputs.size(); ++i) sum += settings_.scales[i] * inputs[i](t, c);
        output(t, c) = sum;
      }
  }

 private:
  AddSettings settings_;
};

}  // namespace

std::shared_ptr<Twin> make_add_twin(Config& config, const Parameters&) {
  return std::make_shared<AddTwin>(read_add(config));
}

}  // namespace plait
