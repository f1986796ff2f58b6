// Multiple choice: a group's prefix is run once, a question once, and of each choice all tokens but the last.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tools/ablate/task_run.h"

namespace plait::ablate {
namespace {

struct TokenScore {
  double nll = 0;  // nats
  bool greedy = false;
};

TokenScore score(const LogSoftmax& row, Token token) { return {row.nll(token), row.greedy() == token}; }

// The token scores of one item's tails, for the variants of a tile.
class TailScores {
 public:
  TailScores(std::span<const Tail> tails, std::size_t variants) {
    for (const Tail& tail : tails) {
      begin_.push_back(width_);
      width_ += tail.tokens.size();
    }
    scores_.resize(width_ * variants);
  }
  TokenScore& at(std::size_t variant, std::size_t choice, std::size_t token) {
    return scores_[variant * width_ + begin_[choice] + token];
  }

 private:
  std::vector<std::size_t> begin_;
  std::size_t width_ = 0;
  std::vector<TokenScore> scores_;
};

class ChoiceRun final : public FileTaskRun {
 public:
  using FileTaskRun::FileTaskRun;

 private:
  // A choice that needs rows of its own.
  struct Branch {
    std::size_t item, choice;
    std::vector<Index> scored;
  };

  Index tokens_to_come() const override { return 0; }

  void ask(const Tile& tile, std::span<PromptItem> items) override {
    std::vector<TailScores> scores;
    for (const PromptItem& item : items) scores.emplace_back(item.tails, tile.count);
    std::vector<VariantStates> states(items.size(), tile.prefix);
    run_stems(tile, items, states, scores);
    const std::vector<Branch> branches = branches_of(items);
    const auto step = static_cast<std::size_t>(std::max<Index>(1, tile.forks - std::ssize(items)));
    for (std::size_t b = 0; b < branches.size(); b += step)
      run_branches(tile, items, std::span(branches).subspan(b, std::min(step, branches.size() - b)), states,
                   scores);
    for (std::size_t i = 0; i < items.size(); ++i) respond(tile, items[i], scores[i]);
  }

  // The first token of every tail is predicted by the stem's last row.
  void run_stems(const Tile& tile, std::span<const PromptItem> items, std::span<VariantStates> states,
                 std::span<TailScores> scores) {
    std::vector<VariantDocument> documents;
    std::vector<Index> last;
    for (const PromptItem& item : items) last.push_back(std::ssize(item.stem) - 1);
    for (std::size_t i = 0; i < items.size(); ++i)
      documents.push_back({items[i].stem, {&last[i], 1}, &states[i]});
    tile.wavefront.run(documents, [&](const VariantLogits& at) {
      const auto& tails = items[at.document].tails;
      for (std::size_t r = 0; r < at.variants.size(); ++r) {
        const LogSoftmax row = read_(at, r);
        for (std::size_t c = 0; c < tails.size(); ++c)
          for (const int v : at.variants[r])
            scores[at.document].at(static_cast<std::size_t>(v), c, 0) = score(row, tails[c].tokens[0]);
      }
    });
  }

  static std::vector<Branch> branches_of(std::span<const PromptItem> items) {
    std::vector<Branch> branches;
    for (std::size_t i = 0; i < items.size(); ++i)
      for (std::size_t c = 0; c < items[i].tails.size(); ++c) {
        const Tail& tail = items[i].tails[c];
        if (tail.tokens.size() < 2) continue;
        const std::size_t first = std::max<std::size_t>(1, tail.first_scored) - 1;
        Branch& branch =
            branches.emplace_back(Branch{i, c, std::vector<Index>(tail.tokens.size() - 1 - first)});
        std::iota(branch.scored.begin(), branch.scored.end(), static_cast<Index>(first));
      }
    return branches;
  }

  void run_branches(const Tile& tile, std::span<const PromptItem> items, std::span<const Branch> branches,
                    std::span<const VariantStates> states, std::span<TailScores> scores) {
    std::vector<VariantStates> forks;
    for (const Branch& branch : branches) forks.push_back(states[branch.item]);
    std::vector<VariantDocument> documents;
    for (std::size_t b = 0; b < branches.size(); ++b) {
      const auto& tokens = items[branches[b].item].tails[branches[b].choice].tokens;
      documents.push_back({std::span(tokens).first(tokens.size() - 1), branches[b].scored, &forks[b]});
    }
    tile.wavefront.run(documents, [&](const VariantLogits& at) {
      const auto& [i, c, scored] = branches[at.document];
      const auto next = static_cast<std::size_t>(at.position - states[i].position()) + 1;
      for (std::size_t r = 0; r < at.variants.size(); ++r) {
        const TokenScore token = score(read_(at, r), items[i].tails[c].tokens[next]);
        for (const int v : at.variants[r]) scores[i].at(static_cast<std::size_t>(v), c, next) = token;
      }
    });
  }

  void respond(const Tile& tile, PromptItem& item, TailScores& scores) const {
    const std::size_t choices = item.tails.size();
    for (std::size_t v = 0; v < tile.count; ++v)
      for (std::size_t c = 0; c < choices; ++c) {
        const Tail& tail = item.tails[c];
        double nll = 0;
        bool greedy = true;
        for (std::size_t t = tail.first_scored; t < tail.tokens.size(); ++t) {
          nll += scores.at(v, c, t).nll;
          greedy = greedy && scores.at(v, c, t).greedy;
        }
        item.responses[(tile.first + v) * choices + c] = {
            {}, -nll, std::ssize(tail.tokens) - static_cast<Index>(tail.first_scored), greedy};
      }
  }

  std::string text_of(const TaskItem& item, std::size_t choice) const {
    return task_.scoring == ChoiceScoring::letters ? std::string(1, static_cast<char>('A' + choice))
                                                   : item.choices[choice];
  }

  Outcome outcome(const PromptItem& item, std::size_t variant) const override {
    const std::size_t choices = item.tails.size(), right = item.item->right;
    Outcome outcome;
    const auto own = item.responses.begin() + static_cast<std::ptrdiff_t>(variant * choices);
    outcome.resps.assign(own, own + static_cast<std::ptrdiff_t>(choices));
    // Of equal ones the first; what is no number is no candidate.
    const auto best = [&](auto value) {
      std::size_t at = choices;
      for (std::size_t c = 0; c < choices; ++c)
        if (std::isfinite(value(c)) && (at == choices || value(c) > value(at))) at = c;
      return at;
    };
    for (std::size_t c = 0; c < choices; ++c) outcome.resps[c].text = text_of(*item.item, c);
    const std::size_t likeliest = best([&](std::size_t c) { return outcome.resps[c].logprob; });
    const std::size_t per_byte = best([&](std::size_t c) {
      return outcome.resps[c].logprob / static_cast<double>(outcome.resps[c].text.size());
    });
    if (likeliest < choices) outcome.pred = outcome.resps[likeliest].text;
    outcome.correct = likeliest == right;
    outcome.acc = outcome.correct;
    outcome.acc_norm = per_byte == right;
    outcome.nll = -outcome.resps[right].logprob;
    return outcome;
  }
};

}  // namespace

void run_choices(const TaskContext& context, const FileTask& task) { ChoiceRun(context, task).run(); }

}  // namespace plait::ablate
