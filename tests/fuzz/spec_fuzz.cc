// Specs: an Error, or a study that reads the same after it was written, and whose edits are edits. The first
// byte chooses the format.
#include <cstdlib>

#include "runtime/base/error.h"
#include "tools/ablate/spec.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  using namespace plait::ablate;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const Document document = read_document(text, data[0] % 2 ? "x.yaml" : "x.json");
    try {
      parse_parts(document);
    } catch (const Error&) {
    }
    const Study study = parse_study(document, "");
    const Json written = to_json(study);
    if (parse_study({"again.json", written, {}}, "") != study) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
