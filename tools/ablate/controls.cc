#include "tools/ablate/controls.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "tools/ablate/designs.h"
#include "tools/ablate/draws.h"

namespace plait::ablate {
namespace {

constexpr int kAttempts = 64;
constexpr std::size_t kEnumerable = 16;  // places whose subsets are all looked at

Stream stream_of(Match match) {
  return match == Match::count ? Stream::count : match == Match::params ? Stream::params : Stream::depth;
}

// Places among which a set must have a given number.
struct Stratum {
  std::vector<int> places;
  int count = 0;
};

// Binomial coefficient; exact below 2^53.
double choices(const Stratum& stratum) {
  double result = 1;
  for (int i = 0; i < stratum.count; ++i)
    result = std::round(result * (static_cast<double>(stratum.places.size()) - i) / (i + 1));
  return result;
}

std::vector<Stratum> strata_of(Match match, std::span<const Component> places, std::span<const int> target,
                               int blocks) {
  std::vector<Stratum> strata(match == Match::depth ? 4 : 1);
  for (int i = 0; i < static_cast<int>(places.size()); ++i) {
    const int block = places[static_cast<std::size_t>(i)].block;
    const int at = match != Match::depth || block == 0 ? 0 : 1 + third_of(block, blocks);
    Stratum& stratum = strata[static_cast<std::size_t>(at)];
    stratum.places.push_back(i);
    stratum.count += std::binary_search(target.begin(), target.end(), i);
  }
  return strata;
}

// Every way to take each stratum's number; the number of ways is known to be small.
void enumerate(std::span<const Stratum> strata, std::size_t from, int left, std::vector<int>& taken,
               std::vector<std::vector<int>>& all) {
  if (strata.empty()) {
    all.push_back(taken);
    std::sort(all.back().begin(), all.back().end());
    return;
  }
  if (left == 0) {
    const auto rest = strata.subspan(1);
    return enumerate(rest, 0, rest.empty() ? 0 : rest[0].count, taken, all);
  }
  const auto& places = strata[0].places;
  for (std::size_t i = from; i + static_cast<std::size_t>(left) <= places.size(); ++i) {
    taken.push_back(places[i]);
    enumerate(strata, i + 1, left - 1, taken, all);
    taken.pop_back();
  }
}

class Drawer {
 public:
  Drawer(Match match, std::span<const Component> places, std::span<const int> target, int blocks,
         const Controls& controls, std::uint64_t seed)
      : match_(match), places_(places), target_(target), blocks_(blocks), controls_(controls), seed_(seed) {}

  ControlSets run() {
    if (match_ == Match::params)
      by_parameters();
    else
      by_strata();
    if (result_.sets.empty() && result_.note.empty()) result_.note = "no other set matches the target";
    return std::move(result_);
  }

 private:
  DrawKey key(Index draw, int attempt = 0) const {
    return {
        seed_,  static_cast<int>(places_.size()), static_cast<int>(target_.size()), stream_of(match_), draw,
        attempt};
  }
  bool is_target(const std::vector<int>& set) const {
    return std::equal(set.begin(), set.end(), target_.begin(), target_.end());
  }

  void by_strata() {
    const std::vector<Stratum> strata = strata_of(match_, places_, target_, blocks_);
    result_.possible = 1;
    for (const Stratum& stratum : strata) result_.possible *= choices(stratum);
    if (result_.possible - 1 <= static_cast<double>(controls_.draws)) {
      result_.exhaustive = true;
      std::vector<int> taken;
      enumerate(strata, 0, strata[0].count, taken, result_.sets);
      std::erase_if(result_.sets, [&](const auto& set) { return is_target(set); });
      return;
    }
    for (Index draw = 0; draw < controls_.draws; ++draw) {
      Draws draws(key(draw));
      std::vector<int> set;
      for (const Stratum& stratum : strata)
        for (const int i : draws.sample(static_cast<int>(stratum.places.size()), stratum.count))
          set.push_back(stratum.places[static_cast<std::size_t>(i)]);
      std::sort(set.begin(), set.end());
      result_.sets.push_back(std::move(set));
    }
  }

  double parameters(int i) const {
    return static_cast<double>(places_[static_cast<std::size_t>(i)].parameters);
  }
  double deviation(double sum) const { return std::abs(sum / wanted_ - 1); }

  void by_parameters() {
    for (const int i : target_) wanted_ += parameters(i);
    if (wanted_ == 0) {
      result_.note = "the target has no parameters";
      return;
    }
    if (places_.size() <= kEnumerable && all_within_tolerance()) return;
    for (Index draw = 0; draw < controls_.draws; ++draw) keep(nearest(draw));
    // A target of all places, or one apart from all others in size, is all that its own size ever finds.
    if (std::all_of(result_.sets.begin(), result_.sets.end(),
                    [&](const auto& set) { return is_target(set); }))
      result_.sets.clear(), result_.deviation = 0;
  }

  // Small pools: looks at every set. False if more match than draws were asked for.
  bool all_within_tolerance() {
    const auto count = places_.size();
    for (std::uint32_t bits = 1; bits < 1u << count; ++bits) {
      std::vector<int> set;
      double sum = 0;
      for (std::size_t i = 0; i < count; ++i)
        if (bits >> i & 1) set.push_back(static_cast<int>(i)), sum += parameters(static_cast<int>(i));
      if (deviation(sum) > controls_.tolerance) continue;
      ++result_.possible;
      if (is_target(set)) continue;
      result_.deviation = std::max(result_.deviation, deviation(sum));
      result_.sets.push_back(std::move(set));
    }
    result_.exhaustive = static_cast<Index>(result_.sets.size()) <= controls_.draws;
    if (!result_.exhaustive) result_.sets.clear(), result_.deviation = 0;
    return result_.exhaustive;
  }

  std::vector<int> nearest(Index draw) const {
    std::vector<int> best;
    double best_deviation = INFINITY;
    for (int attempt = 0; attempt < kAttempts && best_deviation > controls_.tolerance; ++attempt) {
      const int count = static_cast<int>(places_.size());
      const std::vector<int> order = Draws(key(draw, attempt)).sample(count, count);
      double sum = 0;
      for (std::size_t n = 0; n < order.size(); ++n) {
        sum += parameters(order[n]);
        if (deviation(sum) >= best_deviation) continue;
        best_deviation = deviation(sum);
        best.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n) + 1);
      }
    }
    std::sort(best.begin(), best.end());
    return best;
  }

  void keep(std::vector<int> set) {
    double sum = 0;
    for (const int i : set) sum += parameters(i);
    result_.deviation = std::max(result_.deviation, deviation(sum));
    result_.outside += deviation(sum) > controls_.tolerance;
    result_.sets.push_back(std::move(set));
  }

  Match match_;
  std::span<const Component> places_;
  std::span<const int> target_;
  int blocks_;
  const Controls& controls_;
  std::uint64_t seed_;
  double wanted_ = 0;
  ControlSets result_;
};

Match parse_match(const std::string& text) {
  for (const Match match : {Match::count, Match::params, Match::depth})
    if (text == name_of(match)) return match;
  fail("controls are matched by count, params or depth, not by '", text.substr(0, 60), "'");
}

}  // namespace

const char* name_of(Match match) {
  constexpr std::array names = {"count", "params", "depth"};
  return names[static_cast<std::size_t>(match)];
}

ControlSets draw_controls(Match match, std::span<const Component> places, std::span<const int> target,
                          int blocks, const Controls& controls, std::uint64_t seed) {
  return Drawer(match, places, target, blocks, controls, seed).run();
}

Controls parse_controls(const std::string& text) {
  Controls controls;
  controls.targets = {"group"};
  controls.match.clear();
  for (const std::string& part : split(text, ',')) {
    const auto colon = part.find(':');
    const Match match = parse_match(part.substr(0, colon));
    if (std::find(controls.match.begin(), controls.match.end(), match) == controls.match.end())
      controls.match.push_back(match);
    if (colon == std::string::npos) continue;
    const std::string number = part.substr(colon + 1);
    const auto result = std::from_chars(number.data(), number.data() + number.size(), controls.draws);
    if (result.ec != std::errc() || result.ptr != number.data() + number.size() ||
        controls.draws < kLeastDraws || controls.draws > kMostDraws)
      fail("the number of draws must be an integer from ", kLeastDraws, " to ", kMostDraws, ", found '",
           number.substr(0, 60), "'");
  }
  if (controls.match.empty()) fail("controls name at least one of count, params, depth");
  return controls;
}

}  // namespace plait::ablate
