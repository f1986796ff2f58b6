// The last 64 bytes of snapshots and of a prefix store's entries, little-endian: what tells a whole file from
// one that was cut or changed.
#pragma once

#include <cstdint>
#include <string>

namespace plait {

struct Trailer {
  char magic[8] = {'p', 'l', 'a', 'i', 't', 'e', 'n', 'd'};
  std::uint64_t length = 0;  // of everything before it
  unsigned char sha256[32] = {};
  std::uint64_t version = 1;
  std::uint64_t zero = 0;
};
static_assert(sizeof(Trailer) == 64);

// hex: the SHA-256 of the `length` bytes before it, as Digest gives it.
Trailer make_trailer(std::uint64_t length, const std::string& hex);

}  // namespace plait
