#include "tools/ablate/stop_rule.h"

#include <algorithm>

#include "runtime/base/random.h"

namespace plait::ablate {

StopRule::StopRule(std::span<const Unit> units, std::vector<int> tested) : tested_(std::move(tested)) {
  std::map<Group, Index> sizes;
  for (const Unit& unit : units) {
    group_of_unit_.push_back(group_of(unit));
    ++sizes[group_of(unit)];
  }
  for (const auto& [group, size] : sizes) {
    SequenceSettings settings;
    settings.tightest_at = std::max<Index>(2, size);
    for (const int condition : tested_) sequences_[group].emplace(condition, ConfidenceSequence(settings));
  }
}

void StopRule::add(const UnitScores& scores) {
  auto& group = sequences_.at(group_of_unit_[static_cast<std::size_t>(scores.unit)]);
  const auto baseline = scores.of(0);
  for (const int condition : tested_) {
    Cluster cluster{0, static_cast<double>(scores.tokens), scores.tokens};
    const auto own = scores.of(condition);
    for (std::size_t t = 0; t < own.size(); ++t)
      cluster.sum += static_cast<double>(own[t].nll) - baseline[t].nll;
    group.at(condition).add(cluster);
  }
}

bool StopRule::settled(const Unit& unit) const {
  const auto& group = sequences_.at(group_of(unit));
  return std::all_of(group.begin(), group.end(), [](const auto& entry) {
    return verdict(entry.second.interval(), kNegligible) != Verdict::undecided;
  });
}

Interval StopRule::interval(int text, Index context, int condition) const {
  return sequences_.at({text, context}).at(condition).interval();
}

void shuffle(std::vector<Unit>& units, std::uint64_t seed) {
  std::vector<std::pair<double, std::size_t>> order;
  for (std::size_t i = 0; i < units.size(); ++i) order.push_back({uniform_draw(seed, 1, i), i});
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    const Unit &x = units[a.second], &y = units[b.second];
    if (std::pair(x.text, x.context) != std::pair(y.text, y.context)) return a.second < b.second;
    return a.first < b.first;
  });
  std::vector<Unit> shuffled;
  for (const auto& [key, i] : order) shuffled.push_back(std::move(units[i]));
  units = std::move(shuffled);
}

}  // namespace plait::ablate
