// Headers of safetensors files: an Error or a set of tensors that covers the data exactly.
#include <cstdlib>

#include "runtime/base/error.h"
#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  // The first byte is how many bytes follow the header, in steps of 4.
  if (size == 0) return 0;
  const std::uint64_t data_bytes = 4u * data[0];
  const std::string_view json(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    std::uint64_t covered = 0;
    for (const auto& [name, entry] : plait::parse_safetensors_header(json, data_bytes, "file 'x'")) {
      if (entry.begin > entry.end || entry.end > data_bytes) std::abort();
      covered += entry.end - entry.begin;
    }
    if (covered != data_bytes) std::abort();
  } catch (const plait::Error&) {
  }
  return 0;
}
