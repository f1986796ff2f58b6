#include "tools/likelihood.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/base/error.h"

namespace plait {

TokenScore score_token(std::span<const float> logits, Token target) {
  const auto best = std::max_element(logits.begin(), logits.end());  // the first of equal ones
  const double greatest = *best;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - greatest);
  const auto index = static_cast<std::size_t>(target);
  return {greatest + std::log(sum) - static_cast<double>(logits[index]), best - logits.begin() == target};
}

Mean mean_of(std::span<const double> values) {
  if (values.empty()) return {};
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  const double mean = sum / n;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return {mean, values.size() < 2 ? 0 : std::sqrt(squares / (n - 1) / n)};
}

Split::Split(const std::string& pattern) {
  if (pattern == "all") return;
  const char* p = pattern.data();
  const char* const end = p + pattern.size();
  for (;;) {
    Index size = 0;
    const auto [after, error] = std::from_chars(p, end, size);
    const bool ends = error == std::errc() && (after == end || *after == ',');
    if (!ends || size < 1)
      fail("'", pattern, "' is no split; it is 'all' or positive feed sizes such as 1 or 7,64,1");
    sizes_.push_back(size);
    if (after == end) return;
    p = after + 1;
  }
}

Index Split::size(std::size_t feed, Index left) const {
  return sizes_.empty() ? left : std::min(left, sizes_[feed % sizes_.size()]);
}

}  // namespace plait
