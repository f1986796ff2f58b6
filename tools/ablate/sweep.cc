#include "tools/ablate/sweep.h"

#include <algorithm>
#include <set>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"
#include "tools/ablate/scores.h"
#include "tools/program.h"

namespace plait::ablate {
namespace {

constexpr Index kBatchTokens = 4096;  // what a kill can lose, and what one walk may share
constexpr Index kLookTokens = 1024;   // between two looks at a stop rule

std::span<const Token> tokens_of(const Sweep& sweep, const Unit& unit) {
  const auto& all =
      sweep.texts[static_cast<std::size_t>(unit.text)].sequences[static_cast<std::size_t>(unit.sequence)];
  return std::span(all.tokens)
      .subspan(static_cast<std::size_t>(unit.begin), static_cast<std::size_t>(unit.end - unit.begin));
}

// Units scored together, and where their scores gather.
class UnitBatch {
 public:
  UnitBatch(const Sweep& sweep, std::span<const Index> units)
      : sweep_(sweep), scorer_(sweep.model->card().vocab, sweep.options.compute) {
    for (const Index u : units) {
      const Unit& unit = sweep.units[static_cast<std::size_t>(u)];
      UnitScores scores;
      scores.unit = u;
      scores.conditions = static_cast<Index>(sweep.plans.size());
      scores.tokens = static_cast<Index>(unit.scored.size());
      scores.scores.resize(static_cast<std::size_t>(scores.conditions * scores.tokens));
      scores_.push_back(std::move(scores));
      documents_.push_back({tokens_of(sweep, unit), unit.scored, nullptr});
    }
  }

  void run(Wavefront& wavefront) {
    wavefront.run(documents_, [this](const VariantLogits& at) { take(at); });
  }

  std::vector<UnitScores> take_scores() { return std::move(scores_); }

 private:
  void take(const VariantLogits& at) {
    const VariantDocument& document = documents_[at.document];
    UnitScores& unit = scores_[at.document];
    const Index token = std::lower_bound(document.scored.begin(), document.scored.end(), at.position) -
                        document.scored.begin();
    const Token target = document.tokens[static_cast<std::size_t>(at.position + 1)];
    const auto vocab = static_cast<std::size_t>(at.logits.cols);
    scorer_.set_baseline({at.logits.row(0), vocab});
    constexpr Index kWorthThreads = 1 << 16;  // logits
    const int threads = at.logits.rows * at.logits.cols < kWorthThreads ? 1 : sweep_.options.compute.threads;
    parallel_for(threads, at.logits.rows, [&](Index row) {
      Arena::Scope scope(scratch());
      const TokenScores scores =
          scorer_.score({at.logits.row(row), vocab}, target, {scope.take(at.logits.cols), vocab});
      for (const int condition : at.variants[static_cast<std::size_t>(row)])
        unit.scores[static_cast<std::size_t>(condition * unit.tokens + token)] = scores;
    });
  }

  const Sweep& sweep_;
  RowScorer scorer_;
  std::vector<VariantDocument> documents_;
  std::vector<UnitScores> scores_;
};

// Batches lie at the same places however often the sweep was interrupted.
std::size_t batch_end(const Sweep& sweep, std::size_t first) {
  const Index most = sweep.skip ? kLookTokens : kBatchTokens;
  Index tokens = 0;
  std::size_t end = first;
  while (end < sweep.units.size() && tokens < most) {
    tokens += sweep.units[end].end - sweep.units[end].begin;
    ++end;
  }
  return end;
}

// Units of a batch that still have to be run: none where the journal holds some, because it holds whole
// batches and the others were skipped then.
std::vector<Index> to_run(const Sweep& sweep, const std::set<Index>& done, std::size_t first,
                          std::size_t end) {
  std::vector<Index> units;
  for (std::size_t u = first; u < end; ++u) {
    if (done.count(static_cast<Index>(u))) return {};
    if (!sweep.skip || !sweep.skip(sweep.units[u])) units.push_back(static_cast<Index>(u));
  }
  return units;
}

}  // namespace

SweepCost run_sweep(const Sweep& sweep, Journal& journal) {
  const Stopwatch watch;
  const std::set<Index> done(journal.done().begin(), journal.done().end());
  SweepCost cost;
  cost.resumed = static_cast<Index>(done.size());
  Index all = 0, finished = 0;
  for (const Unit& unit : sweep.units) all += unit.end - unit.begin;
  Wavefront wavefront(sweep.model, sweep.plans, sweep.options);
  for (std::size_t first = 0; first < sweep.units.size();) {
    const std::size_t end = batch_end(sweep, first);
    const std::vector<Index> units = to_run(sweep, done, first, end);
    for (; first < end; ++first) finished += sweep.units[first].end - sweep.units[first].begin;
    if (units.empty()) continue;
    UnitBatch batch(sweep, units);
    batch.run(wavefront);
    const ScoredBatch scored{batch.take_scores(), wavefront.take_cost()};
    if (sweep.observe)
      for (const UnitScores& scores : scored.units) sweep.observe(scores);
    journal.append(scored);
    if (sweep.progress)
      sweep.progress(static_cast<double>(finished) / static_cast<double>(all), journal.cost());
  }
  cost.wavefront = journal.cost();
  cost.seconds = watch.seconds();
  return cost;
}

}  // namespace plait::ablate
