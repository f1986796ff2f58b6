// What tests of tasks share: a small model that reads bytes and more, variants of it, and a tokenizer whose
// tokens straddle the places where texts are put together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/run/edit_plan.h"
#include "runtime/run/model.h"
#include "runtime/text/tokenizer.h"
#include "tools/ablate/document.h"
#include "tools/ablate/tasks.h"

namespace plait::testing {

// vocab 256: gated_delta_net, softmax_attention with a window, gated_delta_net.
std::shared_ptr<const Model> asked_model();

// The baseline, a skipped block, edits of the state that begin late, one after a prefix, one of decoding.
std::vector<EditList> asked_variants();
std::vector<std::shared_ptr<const EditPlan>> plans_of(const Model& model,
                                                      const std::vector<EditList>& variants);

// Printable characters and "\n" are tokens 0 to 95; further tokens join several of them, the longest first.
// Texts begin with token 110 and end with `eos`.
class MergingTokenizer final : public Tokenizer {
 public:
  static constexpr Token kBos = 110;
  explicit MergingTokenizer(Token eos = 111);
  std::string kind() const override { return "merging"; }
  Index vocab() const override { return 112; }
  std::vector<Token> encode(std::string_view text, Specials specials) const override;
  std::string piece(Token token) const override;
  std::unique_ptr<Decoding> decoding(Specials specials) const override;
  SpecialTokens special_tokens() const override { return {kBos, {eos_}, {}}; }
  TokenizerFiles files() const override { return {}; }

 private:
  std::vector<std::string> pieces_;
  Token eos_;
};

// A task of a JSON value; files are named from the folder of the tests' own.
ablate::Task task_of(const Json& json, const std::string& folder = ".");

// What a run gives, one dump of each sample.
struct AskedSamples {
  std::vector<ablate::ItemResult> items;
  std::vector<std::string> samples;     // by item, query and variant
  std::vector<Index> ends;              // of the batches: how many items there were then
  std::vector<ablate::TaskCost> costs;  // of the batches
  ablate::TaskCost cost;                // of all
};
AskedSamples ask(const ablate::Task& task, const ablate::TaskSetup& setup, Index done = 0);

}  // namespace plait::testing
