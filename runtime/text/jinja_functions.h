// The functions every template can call.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/text/jinja_value.h"

namespace plait::jinja {

// By name: range, dict, namespace, raise_exception, strftime_now; those Jinja has besides throw Error when
// called.
std::vector<std::pair<std::string, Value>> global_functions();

}  // namespace plait::jinja
