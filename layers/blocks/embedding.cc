#include "layers/blocks/embedding.h"

#include "layers/reference/embedding.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class Embedding final : public Layer {
 public:
  Embedding(const EmbeddingSettings& settings, const Parameters& parameters)
      : weight_(parameters.tensor("weight")), multiplier_(static_cast<float>(settings.multiplier)) {}

  Signature signature() const override { return {{}, weight_.in()}; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    for_each_block(segments, [&](Index first, Index rows) {
      for (Index r = first; r < first + rows; ++r)
        weight_.row(ports.tokens[static_cast<std::size_t>(r)], ports.output.row(r));
      const View<float> y = ports.output.slice_rows(first, rows);
      if (multiplier_ != 1) scale_rows(y, multiplier_, y, context.compute);
    });
  }

 private:
  Linear weight_;
  float multiplier_;
};

}  // namespace

Kind embedding_kind() {
  Kind kind;
  kind.key = "embedding";
  kind.group = "embedding";
  kind.summary = "a row of the embedding matrix per token, times a constant";
  kind.source = "Bengio et al., A Neural Probabilistic Language Model, JMLR 3 (2003)";
  kind.examples = {"{}", R"({"multiplier": 8})"};
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return embedding_tensors(read_embedding(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<Embedding>(read_embedding(config), parameters);
  };
  kind.twin = make_embedding_twin;
  return kind;
}

}  // namespace plait
