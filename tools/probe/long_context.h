// plait probe long_context: what models make of far tokens: loss by the length of the context, windows
// against a state that goes on, and answers that stand ever further back (README.md).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/edit.h"
#include "runtime/run/model.h"
#include "tools/ablate/tasks.h"
#include "tools/likelihood.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// Tokens that are predicted from [begin, end) tokens.
struct ContextBin {
  Index begin, end;
};
// Doubling from 64: [1, 64), [64, 128), .. up to what a text of `tokens` tokens has.
std::vector<ContextBin> context_bins(Index tokens);

// A model under edits.
struct Variant {
  std::string name;
  EditList edits;
};
// The model as it is; the model under a window, if `window` is not 0; and, for each kind of mixer, without
// its mixers. off: these kinds only; "none" for none of them. What cannot be is told in `notes`, a sentence
// each. Throws Error naming a kind that is not there.
std::vector<Variant> long_context_variants(const Model& model, Index window, Index sinks,
                                           const std::vector<std::string>& off,
                                           std::vector<std::string>& notes);

// Nats of tokens 1, 2, .. from all tokens before, under edits. `seen` is told now and then how many have
// been read.
std::vector<double> losses_by_position(std::shared_ptr<const Model> model, const EditList& edits,
                                       std::span<const Token> tokens, const Compute& compute,
                                       const std::function<void(Index seen)>& seen = {});

// Nats of tokens 1, 2, .. when the model starts afresh every `stride` tokens on the last `window` ones: token
// t is predicted from t - c tokens, window - stride < t - c <= window, from the start on as many as there
// are. stride = window: disjoint windows, each with one token of context.
std::vector<double> restarted_losses(std::shared_ptr<const Model> model, std::span<const Token> tokens,
                                     Index window, Index stride, const Compute& compute,
                                     const std::function<void(Index seen)>& seen = {});

// Of one generator and length, one variant.
struct FarAnswers {
  Index answers = 0;
  double distance = 0;  // tokens back to the answer, mean
  Mean accuracy;        // share of right tokens of an answer
  Mean right;           // share of answers that are right to the last token
  Mean nll;             // nats per token of the answers
};
// [length][variant]
std::vector<std::vector<FarAnswers>> far_answers(const ablate::Generator& generator,
                                                 const ablate::TaskSetup& setup);

class LongContext final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  struct Subject;  // a model and what is found of it
  // text: the bytes of text_
  void read_text(const std::string& text, const Common& common, Subject& subject) const;
  bool asks() const;   // made-up questions
  void check() const;  // the flags; throws UsageError
  void ask(const Common& common, Subject& subject) const;
  ablate::Generator generator(const std::string& task, bool text, std::uint64_t seed) const;

  std::vector<std::string> models_, off_;
  std::string text_;
  Index length_ = 8192, window_ = 64, sinks_ = 4, items_ = 16, pairs_ = 4;
  std::vector<Index> distances_ = {128, 256, 512, 1024};
};

}  // namespace plait::probe
