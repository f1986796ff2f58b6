// What a stream's state looks like at a position: tools/stream/README.md says what the numbers are.
#pragma once

#include "runtime/run/stream.h"

namespace plait::stream {

// Tokens before the position that decays and effective remembrance are measured over.
constexpr Index kHealthTokens = 256;

// One line of the health file. before: the stream kHealthTokens tokens earlier, or at its begin.
Json health_of(const Stream& stream, const Sequence& before);

}  // namespace plait::stream
