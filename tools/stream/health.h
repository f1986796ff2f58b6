// What a stream's state looks like at a position: tools/stream/README.md says what the numbers are.
#pragma once

#include <string>
#include <string_view>

#include "runtime/run/stream.h"

namespace plait::stream {

// Tokens before the position that decays and effective remembrance are measured over.
constexpr Index kHealthTokens = 256;

// One line of the health file. before: the stream kHealthTokens tokens earlier, or at its begin.
// stream_sha256: what a journal knows the stream by.
Json health_of(const Stream& stream, const Sequence& before, const std::string& stream_sha256);

// Whether two lines are the same but for rounding.
bool same_health(const Json& a, const Json& b);

// Bytes of the whole lines of positions up to `position` that a health file begins with. Throws Error naming
// `path` where it holds something else than lines of this stream and the beginning of one.
std::size_t health_until(std::string_view text, Index position, const std::string& stream_sha256,
                         const std::string& path);

}  // namespace plait::stream
