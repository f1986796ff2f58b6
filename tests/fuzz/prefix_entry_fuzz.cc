// Contents of a prefix store's entry under a trailer that fits them: an Error or an entry that packs and joins.
#include <cstdlib>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "weights/prefix_entry.h"
#include "weights/trailer.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  const Trailer trailer = make_trailer(size, sha256(bytes));
  bytes.append(reinterpret_cast<const char*>(&trailer), sizeof trailer);
  PrefixEntry entry;
  try {
    entry = unpack(bytes, "", "file 'x'");
  } catch (const Error&) {
    return 0;
  }
  const PackedEntry packed = pack(entry);
  if (pack(unpack(packed.bytes, packed.hash, "file 'x'")).bytes != packed.bytes) std::abort();
  try {
    const Snapshot snapshot = join({entry}, "file 'x'");
    if (static_cast<Index>(snapshot.tokens.size()) != entry.position) std::abort();
  } catch (const Error&) {
  }
  // As if it built on itself: rows are taken from the entry before where they fit.
  PrefixEntry next = entry;
  next.base = entry.position;
  next.position = entry.position + entry.position - entry.base;
  try {
    join({entry, next}, "file 'x'");
  } catch (const Error&) {
  }
  return 0;
}
