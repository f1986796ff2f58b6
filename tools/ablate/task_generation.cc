// Greedy generation: prompts as documents of the wavefront, then every variant of every item as one row of a
// batch.
#include <algorithm>
#include <cmath>

#include "runtime/run/batch.h"
#include "tools/ablate/task_run.h"

namespace plait::ablate {
namespace {

std::string stripped(const std::string& text) {
  constexpr const char* kBlanks = " \t\r\n\v\f";
  const std::size_t begin = text.find_first_not_of(kBlanks);
  return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

// What greedy decoding would write next, and how unlikely it is.
struct Next {
  Token token = 0;
  double nll = 0;
};

Next next_of(const LogSoftmax& row) { return {row.greedy(), row.nll(row.greedy())}; }

// A reply as it grows. Borrows all it is given.
class Reply {
 public:
  Reply(const Tokenizer& tokenizer, std::span<const Token> eos, const std::vector<std::string>& stops,
        Index max_tokens)
      : eos_(eos), stops_(stops), max_tokens_(max_tokens), decoder_(tokenizer, Specials::without) {
    for (const std::string& stop : stops) longest_ = std::max(longest_, stop.size());
  }

  bool ended() const { return ended_; }
  const Response& response() const { return response_; }

  void accept(const Next& next) {
    if (!std::isfinite(next.nll)) response_.logprob = -next.nll;
    if (!std::isfinite(next.nll) || std::find(eos_.begin(), eos_.end(), next.token) != eos_.end())
      return finish();
    response_.logprob -= next.nll;
    ++response_.n_tokens;
    take(decoder_.push(next.token));
    if (!ended_ && response_.n_tokens == max_tokens_) finish();
  }

 private:
  void finish() {
    take(decoder_.finish());
    ended_ = true;
  }

  // A stop may have begun in what was there.
  void take(const std::string& more) {
    std::string& text = response_.text;
    const std::size_t from = text.size() - std::min(text.size(), longest_);
    text += more;
    std::size_t cut = text.npos;
    for (const std::string& stop : stops_) cut = std::min(cut, text.find(stop, from));
    if (cut == text.npos) return;
    text.resize(cut);
    ended_ = true;
  }

  std::span<const Token> eos_;
  const std::vector<std::string>& stops_;
  Index max_tokens_;
  std::size_t longest_ = 0;  // stop
  StreamDecoder decoder_;
  Response response_{{}, 0, 0, true};
  bool ended_ = false;
};

class GenerationRun final : public FileTaskRun {
 public:
  GenerationRun(const TaskContext& context, const FileTask& task)
      : FileTaskRun(context, task), eos_(context.setup.tokenizer->special_tokens().eos) {}

 private:
  struct Row {
    Response* response;
    Sequence sequence;
    Reply reply;
    Next next;
  };

  Index tokens_to_come() const override { return task_.max_tokens; }

  void ask(const Tile& tile, std::span<PromptItem> items) override {
    std::vector<VariantStates> states(items.size(), tile.prefix);
    const std::vector<Next> firsts = run_prompts(tile, items, states);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < items.size(); ++i)
      for (std::size_t v = 0; v < tile.count; ++v) {
        rows.push_back({&items[i].responses[tile.first + v],
                        tile.wavefront.sequence(states[i], static_cast<int>(v)),
                        {*context_.setup.tokenizer, eos_, items[i].item->stops, task_.max_tokens},
                        firsts[i * tile.count + v]});
        if (std::ssize(rows) == tile.sequences) decode(rows);
      }
    decode(rows);
  }

  // [item][variant]: what comes first.
  std::vector<Next> run_prompts(const Tile& tile, std::span<const PromptItem> items,
                                std::span<VariantStates> states) {
    std::vector<VariantDocument> documents;
    std::vector<Index> last;
    for (const PromptItem& item : items) last.push_back(std::ssize(item.stem) - 1);
    for (std::size_t i = 0; i < items.size(); ++i)
      documents.push_back({items[i].stem, {&last[i], 1}, &states[i]});
    std::vector<Next> firsts(items.size() * tile.count);
    tile.wavefront.run(documents, [&](const VariantLogits& at) {
      for (std::size_t r = 0; r < at.variants.size(); ++r) {
        const Next next = next_of(read_(at, r));
        for (const int v : at.variants[r])
          firsts[at.document * tile.count + static_cast<std::size_t>(v)] = next;
      }
    });
    return firsts;
  }

  // Writes all rows to their ends; leaves none.
  void decode(std::vector<Row>& rows) {
    for (Row& row : rows) row.reply.accept(row.next);
    for (;;) {
      std::vector<Row*> going;
      std::vector<Item> batch;
      for (Row& row : rows)
        if (!row.reply.ended()) {
          going.push_back(&row);
          batch.push_back({&row.sequence, {&row.next.token, 1}, Want::last, Origin::sampled});
        }
      if (batch.empty()) break;
      cost_.sampled += std::ssize(batch);
      RunOptions options;
      options.compute = context_.setup.options.compute;
      std::vector<Next> nexts(going.size());
      run_batch(
          *context_.setup.model, batch, options,
          [&](std::size_t i, Index, std::span<const float> logits) { nexts[i] = next_of(read_(logits)); });
      for (std::size_t i = 0; i < going.size(); ++i) {
        going[i]->next = nexts[i];
        going[i]->reply.accept(nexts[i]);
      }
    }
    for (Row& row : rows) *row.response = row.reply.response();
    rows.clear();
  }

  Outcome outcome(const PromptItem& item, std::size_t variant) const override {
    Outcome outcome;
    outcome.resps = {item.responses[variant]};
    outcome.pred = stripped(outcome.resps[0].text);
    outcome.correct = outcome.pred == stripped(item.item->answer);
    outcome.acc = outcome.correct;
    return outcome;
  }

  const std::vector<Token> eos_;
};

}  // namespace

void run_generation(const TaskContext& context, const FileTask& task) { GenerationRun(context, task).run(); }

}  // namespace plait::ablate
