#include "layers/blocks/head.h"

#include "layers/reference/head.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class Head final : public Layer {
 public:
  Head(const HeadSettings& settings, const Parameters& parameters)
      : weight_(parameters.tensor("weight")),
        multiplier_(static_cast<float>(settings.multiplier)),
        softcap_(static_cast<float>(settings.softcap)),
        inverse_softcap_(settings.softcap > 0 ? static_cast<float>(1 / settings.softcap) : 0) {}

  Signature signature() const override { return {{weight_.in()}, weight_.out()}; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> y = ports.output.slice_rows(first, rows);
      weight_.run(ports.input().slice_rows(first, rows), y, context.compute);
      if (multiplier_ != 1 || softcap_ > 0)
        for_each_row(0, rows, context.compute.threads,
                     [&](Index r) { finish(y.row(r), kernels(context.compute)); });
    });
  }

 private:
  // y [vocab]
  void finish(float* y, const Kernels& k) const {
    const Index vocab = weight_.out();
    if (multiplier_ != 1) k.scale(y, multiplier_, y, vocab);
    if (softcap_ == 0) return;
    k.scale(y, inverse_softcap_, y, vocab);
    k.tanh(y, y, vocab);
    k.scale(y, softcap_, y, vocab);
  }

  Linear weight_;
  float multiplier_, softcap_, inverse_softcap_;
};

}  // namespace

Kind head_kind() {
  Kind kind;
  kind.key = "head";
  kind.output = Kind::Output::vocab;
  kind.group = "head";
  kind.summary = "logits over the vocabulary, own or tied weight, multiplier and soft cap";
  kind.source = "Press and Wolf, arXiv 1608.05859 (tying); Gemma 2, arXiv 2408.00118, section 2 (soft cap)";
  kind.examples = {"{}", R"({"multiplier": 0.6, "softcap": 2.5})"};
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return head_tensors(read_head(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<Head>(read_head(config), parameters);
  };
  kind.twin = make_head_twin;
  return kind;
}

}  // namespace plait
