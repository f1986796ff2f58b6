#include "weights/trailer.h"

#include <cassert>

namespace plait {

Trailer make_trailer(std::uint64_t length, const std::string& hex) {
  Trailer trailer;
  assert(hex.size() == 2 * sizeof trailer.sha256);
  const auto nibble = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
  trailer.length = length;
  for (std::size_t i = 0; i < sizeof trailer.sha256; ++i)
    trailer.sha256[i] = static_cast<unsigned char>(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
  return trailer;
}

}  // namespace plait
