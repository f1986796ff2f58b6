#include "layers/reference/embedding.h"

namespace plait {

EmbeddingSettings read_embedding(Config& config) {
  EmbeddingSettings s;
  s.vocab = config.surroundings().vocab;
  s.width = config.surroundings().model_width;
  s.multiplier = config.number_or("multiplier", s.multiplier, "factor on every embedding");
  config.finish();
  return s;
}

std::vector<TensorSpec> embedding_tensors(const EmbeddingSettings& s) {
  return {{"weight", {s.vocab, s.width}, Init::embedding, "[vocab, width]", true}};
}

namespace {

class EmbeddingTwin final : public Twin {
 public:
  EmbeddingTwin(const EmbeddingSettings& settings, const Parameters& parameters)
      : settings_(settings), weight_(to_double(parameters.tensor("weight"))) {}

  void run(std::span<const View<const double>>, std::span<const Token> tokens,
           View<double> output) const override {
    for (Index t = 0; t < output.rows; ++t)
      for (Index c = 0; c < settings_.width; ++c)
        output(t, c) =
            settings_.multiplier *
            weight_[static_cast<std::size_t>(tokens[static_cast<std::size_t>(t)] * settings_.width + c)];
  }

 private:
  EmbeddingSettings settings_;
  std::vector<double> weight_;  // [vocab, width]
};

}  // namespace

std::shared_ptr<Twin> make_embedding_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<EmbeddingTwin>(read_embedding(config), parameters);
}

}  // namespace plait
