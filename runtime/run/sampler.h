// Draws the next token from a row of logits. Every draw is a counter-based function of (seed, stream id,
// position), so forks, rollbacks, batching and restores draw what the undisturbed stream would have drawn.
// Nothing but the settings is state.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/view.h"
#include "runtime/graph/config.h"

namespace plait {

// Applied in this order, which is the one of Hugging Face's generate: repetition penalty, temperature, top-k,
// top-p, min-p. A value at its default switches its filter off.
struct SamplerSettings {
  double temperature = 1;         // logits are divided by it; 0 = greedy
  double top_p = 1;               // (0, 1]: the likeliest tokens until their probabilities reach top_p
  double min_p = 0;               // [0, 1): tokens at least min_p times as likely as the likeliest
  double repetition_penalty = 1;  // > 0: a seen token's logit is divided by it if positive, else multiplied
  Index top_k = 0;                // the k likeliest tokens; 0 = all
  std::uint64_t seed = 0;
  bool operator==(const SamplerSettings&) const = default;
};

Json to_json(const SamplerSettings& settings);
// Absent keys take their defaults. Throws Error on an unknown key, a wrong type or a bad value.
SamplerSettings parse_sampler(const Json& json);

// Immutable; shared by threads.
class Sampler {
 public:
  // Throws Error naming the setting and its value when it is out of range or not a number.
  explicit Sampler(SamplerSettings settings = {});
  const SamplerSettings& settings() const { return settings_; }

  // The token for `position` of stream `stream_id`. logits [vocab]; `history`: the tokens the repetition
  // penalty looks at (it is not read when the penalty is 1). Tokens of equal logit rank by lower index first,
  // here and in greedy; exactly top_k tokens are kept. -infinity marks a token that cannot occur. Throws
  // Error on a NaN or +infinity, when no token can occur, and on a token of the history outside the
  // vocabulary.
  Token draw(std::span<const float> logits, std::uint64_t stream_id, Index position,
             std::span<const Token> history) const;

 private:
  SamplerSettings settings_;
};

}  // namespace plait
