// A spec file, YAML or JSON, as one JSON value that knows where each of its parts was written.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/graph/config.h"

namespace plait::ablate {

// The line each value began at, in the shape of the JSON value; 0 where no line is known (JSON files).
struct Place {
  int line = 0;
  std::map<std::string, Place> keys;  // of an object
  std::vector<Place> items;           // of a list
};

struct Document {
  std::string origin;  // file name, for messages
  Json json;
  Place place;
};

// Reads a document by the end of its name: .json is JSON, .yaml and .yml are YAML, anything else is JSON if
// it begins with { or [. YAML's plain scalars follow the core schema of YAML 1.2 (`off`, `yes` and `0-7` are
// strings); aliases are copies and count in full; tags, duplicate keys, keys that are no scalars, numbers
// that are not finite and second documents are refused. At most 4 MiB, 16 MiB with aliases, 64 levels.
// Throws Error naming origin and line.
Document read_document(std::string_view text, const std::string& origin);

// A value of a document, as a reader walks it. Borrows from the document.
class Value {
 public:
  explicit Value(const Document& document);
  const Json& json() const { return *json_; }
  const std::string& what() const { return what_; }  // "'draws' of 'controls'"

  // "'F.yaml', line 7: " + message.
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    refuse_text(cat(parts...));
  }
  [[noreturn]] void refuse_type(const std::string& wanted) const;

  std::string text() const;  // a non-empty string
  std::string one_of(const std::vector<std::string>& choices) const;
  double number(double low, double high) const;
  Index integer(Index low, Index high) const;
  std::vector<Value> items() const;            // of a list
  std::vector<Value> items_or_single() const;  // of a list, or the value itself
  // A member of an object; asserts that it is there.
  Value at(const std::string& key) const;

 private:
  Value() = default;
  [[noreturn]] void refuse_text(const std::string& message) const;
  const Document* document_ = nullptr;
  const Json* json_ = nullptr;
  const Place* place_ = nullptr;
  std::string what_;
  int line_ = 0;
};

// An object of which every key must be taken.
class Section {
 public:
  explicit Section(Value value);  // refuses what is no object
  const Value& value() const { return value_; }
  bool has(const std::string& key) const { return value_.json().contains(key); }
  Value get(const std::string& key);  // refuses a missing key
  // Calls read(value) if the key is there.
  template <class Read>
  void maybe(const std::string& key, Read&& read) {
    known_.push_back(key);
    if (has(key)) read(value_.at(key));
  }
  Json rest();          // what nobody took, as one object; takes it
  void finish() const;  // refuses what nobody took, listing the keys asked for

 private:
  Value value_;
  std::vector<std::string> known_;
};

}  // namespace plait::ablate
