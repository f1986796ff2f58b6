#include "tests/ablate/task_fixtures.h"

#include "runtime/base/error.h"
#include "tests/testing.h"

namespace plait::testing {
namespace {

class MergingDecoding final : public Decoding {
 public:
  explicit MergingDecoding(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(Token token) override { return tokenizer_.piece(token); }
  std::string finish() override { return ""; }

 private:
  const Tokenizer& tokenizer_;
};

Edit edit(const char* where, const char* op, const Json& more = Json::object()) {
  Json json = {{"where", where}, {"operator", op}};
  json.update(more);
  return parse_edit(json);
}

}  // namespace

std::shared_ptr<const Model> asked_model() {
  static const auto model = random_model(Json::parse(R"({
    "plait_format": 1, "name": "asked", "vocab": 256, "width": 32,
    "numerics": {"chunk": 16, "key_block": 64, "key_span": 64},
    "pattern": ["delta", "full", "delta"],
    "blocks": {
      "delta": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "gated_delta_net", "num_heads": 2,
                 "head_dim": 8, "value_head_dim": 8},
                {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}],
      "full": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "softmax_attention", "num_heads": 2,
                "head_dim": 8, "rope": {"theta": 10000}, "window": 100},
               {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}]
    },
    "final_norm": {"kind": "rms_norm"}, "head": {}})"),
                                         5);
  return model;
}

std::vector<EditList> asked_variants() {
  return {
      {},
      {edit("blocks.1", "skip")},
      {edit("blocks.0.mixer/state", "reset", {{"tokens", {70, nullptr}}})},
      {edit("blocks.2.mixer/decay", "one")},
      {edit("blocks.1.mlp", "scale", {{"value", 0.5}, {"phase", "after_prefix"}, {"prefix_tokens", 120}})},
      {edit("blocks.2.mixer", "zero", {{"phase", "decode"}})}};
}

std::vector<std::shared_ptr<const EditPlan>> plans_of(const Model& model,
                                                      const std::vector<EditList>& variants) {
  std::vector<std::shared_ptr<const EditPlan>> plans;
  for (const EditList& edits : variants)
    plans.push_back(edits.empty() ? nullptr : std::make_shared<const EditPlan>(model, edits));
  return plans;
}

MergingTokenizer::MergingTokenizer(Token eos) : eos_(eos) {
  for (char c = ' '; c <= '~'; ++c) pieces_.push_back(std::string(1, c));
  pieces_.push_back("\n");
  for (const char* more : {"\n\n", "\n\nQ", ": ", ": b", " b", "be", "A.", "er: ", "12;", " 4", "?", "th"})
    pieces_.push_back(more);
}

std::vector<Token> MergingTokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<Token> tokens;
  if (specials == Specials::with) tokens.push_back(kBos);
  while (!text.empty()) {
    std::size_t best = pieces_.size();
    for (std::size_t p = 0; p < pieces_.size(); ++p)
      if (text.starts_with(pieces_[p]) &&
          (best == pieces_.size() || pieces_[p].size() > pieces_[best].size()))
        best = p;
    if (best == pieces_.size()) fail("no token begins '", text, "'");
    tokens.push_back(static_cast<Token>(best));
    text.remove_prefix(pieces_[best].size());
  }
  if (specials == Specials::with) tokens.push_back(eos_);
  return tokens;
}

std::string MergingTokenizer::piece(Token token) const {
  if (token < 0 || token >= vocab()) fail("token ", token, " is outside the vocabulary of ", vocab());
  return static_cast<std::size_t>(token) < pieces_.size() ? pieces_[static_cast<std::size_t>(token)] : "#";
}

std::unique_ptr<Decoding> MergingTokenizer::decoding(Specials) const {
  return std::make_unique<MergingDecoding>(*this);
}

ablate::Task task_of(const Json& json, const std::string& folder) {
  const ablate::Document document{"test", json, {}};
  return ablate::parse_task(ablate::Value(document), folder);
}

AskedSamples ask(const ablate::Task& task, const ablate::TaskSetup& setup, Index done) {
  AskedSamples all;
  ablate::run_task(task, setup, done, [&](const ablate::AskedBatch& batch) {
    for (const ablate::ItemResult& item : batch.items) {
      all.items.push_back(item);
      for (const ablate::QueryResult& query : item.queries)
        for (std::size_t v = 0; v < query.outcomes.size(); ++v)
          all.samples.push_back(ablate::sample_json(item, query, v, cat("c", v)).dump());
    }
    all.ends.push_back(done + std::ssize(all.items));
    all.costs.push_back(batch.cost);
    all.cost += batch.cost;
  });
  return all;
}

}  // namespace plait::testing
