#include "layers/recurrent/ttt_linear.h"

#include <algorithm>
#include <optional>

#include "layers/recurrent/inner_optimiser.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/ttt_linear.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rotary.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

InnerOptimiser::Settings inner_of(const TttLinearSettings& s, const Parameters& parameters) {
  InnerOptimiser::Settings inner;
  inner.heads = s.num_heads;
  inner.width = s.head_dim;
  inner.mini_batch = s.mini_batch;
  inner.eps = static_cast<float>(s.ln_eps);
  inner.gain = to_float(parameters.tensor("ln_weight"));
  inner.bias = to_float(parameters.tensor("ln_bias"));
  inner.token_factors = to_float(parameters.tensor("token_idx"));
  inner.w0 = to_float(parameters.tensor("w0"));
  inner.b0 = to_float(parameters.tensor("b0"));
  float place = 0;
  for (float& factor : inner.token_factors) factor = std::max(1 / ++place + factor, 0.0f);
  return inner;
}

class TttLinear final : public Layer {
 public:
  TttLinear(const TttLinearSettings& settings, const Parameters& parameters)
      : s_(settings),
        q_(parameters.tensor("q")),
        v_(parameters.tensor("v")),
        rate_(parameters.tensor("lr")),
        output_(parameters.tensor("o")),
        gate_(parameters, settings.gate, settings.num_heads),
        rate_bias_(to_float(parameters.tensor("lr_bias"))),
        gain_(to_float(parameters.tensor("ln_weight"))),
        bias_(to_float(parameters.tensor("ln_bias"))),
        post_gain_(to_float(parameters.tensor("post_norm_weight"))),
        post_bias_(to_float(parameters.tensor("post_norm_bias"))),
        core_(inner_of(settings, parameters), settings.conv > 0 ? 1 : 0) {
    const Index heads = s_.num_heads, width = s_.head_dim;
    sites_ = {write_site(heads), state_site(heads, Every::chunk), head_site(heads, width)};
    if (s_.conv > 0) {
      const auto convolution = [&](const std::string& name) {
        return Convolution(s_.conv, parameters.vector(name), parameters.vector(name + "_bias"),
                           Convolution::Activation::none);
      };
      conv_q_ = convolution("conv_q");
      conv_k_ = convolution("conv_k");
      fields_.push_back(convolution_field(s_.inner(), s_.conv));
      sites_.push_back(conv_site());
    } else {
      k_ = Linear(parameters.tensor("k"));
    }
    if (gate_.on()) sites_.push_back(gate_site(heads, width));
    if (s_.rope_theta != 0)
      rotary_.emplace(rotary_frequencies(s_.rope_theta, s_.head_dim), Rotary::Layout::interleaved);
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
  }

  Signature signature() const override { return {{q_.in()}, output_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    const Kernels& k = kernels(compute);
    Arena::Scope scope(scratch());
    const View<float> xq = scope.rows(x.rows, s_.inner()), xk = scope.rows(x.rows, s_.inner()),
                      target = scope.rows(x.rows, s_.inner()), z = scope.rows(x.rows, s_.inner()),
                      rate = scope.rows(x.rows, s_.num_heads);
    run_inputs(x, xq, xk, segments, compute);
    for (const Segment& segment : segments) rotate(segment, xq, xk, compute);
    for_each_block(segments, [&](Index first, Index rows) {
      const auto block = [&](auto all) { return all.slice_rows(first, rows); };
      v_.run(block(x), block(target), compute);
      zip_rows(k.subtract, block(target), block(xk), block(target), compute);
      run_rates(block(x), block(rate), compute);
    });
    edit_strengths(segments, {s_.num_heads, {}, {}, rate, {}});
    for (const Segment& segment : segments)
      scale_rows(rows_of(segment, rate), 1 / static_cast<float>(s_.head_dim), rows_of(segment, rate),
                 compute);

    core_.run({xq, xk, target, rate, z}, segments, compute);
    run_output(x, xq, z, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  void run_inputs(View<const float> x, View<float> xq, View<float> xk, std::span<const Segment> segments,
                  const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> shared = s_.conv > 0 ? scope.rows(x.rows, s_.inner()) : xq;
    for_each_block(segments, [&](Index first, Index rows) {
      q_.run(x.slice_rows(first, rows), shared.slice_rows(first, rows), compute);
      if (s_.conv == 0) k_.run(x.slice_rows(first, rows), xk.slice_rows(first, rows), compute);
    });
    if (s_.conv > 0) convolve(segments, kConv, shared, {{&conv_q_, xq}, {&conv_k_, xk}}, compute);
  }

  // Positions inside the mini-batch.
  void rotate(const Segment& segment, View<float> xq, View<float> xk, const Compute& compute) const {
    if (!rotary_) return;
    std::vector<Index> positions(static_cast<std::size_t>(segment.rows));
    for (Index i = 0; i < segment.rows; ++i)
      positions[static_cast<std::size_t>(i)] = (segment.position + i) % s_.mini_batch;
    rotary_->apply(rows_of(segment, xq), s_.num_heads, positions, compute);
    rotary_->apply(rows_of(segment, xk), s_.num_heads, positions, compute);
  }

  // base_lr sigmoid(lr x + bias); the division by head_dim comes after the edits.
  void run_rates(View<const float> x, View<float> rate, const Compute& compute) const {
    rate_.run(x, rate, compute);
    add_bias(rate_bias_, rate, compute);
    map_rows(kernels(compute).sigmoid, rate, rate, compute);
    scale_rows(rate, static_cast<float>(s_.base_lr), rate, compute);
  }

  // out = xq + LN(z); y = o_proj(gate * post_norm(out)).
  void run_output(View<const float> x, View<const float> xq, View<float> z, std::span<const Segment> segments,
                  View<float> y, const Compute& compute) const {
    const Kernels& k = kernels(compute);
    clear_heads(segments, Site::state, Operator::zero, s_.num_heads, z);
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = z.slice_rows(first, rows);
      layer_norm(block, s_.head_dim, static_cast<float>(s_.ln_eps), gain_, bias_, block, compute);
    });
    clear_heads(segments, Site::state, Operator::no_read, s_.num_heads, z);
    for_each_block(segments, [&](Index first, Index rows) {
      zip_rows(k.add, xq.slice_rows(first, rows), z.slice_rows(first, rows), z.slice_rows(first, rows),
               compute);
    });
    edit_heads(segments, s_.num_heads, z, HeadEdits::but_scale);
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = z.slice_rows(first, rows);
      layer_norm(block, s_.inner(), static_cast<float>(s_.post_norm_eps), post_gain_, post_bias_, block,
                 compute);
    });
    gate_.apply(x, z, segments, compute);
    scale_heads(segments, s_.num_heads, z, compute);
    for_each_block(segments, [&](Index first, Index rows) {
      output_.run(z.slice_rows(first, rows), y.slice_rows(first, rows), compute);
    });
  }

  TttLinearSettings s_;
  Linear q_, k_, v_, rate_, output_;
  GateColumns gate_;
  std::vector<float> rate_bias_, gain_, bias_, post_gain_, post_bias_;
  Convolution conv_q_, conv_k_;
  std::optional<Rotary> rotary_;
  InnerOptimiser core_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind ttt_linear_kind() {
  Kind kind;
  kind.key = "ttt_linear";
  kind.group = "recurrent";
  kind.summary = "recurrence whose state is a linear model trained on the sequence";
  kind.source = "Sun et al., arXiv 2407.04620, section 2; layout of the authors' PyTorch code";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 2, "head_dim": 24, "mini_batch": 5, "conv": 4, "gate": "gelu_tanh", "base_lr": 0.5})",
      R"({"num_heads": 2, "head_dim": 16, "gate": "sigmoid", "gate_bias": true})",
      R"({"num_heads": 1, "head_dim": 40, "mini_batch": 16, "rope_theta": 0, "base_lr": 0.1})"};
  kind.tensors = [](Config& config) { return ttt_linear_tensors(read_ttt_linear(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<TttLinear>(read_ttt_linear(config), parameters);
  };
  kind.twin = make_ttt_linear_twin;
  return kind;
}

}  // namespace plait
