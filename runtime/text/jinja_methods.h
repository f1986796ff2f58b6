// Methods of Python's str, list, tuple, dict and float that templates call.
#pragma once

#include <optional>
#include <string>

#include "runtime/text/jinja_machine.h"

namespace plait::jinja {

// value.name as a callable; Undefined for one that would change the value, which the sandbox forbids; nothing
// if Python's type has no such method. One that Python has and this interpreter has not throws Error when
// called.
std::optional<Value> method(const Value& value, const std::string& name);

}  // namespace plait::jinja
