#include "tools/probe/head_task.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace plait::probe {
namespace {

constexpr Index kBatch = 256;
constexpr double kRate = 2, kStart = 0.1;

struct Draw {
  std::vector<double> chi;  // [F, L]
  Index location = 0, spike = 0;
};

Draw draw(const HeadTask& task, Source& source) {
  Draw d;
  d.location = source.below(task.tokens);
  d.spike = source.below(task.spikes);
  for (Index f = 0; f < task.spikes; ++f)
    for (Index l = 0; l < task.tokens; ++l)
      d.chi.push_back(source.normal() + (f == d.spike && l == d.location ? std::sqrt(task.nu) : 0));
  return d;
}

ProjectionSettings shape_of(Index heads) {
  ProjectionSettings shape;
  shape.num_heads = shape.num_kv_heads = heads;
  return shape;
}

// The weights of heads by the twins of softmax_attention's options.
class HeadWeights {
 public:
  HeadWeights(const HeadTask& task, const Heads& heads)
      : task_(task), heads_(heads), own_(make_twin(NormaliserOption(heads.normaliser), Parameters{})) {
    const std::vector<float> zeros(static_cast<std::size_t>(heads.count));
    joint_ = make_mix_twin(BayesSoftmax{}, shape_of(heads.count),
                           Parameters({{"head_bias", make_tensor({heads.count}, zeros)}}));
    for (Index l = 0; l < task.tokens; ++l) row_.keys.push_back(l);
  }

  struct Rows {
    std::vector<double> own;     // each head's weights [H, L]
    std::vector<double> share;   // [H], of the heads in the sum
    std::vector<double> tokens;  // w [L]
  };
  Rows operator()(const Draw& draw) const {
    Rows rows;
    std::vector<double> lse;
    for (Index h = 0; h < heads_.count; ++h) {
      const std::vector<double> s = logits(draw, h), w = own_->weights(row_, s);
      rows.own.insert(rows.own.end(), w.begin(), w.end());
      lse.push_back(log_sum_exp(s));
    }
    rows.tokens.resize(row_.keys.size());
    if (heads_.readout == HeadReadout::joint) {
      joint_->mix(0, {}, rows.own.data(), lse.data(), task_.tokens, rows.tokens.data());
      const double all = log_sum_exp(lse);
      for (const double x : lse) rows.share.push_back(std::exp(x - all));
      return rows;
    }
    rows.share.assign(static_cast<std::size_t>(heads_.count), 1 / static_cast<double>(heads_.count));
    for (std::size_t i = 0; i < rows.own.size(); ++i)
      rows.tokens[i % rows.tokens.size()] += rows.own[i] / static_cast<double>(heads_.count);
    return rows;
  }

 private:
  std::vector<double> logits(const Draw& draw, Index h) const {
    const double bias = heads_.readout == HeadReadout::joint ? heads_.bias[static_cast<std::size_t>(h)] : 0;
    std::vector<double> s(row_.keys.size(), bias);
    for (Index f = 0; f < task_.spikes; ++f)
      for (Index l = 0; l < task_.tokens; ++l)
        s[static_cast<std::size_t>(l)] += heads_.overlap[static_cast<std::size_t>(h * task_.spikes + f)] *
                                          draw.chi[static_cast<std::size_t>(f * task_.tokens + l)];
    return s;
  }

  const HeadTask& task_;
  const Heads& heads_;
  std::unique_ptr<NormaliserTwin> own_;
  std::unique_ptr<HeadMixTwin> joint_;
  TwinRow row_;
};

double loss_of(const std::vector<double>& w, Index location) {
  double sum = 0;
  for (std::size_t l = 0; l < w.size(); ++l) {
    const double off = w[l] - (static_cast<Index>(l) == location ? 1 : 0);
    sum += off * off;
  }
  return sum;
}

// Adds the gradient of one draw's loss to d_overlap [H, F] and d_bias [H]. Each head's weights are
// w_hl = e^(s_hl) / (c + sum e^s), so dw_hl / ds_hl' = w_hl (1[l = l'] - w_hl') with a sink c or without; in
// the joint softmax the same holds of share_h w_hl over all heads together.
void add_gradient(const HeadTask& task, const Heads& heads, const Draw& draw, const HeadWeights::Rows& rows,
                  std::vector<double>& d_overlap, std::vector<double>& d_bias) {
  const auto width = static_cast<std::size_t>(task.tokens);
  std::vector<double> g(width);  // dloss / dw
  for (std::size_t l = 0; l < width; ++l)
    g[l] = 2 * (rows.tokens[l] - (static_cast<Index>(l) == draw.location ? 1 : 0));
  const double joint = std::inner_product(g.begin(), g.end(), rows.tokens.begin(), 0.0);
  for (std::size_t h = 0; h < rows.share.size(); ++h) {
    const double* w = rows.own.data() + h * width;
    const double mean =
        heads.readout == HeadReadout::joint ? joint : std::inner_product(g.begin(), g.end(), w, 0.0);
    for (std::size_t l = 0; l < width; ++l) {
      const double ds = rows.share[h] * w[l] * (g[l] - mean);
      d_bias[h] += ds;
      for (Index f = 0; f < task.spikes; ++f)
        d_overlap[h * static_cast<std::size_t>(task.spikes) + static_cast<std::size_t>(f)] +=
            ds * draw.chi[static_cast<std::size_t>(f) * width + l];
    }
  }
}

Heads without(const HeadTask& task, Heads heads, Index gone) {
  const auto from = heads.overlap.begin() + gone * task.spikes;
  heads.overlap.erase(from, from + task.spikes);
  if (!heads.bias.empty()) heads.bias.erase(heads.bias.begin() + gone);
  --heads.count;
  return heads;
}

}  // namespace

Heads ideal_heads(const HeadTask& task, HeadReadout readout) {
  Heads heads{readout, {}, task.spikes, {}, {}};
  for (Index h = 0; h < task.spikes; ++h)
    for (Index f = 0; f < task.spikes; ++f) heads.overlap.push_back(h == f ? std::sqrt(task.nu) : 0);
  if (readout == HeadReadout::joint) heads.bias.assign(static_cast<std::size_t>(task.spikes), 0);
  return heads;
}

Heads train_heads(const HeadTask& task, HeadReadout readout, const Softmax& normaliser, Index count,
                  Index steps, std::uint64_t seed, const std::function<void(double)>& progress) {
  Heads heads{readout, normaliser, count, {}, {}};
  Source start(seed, ~std::uint64_t{0});  // no draw of the batches
  for (Index i = 0; i < count * task.spikes; ++i) heads.overlap.push_back(kStart * start.normal());
  if (readout == HeadReadout::joint) heads.bias.assign(static_cast<std::size_t>(count), 0);
  for (Index step = 0; step < steps; ++step) {
    std::vector<double> d_overlap(heads.overlap.size()), d_bias(static_cast<std::size_t>(count));
    const HeadWeights weights(task, heads);
    for (Index i = 0; i < kBatch; ++i) {
      Source source(seed, static_cast<std::uint64_t>(step * kBatch + i));
      const Draw d = draw(task, source);
      add_gradient(task, heads, d, weights(d), d_overlap, d_bias);
    }
    const double rate = kRate * (1 - static_cast<double>(step) / static_cast<double>(steps)) / kBatch;
    for (std::size_t i = 0; i < heads.overlap.size(); ++i) heads.overlap[i] -= rate * d_overlap[i];
    for (std::size_t h = 0; h < heads.bias.size(); ++h) heads.bias[h] -= rate * d_bias[h];
    if (progress) progress(static_cast<double>(step + 1) / static_cast<double>(steps));
  }
  return heads;
}

Estimate head_loss(const HeadTask& task, const Heads& heads, const Sampling& sampling) {
  const HeadWeights weights(task, heads);
  return average(sampling, 1, [&](Source& source, double* values) {
    const Draw d = draw(task, source);
    values[0] = loss_of(weights(d).tokens, d.location);
  })[0];
}

Specialisation specialisation(const HeadTask& task, const Heads& heads, const Sampling& sampling) {
  std::vector<Index> own;  // of each head
  for (Index h = 0; h < heads.count; ++h) {
    const auto first = heads.overlap.begin() + h * task.spikes;
    own.push_back(std::max_element(first, first + task.spikes) - first);
  }
  const HeadWeights weights(task, heads);
  const std::vector<Estimate> both = average(sampling, 2, [&](Source& source, double* values) {
    const Draw d = draw(task, source);
    const HeadWeights::Rows rows = weights(d);
    values[0] = values[1] = 0;
    for (Index h = 0; h < heads.count; ++h)
      for (Index l = 0; l < task.tokens; ++l) {
        const double w =
            rows.share[static_cast<std::size_t>(h)] * rows.own[static_cast<std::size_t>(h * task.tokens + l)];
        const bool aligned = own[static_cast<std::size_t>(h)] == d.spike, relevant = l == d.location;
        if (aligned && relevant) values[0] += w;
        if (!aligned && !relevant) values[1] += w * w;
      }
  });
  return {both[0], both[1]};
}

Pruned prune_heads(const HeadTask& task, const Heads& heads, const Sampling& sampling) {
  Pruned pruned;
  Heads kept = heads;
  std::vector<Index> names(static_cast<std::size_t>(heads.count));
  std::iota(names.begin(), names.end(), Index{0});
  pruned.loss.push_back(head_loss(task, kept, sampling));
  while (kept.count > 1) {
    Index cheapest = 0;
    Estimate least;
    for (Index h = 0; h < kept.count; ++h) {
      const Estimate loss = head_loss(task, without(task, kept, h), sampling);
      if (h > 0 && !(loss.mean() < least.mean())) continue;
      least = loss;
      cheapest = h;
    }
    pruned.order.push_back(names[static_cast<std::size_t>(cheapest)]);
    pruned.loss.push_back(least);
    names.erase(names.begin() + cheapest);
    kept = without(task, std::move(kept), cheapest);
  }
  pruned.order.push_back(names[0]);
  return pruned;
}

}  // namespace plait::probe
