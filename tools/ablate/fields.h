// One JSON object of a file, read strictly: what is missing, of a wrong type or never asked for is an error
// that begins with where the object stands.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/view.h"
#include "runtime/graph/config.h"

namespace plait::ablate {

class Fields {
 public:
  // where: "'arc.jsonl', line 3". Borrows `json`. Throws Error if it is no object.
  Fields(const Json& json, std::string where);

  const std::string& where() const { return where_; }
  bool has(const std::string& key) const { return json_.contains(key); }
  const Json& value(const std::string& key);  // required
  std::string text(const std::string& key);   // required
  std::string text_or(const std::string& key, const std::string& fallback);
  std::vector<std::string> texts(const std::string& key);  // required: a list
  Index integer_or(const std::string& key, Index fallback, Index low,
                   Index high = std::numeric_limits<Index>::max());
  std::vector<Index> integers(const std::string& key, Index low);                // required: one or a list
  std::vector<double> numbers(const std::string& key, double low, double high);  // required: one or a list
  // The index of a text among `choices`, the first of which is the default.
  std::size_t choice(const std::string& key, const std::vector<std::string>& choices);
  void finish() const;  // throws Error on a key nobody asked for

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(where_, ": ", parts...);
  }

 private:
  const Json* find(const std::string& key);  // null if absent
  std::vector<Json> one_or_list(const std::string& key);

  const Json& json_;
  std::string where_;
  std::vector<std::string> known_;
};

}  // namespace plait::ablate
