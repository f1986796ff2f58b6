// Cards: an Error, or a graph that says the same again in its explicit form.
#include <cstdlib>

#include "runtime/base/error.h"
#include "runtime/run/model.h"
#include "weights/json_text.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  try {
    const Graph graph =
        expand_card(parse_json({reinterpret_cast<const char*>(data), size}, "the card"), "file 'x'");
    const Json listed = explicit_graph(graph);
    if (explicit_graph(expand_card(listed, "file 'x'")) != listed) std::abort();
    Model::wanted(graph);
  } catch (const Error&) {
  }
  return 0;
}
