#include "layers/attention/structured_qk.h"

#include <algorithm>

#include "runtime/base/arena.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

// Where the products of level `level` go: column (block, head, component) to a head's (component, block).
std::vector<Index> level_places(Index blocks, Index heads, Index rank, Index first, Index head_dim) {
  std::vector<Index> places;
  for (Index block = 0; block < blocks; ++block)
    for (Index h = 0; h < heads; ++h)
      for (Index r = 0; r < rank; ++r) places.push_back(h * head_dim + first + r * blocks + block);
  return places;
}

}  // namespace

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
    queries_.push_back({BlockLinear(parameters.tensor("q_" + number)),
                        level_places(blocks, heads_, ranks[l], first, head_dim_)});
    keys_.push_back({BlockLinear(parameters.tensor("k_" + number)),
                     level_places(blocks, settings.num_kv_heads, ranks[l], first, head_dim_)});
    first += blocks * ranks[l];
  }
}

void StructuredQk::add_train(const BlockTrainKeys& train, const Parameters& parameters) {
  const Index a = train.a, b = train.b, rank = train.rank;
  Step first{BlockLinear(parameters.tensor("btt_k")), {}},
      second{BlockLinear(parameters.tensor("btt_q")), {}};
  for (Index block = 0; block < a; ++block)
    for (Index i = 0; i < heads_ * b; ++i)
      for (Index r = 0; r < rank; ++r) first.places.push_back((i * a + block) * rank + r);
  for (Index h = 0; h < heads_; ++h)
    for (Index beta = 0; beta < b; ++beta)
      for (Index alpha = 0; alpha < a; ++alpha) second.places.push_back(h * head_dim_ + alpha * b + beta);
  keys_.push_back(std::move(first));
  keys_.push_back(std::move(second));
}

void StructuredQk::run(const Step& step, View<const float> x, View<float> y, const Compute& compute) {
  Arena::Scope scope(scratch());
  const View<float> product = scope.rows(x.rows, step.product.out());
  step.product.run(x, product, compute);
  for_each_row(0, x.rows, compute.threads, [&](Index r) {
    for (Index c = 0; c < product.cols; ++c) y(r, step.places[static_cast<std::size_t>(c)]) = product(r, c);
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
  Arena::Scope scope(scratch());
  const View<float> between = scope.rows(x.rows, keys_[0].product.out());
  run(keys_[0], x, between, compute);
  run(keys_[1], between, k, compute);
}

}  // namespace plait
