#include "layers/attention/structured_qk.h"

#include <algorithm>

#include "runtime/base/arena.h"
#include "runtime/run/rows.h"

namespace plait {

// Rows of a block train at a time, so that what lies between its products stays in a core's cache.
constexpr Index kTrainRows = 64;

BlockLinear::BlockLinear(const Tensor& weight) {
  const std::vector<float> values = to_float(weight);
  const Index out = weight.shape[1], in = weight.shape[2];
  for (Index b = 0; b < weight.shape[0]; ++b)
    blocks_.emplace_back(
        make_tensor({out, in}, {values.data() + b * out * in, static_cast<std::size_t>(out * in)}));
}

void BlockLinear::run(View<const float> x, View<float> y, const Compute& compute) const {
  for (Index b = 0; b < static_cast<Index>(blocks_.size()); ++b) {
    const Linear& block = blocks_[static_cast<std::size_t>(b)];
    block.run(x.slice_cols(b * block.in(), block.in()), y.slice_cols(b * block.out(), block.out()), compute);
  }
}

StructuredQk::StructuredQk(const ProjectionSettings& settings, const Parameters& parameters)
    : heads_(settings.num_heads), head_dim_(settings.head_dim), train_(settings.queries_are_inputs()) {
  if (const auto* train = std::get_if<BlockTrainKeys>(&settings.structure)) {
    add_train(*train, parameters);
    return;
  }
  Index first = 0;
  const std::vector<Index>& ranks = std::get<MultiLevelQk>(settings.structure).ranks;
  for (std::size_t l = 0; l < ranks.size(); ++l) {
    if (ranks[l] == 0) continue;
    const Index blocks = Index{1} << l;
    const std::string number = std::to_string(l);
    // (block, head, component) to a head's (component, block)
    const auto step = [&](const std::string& tensor, Index heads) {
      const std::array<Spread, 3> columns{{{blocks, 1}, {heads, head_dim_}, {ranks[l], blocks}}};
      return Step{BlockLinear(parameters.tensor(tensor + number)), columns, first};
    };
    queries_.push_back(step("q_", heads_));
    keys_.push_back(step("k_", settings.num_kv_heads));
    first += blocks * ranks[l];
  }
}

void StructuredQk::add_train(const BlockTrainKeys& train, const Parameters& parameters) {
  const Index a = train.a, b = train.b, rank = train.rank;
  // (c, (h, beta), r) to ((h, beta), c, r), then (h, beta, alpha) to (h, alpha, beta)
  keys_.push_back(
      {BlockLinear(parameters.tensor("btt_k")), {{{a, rank}, {heads_ * b, a * rank}, {rank, 1}}}, 0});
  keys_.push_back({BlockLinear(parameters.tensor("btt_q")), {{{heads_, head_dim_}, {b, 1}, {a, b}}}, 0});
}

void StructuredQk::run(const Step& step, View<const float> x, View<float> y, const Compute& compute) {
  Arena::Scope scope(scratch());
  const View<float> product = scope.rows(x.rows, step.product.out());
  step.product.run(x, product, compute);
  for_each_row(0, x.rows, compute.threads, [&](Index r) {
    const float* from = product.row(r);
    const auto& [slow, middle, fast] = step.columns;
    for (Index s = 0; s < slow.count; ++s)
      for (Index m = 0; m < middle.count; ++m) {
        float* to = y.row(r) + step.first + s * slow.stride + m * middle.stride;
        for (Index f = 0; f < fast.count; ++f) to[f * fast.stride] = *from++;
      }
  });
}

void StructuredQk::queries(View<const float> x, View<float> q, const Compute& compute) const {
  for (const Step& level : queries_) run(level, x, q, compute);
  if (!train_) return;
  for (Index r = 0; r < x.rows; ++r)
    for (Index h = 0; h < heads_; ++h) std::copy_n(x.row(r), head_dim_, q.row(r) + h * head_dim_);
}

void StructuredQk::keys(View<const float> x, View<float> k, const Compute& compute) const {
  if (!train_) {
    for (const Step& level : keys_) run(level, x, k, compute);
    return;
  }
  for (Index begin = 0; begin < x.rows; begin += kTrainRows) {
    const Index rows = std::min(kTrainRows, x.rows - begin);
    Arena::Scope scope(scratch());
    const View<float> between = scope.rows(rows, keys_[0].product.out());
    run(keys_[0], x.slice_rows(begin, rows), between, compute);
    run(keys_[1], between, k.slice_rows(begin, rows), compute);
  }
}

}  // namespace plait
