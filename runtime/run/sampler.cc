#include "runtime/run/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/random.h"

namespace plait {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// e^x for x <= 0, by x = k ln 2 + r and the Taylor series of e^r, |r| <= ln 2 / 2: relative error below
// 4e-16, zero below the normal range. Not the C library's, so that a draw is the same on every machine.
double exp_negative(double x) {
  if (x < -708) return 0;
  constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
  const double k = std::floor(x * 0x1.71547652b82fep+0 + 0.5);
  const double r = (x - k * kLog2High) - k * kLog2Low;
  double y = 1;
  for (int n = 14; n >= 1; --n) y = 1 + y * r / n;
  const auto exponent = static_cast<std::uint64_t>(static_cast<std::int64_t>(k) + 1023);
  return y * std::bit_cast<double>(exponent << 52);
}

struct Candidate {
  double logit, weight;  // weight: probability relative to the likeliest token
  Token token;
};

// Heap order: the likelier one is greater, of equals the lower index.
bool less_likely(const Candidate& a, const Candidate& b) {
  return a.logit < b.logit || (a.logit == b.logit && a.token > b.token);
}

// Candidates from the likeliest down, sorted only as far as they are asked for: a draw usually looks at a few
// of a large vocabulary.
class Ranking {
 public:
  explicit Ranking(std::vector<Candidate> candidates) : heap_(std::move(candidates)) {
    std::make_heap(heap_.begin(), heap_.end(), less_likely);
  }
  const Candidate& operator[](Index rank) {
    for (; sorted_ <= rank; ++sorted_) std::pop_heap(heap_.begin(), heap_.end() - sorted_, less_likely);
    return heap_[heap_.size() - 1 - static_cast<std::size_t>(rank)];
  }

 private:
  std::vector<Candidate> heap_;  // a heap, then the sorted ones, likeliest last
  Index sorted_ = 0;
};

void penalise(std::vector<double>& logits, std::span<const Token> history, double penalty) {
  std::vector<bool> seen(logits.size());
  for (const Token token : history) {
    const auto i = static_cast<std::size_t>(token);
    if (token < 0 || i >= logits.size())
      fail("token ", token, " of the history is outside the vocabulary of ", logits.size());
    if (!seen[i]) logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
    seen[i] = true;
  }
}

void check(std::span<const float> logits) {
  bool possible = false;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < std::numeric_limits<float>::infinity()))
      fail("the logit of token ", i, " is ", logits[i], "; nothing can be drawn from it");
    possible = possible || logits[i] > -std::numeric_limits<float>::infinity();
  }
  if (!possible)
    fail("none of the ", logits.size(), " tokens has a logit above -infinity; nothing can be drawn");
}

// How many of the ranked candidates pass top-k, top-p and min-p, and their mass. Every filter keeps a prefix
// of the ranking, so filtering is finding its length.
struct Kept {
  Index count;
  double mass;
};

Kept filter(Ranking& ranking, Kept kept, const SamplerSettings& settings) {
  const auto prefix = [&](auto&& goes_on) {
    Kept shorter = {0, 0};
    while (shorter.count < kept.count && goes_on(shorter)) shorter.mass += ranking[shorter.count++].weight;
    kept = shorter;
  };
  if (settings.top_k > 0 && settings.top_k < kept.count)
    prefix([&](const Kept& k) { return k.count < settings.top_k; });
  if (settings.top_p < 1) {
    const double enough = settings.top_p * kept.mass;
    prefix([&](const Kept& k) { return k.mass < enough; });
  }
  if (settings.min_p > 0) prefix([&](const Kept& k) { return ranking[k.count].weight >= settings.min_p; });
  return kept;
}

Token draw_ranked(std::vector<Candidate> candidates, const SamplerSettings& settings, double uniform) {
  Kept all = {static_cast<Index>(candidates.size()), 0};
  for (const Candidate& c : candidates) all.mass += c.weight;
  Ranking ranking(std::move(candidates));
  const Kept kept = filter(ranking, all, settings);
  const double target = uniform * kept.mass;
  // The running sum may end an ulp below the mass, which was summed in another order: the last possible token
  // is then the one.
  double sum = 0;
  Token last = ranking[0].token;
  for (Index i = 0; i < kept.count && ranking[i].weight > 0; ++i) {
    last = ranking[i].token;
    sum += ranking[i].weight;
    if (sum > target) break;
  }
  return last;
}

}  // namespace

Sampler::Sampler(SamplerSettings settings) : settings_(settings) {
  const auto demand = [](bool good, const char* name, double value, const char* range) {
    if (!good || !std::isfinite(value))
      fail("sampler setting '", name, "' must be ", range, ", found ", value);
  };
  const SamplerSettings& s = settings_;
  demand(s.temperature >= 0, "temperature", s.temperature, "at least 0");
  demand(s.top_p > 0 && s.top_p <= 1, "top_p", s.top_p, "above 0 and at most 1");
  demand(s.min_p >= 0 && s.min_p < 1, "min_p", s.min_p, "at least 0 and below 1");
  demand(s.repetition_penalty > 0, "repetition_penalty", s.repetition_penalty, "above 0");
  demand(s.top_k >= 0, "top_k", static_cast<double>(s.top_k), "at least 0");
}

Token Sampler::draw(std::span<const float> logits, std::uint64_t stream_id, Index position,
                    std::span<const Token> history) const {
  check(logits);
  std::vector<double> scores(logits.begin(), logits.end());
  if (settings_.repetition_penalty != 1) penalise(scores, history, settings_.repetition_penalty);
  const auto best = std::max_element(scores.begin(), scores.end());  // the first of equals
  if (settings_.temperature == 0) return static_cast<Token>(best - scores.begin());

  std::vector<Candidate> candidates;
  candidates.reserve(scores.size());
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (scores[i] > kMinusInfinity)
      candidates.push_back(
          {scores[i], exp_negative((scores[i] - *best) / settings_.temperature), static_cast<Token>(i)});
  return draw_ranked(std::move(candidates), settings_,
                     uniform_draw(settings_.seed, stream_id, static_cast<std::uint64_t>(position)));
}

Json to_json(const SamplerSettings& s) {
  return {{"temperature", s.temperature},
          {"top_k", s.top_k},
          {"top_p", s.top_p},
          {"min_p", s.min_p},
          {"seed", s.seed},
          {"repetition_penalty", s.repetition_penalty}};
}

SamplerSettings parse_sampler(const Json& json) {
  if (!json.is_object()) fail("sampler settings must be an object, found ", json.dump());
  SamplerSettings s;
  const std::map<std::string, double*> numbers = {{"temperature", &s.temperature},
                                                  {"top_p", &s.top_p},
                                                  {"min_p", &s.min_p},
                                                  {"repetition_penalty", &s.repetition_penalty}};
  for (const auto& [key, value] : json.items()) {
    const auto number = numbers.find(key);
    if (number == numbers.end() && key != "top_k" && key != "seed")
      fail("unknown sampler setting '", key, "'");
    if (number != numbers.end()) {
      if (!value.is_number()) fail("sampler setting '", key, "' must be a number, found ", value.dump());
      *number->second = value.get<double>();
      continue;
    }
    if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<std::int64_t>() < 0))
      fail("sampler setting '", key, "' must be an integer of at least 0, found ", value.dump());
    if (key == "seed") s.seed = value.get<std::uint64_t>();
    if (key == "top_k") s.top_k = value.get<Index>();
  }
  return Sampler(s).settings();
}

}  // namespace plait
