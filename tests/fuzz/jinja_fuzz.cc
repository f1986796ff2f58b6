// Any bytes as a chat template: rendered or refused with an Error, within the interpreter's limits.
#include <cstdint>

#include "runtime/text/jinja.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const plait::jinja::OrderedJson kVariables = plait::jinja::OrderedJson::parse(
      R"({"messages": [{"role": "user", "content": "Hi \u00e9"}, {"role": "assistant", "content": null}],
          "tools": [{"name": "f", "parameters": {"x": [1, 2.5, true]}}], "add_generation_prompt": true, "n": 3})");
  try {
    plait::jinja::Template({reinterpret_cast<const char*>(data), size}, "fuzz").render(kVariables, 0);
  } catch (const plait::Error&) {
  }
  return 0;
}
