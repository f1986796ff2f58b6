// Typed reading of a published config.json: ranges checked, every default noted, every unknown key an error.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "runtime/graph/config.h"

namespace plait {

// A key that is null counts as absent. Throws Error naming file, key and value. `notes` and `object` outlive
// it.
class SourceConfig {
 public:
  // `where` names the object in messages: "file 'x/config.json'".
  SourceConfig(const Json& object, std::string where, std::vector<std::string>& notes);

  const std::string& where() const { return where_; }
  bool has(const std::string& key) const;

  // A whole number from `low` to 2^24.
  Index size(const std::string& key, Index low = 1);
  Index size_or(const std::string& key, Index fallback, Index low = 1);
  double number(const std::string& key);  // finite
  double number_or(const std::string& key, double fallback);
  bool flag(const std::string& key);
  bool flag_or(const std::string& key, bool fallback);
  std::string text(const std::string& key);
  std::vector<std::string> texts(const std::string& key);
  // Exactly as many numbers as `fallback` has.
  std::vector<double> numbers_or(const std::string& key, const std::vector<double>& fallback);
  SourceConfig object(const std::string& key);  // finish() is its own
  const Json& raw(const std::string& key);      // null when absent

  // The only value of `key` this family is known with; absent is as good.
  void only(const std::string& key, const Json& value);
  // Keys that do not change what the model computes.
  void harmless(std::initializer_list<const char*> keys);
  // What every configuration may carry: token ids, training and bookkeeping.
  void harmless_everywhere();

  void note(const std::string& sentence) { notes_->push_back(sentence); }
  // Throws if a key was neither read nor named harmless.
  void finish() const;

 private:
  const Json* take(const std::string& key);
  const Json& require(const std::string& key);
  void note_default(const std::string& key, const Json& value);
  Index whole(const std::string& key, const Json& value, Index low) const;
  double finite(const std::string& key, const Json& value) const;

  const Json* object_;
  std::string where_;
  std::vector<std::string>* notes_;
  std::set<std::string> known_;
};

// Parses config.json. Python writes infinities as the bare word Infinity, which JSON does not know: it
// becomes
// {"__float__": "Infinity"}, the form newer files have.
Json parse_config(const std::string& text, const std::string& what);

}  // namespace plait
