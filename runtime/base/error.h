// The one exception class and the one way to build its sentence.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace plait {

// Bad input: a file, card, text, spec or argument the user can mend. The message is a full sentence that
// names the file, node or tensor and both values. Broken invariants are asserts, not errors.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Joins its arguments as text: cat("node '", name, "' has width ", width).
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(cat(parts...));
}

}  // namespace plait
