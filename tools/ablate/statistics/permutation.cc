#include "tools/ablate/statistics/permutation.h"

#include <cmath>
#include <limits>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "tools/ablate/statistics/resample.h"

namespace plait::ablate {
namespace {

constexpr Index kMostExact = 30;  // half a billion sums, some seconds

double observed_sum(std::span<const Cluster> clusters) {
  double sum = 0;
  for (const Cluster& c : clusters) sum += c.sum;
  return std::abs(sum);
}

// Both sums round at most n - 1 times, each time by less than half an ulp of the sum of magnitudes.
double least_as_extreme(std::span<const Cluster> clusters) {
  double magnitudes = 0;
  for (const Cluster& c : clusters) magnitudes += std::abs(c.sum);
  const double rounding =
      static_cast<double>(clusters.size()) * std::numeric_limits<double>::epsilon() * magnitudes;
  return observed_sum(clusters) - rounding;
}

Index count(const std::vector<char>& extreme) {
  Index n = 0;
  for (const char e : extreme) n += e;
  return n;
}

// An assignment and its mirror image have the same |sum|, so the last cluster keeps its sign. The low bits of
// an assignment are walked in one block per setting of the others.
SignFlipTest exact_test(std::span<const Cluster> clusters, int threads) {
  const double bound = least_as_extreme(clusters);
  const auto free = static_cast<Index>(clusters.size()) - 1, low = std::min<Index>(free, 12);
  std::vector<Index> hits(static_cast<std::size_t>(Index{1} << (free - low)));
  parallel_for(threads, static_cast<Index>(hits.size()), [&](Index block) {
    for (Index i = 0; i < Index{1} << low; ++i) {
      const Index signs = block << low | i;
      double sum = clusters.back().sum;
      for (Index c = 0; c < free; ++c) {
        const double d = clusters[static_cast<std::size_t>(c)].sum;
        sum += signs >> c & 1 ? -d : d;
      }
      hits[static_cast<std::size_t>(block)] += std::abs(sum) >= bound;
    }
  });
  Index k = 0;
  for (const Index h : hits) k += h;
  return {static_cast<double>(k) / static_cast<double>(Index{1} << free), Index{1} << (free + 1)};
}

double random_sum(std::span<const Cluster> clusters, Resample draws) {
  double sum = 0;
  std::uint32_t signs = 0;
  for (std::size_t i = 0; i < clusters.size(); ++i) {
    signs = i % 32 == 0 ? draws.word() : signs >> 1;
    sum += signs & 1 ? -clusters[i].sum : clusters[i].sum;
  }
  return std::abs(sum);
}

}  // namespace

SignFlipTest sign_flip_test(std::span<const Cluster> clusters, const SignFlipSettings& settings) {
  if (const std::string why = refusal(clusters); !why.empty()) fail(why);
  if (settings.exact_up_to > kMostExact)
    fail("sign flips are counted exactly for at most ", kMostExact, " clusters, found ",
         settings.exact_up_to);
  if (static_cast<Index>(clusters.size()) <= settings.exact_up_to)
    return exact_test(clusters, settings.threads);
  if (settings.flips < 1) fail("the sign-flip test needs at least 1 random flip, found ", settings.flips);
  const double bound = least_as_extreme(clusters);
  std::vector<char> extreme(static_cast<std::size_t>(settings.flips));
  parallel_for(settings.threads, settings.flips, [&](Index flip) {
    const Resample draws(settings.seed, Purpose::sign_flip, flip);
    extreme[static_cast<std::size_t>(flip)] = random_sum(clusters, draws) >= bound;
  });
  const auto all = static_cast<double>(settings.flips) + 1;
  return {static_cast<double>(count(extreme) + 1) / all, settings.flips + 1};
}

}  // namespace plait::ablate
