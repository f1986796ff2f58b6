// A node's settings: typed reading of its JSON object, in which a key nobody read is an error.
#pragma once

#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/numerics.h"

namespace plait {

using Json = nlohmann::json;

// What `plait kinds` prints of one option; collected by the reads themselves, so it cannot disagree with
// them.
struct Option {
  std::string name;  // "num_heads", "rope.theta"
  std::string type;  // "integer", "number", "boolean", "string", "object", "list", or "silu|relu|identity"
  std::string fallback;  // JSON text of the default, "required", or "absent"
  std::string help;
};

// What a node knows of its surroundings: the width of its first input port and the model's constants.
struct Surroundings {
  Index width = 0;        // columns of the first input port
  Index inputs = 1;       // number of input ports
  Index vocab = 0;        // the card's
  Index model_width = 0;  // the card's
  Grids grids;
  bool causal = true;  // the card's
};

// Every read names the key, its default and one line of help; the same reader code therefore parses and
// documents. A wrong type, a value outside its range or choice, and (in finish) an unread key throw a
// sentence that names the node, the key and the value. Not copyable: one reader, one parse.
class Config {
 public:
  Config(std::string node, Json settings, Surroundings surroundings);
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;
  ~Config();

  const std::string& node() const { return node_; }
  const Surroundings& surroundings() const { return surroundings_; }
  Index width() const { return surroundings_.width; }

  // Required: no default. `low` is the smallest legal value.
  Index integer(const std::string& key, const std::string& help, Index low = 1);
  // A number that f32 holds.
  double number(const std::string& key, const std::string& help);
  // Optional.
  Index integer_or(const std::string& key, Index fallback, const std::string& help, Index low = 0);
  double number_or(const std::string& key, double fallback, const std::string& help,
                   double low = std::numeric_limits<double>::lowest());
  bool boolean_or(const std::string& key, bool fallback, const std::string& help);
  // One of `choices`, the first of which is the default; returns its index.
  int choice(const std::string& key, std::initializer_list<const char*> choices, const std::string& help);
  std::string text_or(const std::string& key, const std::string& fallback, const std::string& help);
  std::vector<double> numbers_or(const std::string& key, const std::vector<double>& fallback,
                                 const std::string& help);
  std::vector<std::string> texts_or(const std::string& key, const std::vector<std::string>& fallback,
                                    const std::string& help);
  // A nested object, or null when absent (then its options are not listed). The child is owned by this
  // Config; its unread keys are errors of finish() here.
  Config* object(const std::string& key, const std::string& help);
  // The same with defaults for everything inside: absent is empty, and its options are listed.
  Config& section(const std::string& key, const std::string& help);

  // Whether a setting is there; does not read it.
  bool given(const std::string& key) const { return settings_.contains(key); }

  // A sentence about this node: "node 'blocks.3.mixer' (softmax_attention): " + message.
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const;

  // Throws if a key was never read. Call after the last read; a kind's reader ends with it.
  void finish() const;
  std::vector<Option> options() const;  // nested ones included, with their path: "rope.theta"

 private:
  const Json* take(const std::string& key, const std::string& type, const std::string& fallback,
                   const std::string& help);
  Config& child(const std::string& key, const Json& settings);
  double checked_number(const std::string& key, const Json& value, double low) const;
  [[noreturn]] void refuse_text(const std::string& message) const;
  std::string node_;
  Json settings_;
  Surroundings surroundings_;
  std::string prefix_;
  std::vector<std::string> read_;
  std::vector<Option> options_;
  std::vector<std::unique_ptr<Config>> children_;
};

}  // namespace plait

#include "runtime/base/error.h"

template <class... Parts>
void plait::Config::refuse(const Parts&... parts) const {
  refuse_text(cat(parts...));
}
