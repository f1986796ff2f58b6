// Jinja templates as transformers 5 renders them: ImmutableSandboxedEnvironment of Jinja 3.1 with trim_blocks
// and lstrip_blocks, the extensions loopcontrols and `generation`, the globals raise_exception and
// strftime_now, json.dumps behind `tojson`. jinja.md lists what is not interpreted.
#pragma once

#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/error.h"

namespace plait::jinja {

// Keeps the order of keys, which templates walk and print.
using OrderedJson = nlohmann::ordered_json;

// What a template refuses by itself, raise_exception(message).
class Raised : public Error {
 public:
  using Error::Error;
};

struct Statement;

// Immutable; shared by threads.
class Template {
 public:
  // `source` is UTF-8, `origin` names it in messages. Throws Error "<origin>: line N: ..." for what is no
  // Jinja and for a statement this interpreter does not know.
  Template(std::string_view source, std::string origin);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // `variables` is an object; `now` is what strftime_now shows, in local time. Throws Raised with the
  // template's own message, and Error "<origin>: line N: ..." where Jinja raises, where the template uses
  // something that is not interpreted, and when it passes the limits of jinja_machine.h.
  std::string render(const OrderedJson& variables, std::time_t now) const;

 private:
  std::string origin_;
  std::vector<std::unique_ptr<const Statement>> body_;
};

}  // namespace plait::jinja
