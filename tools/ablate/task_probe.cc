// Generated items: whole documents of the wavefront, with logits only where an answer is predicted.
#include <algorithm>
#include <cmath>

#include "runtime/base/digest.h"
#include "tools/ablate/task_run.h"

namespace plait::ablate {
namespace {

struct Guess {
  double nll = 0;  // of the right token
  Token token = 0;
};

// An item with its answers' rows.
struct Asked {
  Index number;
  Probe probe;
  std::vector<Index> scored;   // offsets of the rows that predict answers, ascending
  std::vector<Guess> guesses;  // [variant][row]
};

class ProbeRun {
 public:
  ProbeRun(const TaskContext& context, const Generator& generator)
      : context_(context),
        generator_(generator),
        probes_(generator, context.setup.tokenizer.get(), context.setup.model->card().vocab),
        wavefront_(context.setup.model, context.setup.plans, context.setup.options),
        read_(context.setup) {}

  void run() {
    const Index limit = context_.task.limit;
    const Index count = limit > 0 ? std::min(limit, probes_.count()) : probes_.count();
    for (Index i = context_.done; i < count;) {
      std::vector<Asked> batch = next_batch(i, count);
      i += std::ssize(batch);
      ask(batch);
      deliver(batch);
    }
  }

 private:
  std::size_t variants() const { return context_.setup.plans.size(); }

  std::vector<Asked> next_batch(Index first, Index end) const {
    std::vector<Asked> batch;
    std::size_t rows = 0;
    for (Index i = first; i < end && rows < static_cast<std::size_t>(kWalkRows); ++i) {
      Asked& asked = batch.emplace_back(Asked{i, probes_[i], {}, {}});
      for (const ProbeQuery& query : asked.probe.queries)
        for (Index t = query.begin; t < query.end; ++t) asked.scored.push_back(t - 1);
      asked.guesses.resize(variants() * asked.scored.size());
      rows += asked.probe.tokens.size() * variants();
    }
    return batch;
  }

  void ask(std::span<Asked> batch) {
    std::vector<VariantDocument> documents;
    for (const Asked& asked : batch) {
      const auto rows = static_cast<std::size_t>(asked.scored.back()) + 1;
      documents.push_back({std::span(asked.probe.tokens).first(rows), asked.scored});
    }
    wavefront_.run(documents, [&](const VariantLogits& at) {
      Asked& asked = batch[at.document];
      const auto place = static_cast<std::size_t>(
          std::lower_bound(asked.scored.begin(), asked.scored.end(), at.position) - asked.scored.begin());
      const Token target = asked.probe.tokens[static_cast<std::size_t>(at.position) + 1];
      for (std::size_t r = 0; r < at.variants.size(); ++r) {
        const LogSoftmax row = read_(at, r);
        const Guess guess{row.nll(target), row.greedy()};
        for (const int v : at.variants[r])
          asked.guesses[static_cast<std::size_t>(v) * asked.scored.size() + place] = guess;
      }
    });
  }

  std::string text_of(std::span<const Token> tokens) const {
    std::string text;
    if (generator_.symbols == Generator::Symbols::ids) {
      for (const Token token : tokens) {
        if (!text.empty()) text += ' ';
        text += std::to_string(token);
      }
      return text;
    }
    StreamDecoder decoder(*context_.setup.tokenizer);
    for (const Token token : tokens) text += decoder.push(token);
    return text + decoder.finish();
  }

  Outcome outcome(std::span<const Token> target, std::span<const Guess> guesses) const {
    std::vector<Token> tokens;
    double nll = 0;
    Index right = 0;
    for (std::size_t t = 0; t < target.size(); ++t) {
      nll += guesses[t].nll;
      const bool is_number = std::isfinite(guesses[t].nll);
      right += is_number && guesses[t].token == target[t];
      tokens.push_back(guesses[t].token);
    }
    Outcome outcome;
    outcome.correct = right == std::ssize(target);
    outcome.acc = static_cast<double>(right) / static_cast<double>(target.size());
    outcome.nll = nll;
    outcome.resps = {{text_of(target), -nll, std::ssize(target), outcome.correct}};
    outcome.pred = text_of(tokens);
    return outcome;
  }

  void deliver(std::span<const Asked> batch) {
    AskedBatch results;
    for (const Asked& asked : batch) results.items.push_back(result_of(asked));
    const WavefrontCost cost = wavefront_.take_cost();
    results.cost.tokens = results.cost.naive_tokens = cost.tokens;
    results.cost.rows = cost.rows;
    context_.sink(results);
  }

  ItemResult result_of(const Asked& asked) const {
    const Probe& probe = asked.probe;
    const auto sha = [&](Index count) {
      return sha256({reinterpret_cast<const char*>(probe.tokens.data()),
                     static_cast<std::size_t>(count) * sizeof(Token)});
    };
    ItemResult result{context_.task.name,
                      "",
                      asked.number,
                      sha(std::ssize(probe.tokens)),
                      sha(probe.queries.front().begin),
                      {}};
    std::size_t row = 0;
    for (const ProbeQuery& query : probe.queries) {
      const auto count = static_cast<std::size_t>(query.end - query.begin);
      const auto target = std::span(probe.tokens).subspan(static_cast<std::size_t>(query.begin), count);
      QueryResult& own = result.queries.emplace_back();
      own.target = text_of(target);
      own.factors = {0,          query.begin, probe.length, probe.pairs, query.distance, query.position_bin,
                     probe.depth};
      for (std::size_t v = 0; v < variants(); ++v)
        own.outcomes.push_back(
            outcome(target, std::span(asked.guesses).subspan(v * asked.scored.size() + row, count)));
      row += count;
    }
    return result;
  }

  const TaskContext& context_;
  const Generator& generator_;
  const Probes probes_;
  Wavefront wavefront_;
  RowReader read_;
};

}  // namespace

void run_probes(const TaskContext& context, const Generator& generator) {
  ProbeRun(context, generator).run();
}

}  // namespace plait::ablate
