#include "tools/probe/monte_carlo.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/base/noise.h"
#include "runtime/base/parallel.h"
#include "runtime/base/random.h"

namespace plait::probe {

double Source::normal() { return normal_draw(seed_, draw_, counter_++); }

double Source::uniform() { return uniform_draw(seed_, draw_, counter_++); }

Index Source::below(Index count) { return static_cast<Index>(uniform() * static_cast<double>(count)); }

void Estimate::add(double x) {
  ++count_;
  const double off = x - mean_;
  mean_ += off / static_cast<double>(count_);
  squares_ += off * (x - mean_);
}

void Estimate::merge(const Estimate& other) {
  if (other.count_ == 0) return;
  const double mine = static_cast<double>(count_), theirs = static_cast<double>(other.count_);
  const double off = other.mean_ - mean_;
  mean_ += off * theirs / (mine + theirs);
  squares_ += other.squares_ + off * off * mine * theirs / (mine + theirs);
  count_ += other.count_;
}

double Estimate::error() const {
  if (count_ < 2) return std::numeric_limits<double>::infinity();
  return std::sqrt(squares_ / static_cast<double>(count_ - 1) / static_cast<double>(count_));
}

std::vector<Estimate> average(const Sampling& sampling, Index quantities, const Body& body) {
  // Few draws are few because each is long: then every one is a block.
  const Index block = std::clamp(sampling.draws / 256, Index{1}, Index{1024});
  const Index blocks = ceil_div(sampling.draws, block), round = 16 * std::max(sampling.threads, 1);
  std::vector<Estimate> all(static_cast<std::size_t>(quantities));
  for (Index first = 0; first < blocks; first += round) {
    const Index count = std::min(round, blocks - first);
    std::vector<std::vector<Estimate>> parts(static_cast<std::size_t>(count));
    parallel_for(sampling.threads, count, [&](Index b) {
      std::vector<Estimate> part(all.size());
      std::vector<double> values(all.size());
      const Index from = (first + b) * block, to = std::min(from + block, sampling.draws);
      for (Index draw = from; draw < to; ++draw) {
        Source source(sampling.seed, static_cast<std::uint64_t>(draw));
        body(source, values.data());
        for (std::size_t q = 0; q < values.size(); ++q) part[q].add(values[q]);
      }
      parts[static_cast<std::size_t>(b)] = std::move(part);
    });
    for (const auto& part : parts)
      for (std::size_t q = 0; q < all.size(); ++q) all[q].merge(part[q]);
    if (sampling.progress)
      sampling.progress(static_cast<double>(first + count) / static_cast<double>(blocks));
  }
  return all;
}

Sampling sampling_of(const Common& common, std::uint64_t purpose, Index draws) {
  return {draws, noise_key({common.seed.value_or(1), purpose}), common.compute(Numerics::exact).threads, {}};
}

plot::Effect effect_of(const Estimate& estimate) {
  const double half = 1.96 * estimate.error();
  return {estimate.mean(), estimate.mean() - half, estimate.mean() + half};
}

std::string with_error(const Estimate& estimate) {
  const double error = estimate.error();
  const bool known = std::isfinite(error) && error > 0;
  const int decimals = known ? std::clamp(1 - static_cast<int>(std::floor(std::log10(error))), 0, 12) : 4;
  return cat(fixed(estimate.mean(), decimals), known ? cat(" +- ", fixed(error, decimals)) : "");
}

Json json_of(const Estimate& estimate) { return {{"mean", estimate.mean()}, {"stderr", estimate.error()}}; }

double log_slope(const std::vector<double>& x, const std::vector<double>& y) {
  assert(x.size() == y.size() && x.size() > 1);
  const double n = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, cross = 0, square = 0;
  for (std::size_t i = 0; i < x.size(); ++i) mean_x += std::log(x[i]) / n, mean_y += std::log(y[i]) / n;
  for (std::size_t i = 0; i < x.size(); ++i) {
    cross += (std::log(x[i]) - mean_x) * (std::log(y[i]) - mean_y);
    square += (std::log(x[i]) - mean_x) * (std::log(x[i]) - mean_x);
  }
  return cross / square;
}

}  // namespace plait::probe
