// What bounds a template's work: a hostile one ends with an Error instead of taking memory or time.
#pragma once

#include <cstddef>
#include <ctime>
#include <memory>
#include <vector>

#include "runtime/text/jinja_value.h"

namespace plait::jinja {

// One rendering. Its limits: steps (a node evaluated, a value walked, 16 bytes looked at), bytes made in all,
// calls within calls.
class Machine {
 public:
  static constexpr std::size_t kMaxSteps = 50'000'000;
  static constexpr std::size_t kMaxBytes = std::size_t{512} << 20;
  static constexpr int kMaxNesting = 1000;

  explicit Machine(std::time_t now) : now_(now) {}
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Throw Error when the limit is passed.
  void step(std::size_t count = 1);
  void make(std::size_t bytes);
  void make(const Value& value);  // its own bytes, not those of the values it holds

  // Held while something is evaluated that may evaluate further.
  class Nested {
   public:
    explicit Nested(Machine& machine);
    ~Nested() { --machine_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Machine& machine_;
  };

  // Objects that may hold each other live until the end of the rendering.
  void keep(std::shared_ptr<Namespace> object) { namespaces_.push_back(std::move(object)); }
  void keep(std::shared_ptr<Loop> object) { loops_.push_back(std::move(object)); }

  std::time_t now() const { return now_; }
  int line = 1;  // of the template, where evaluation is

 private:
  std::time_t now_;
  std::size_t steps_ = 0, bytes_ = 0;
  int nesting_ = 0;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<std::shared_ptr<Loop>> loops_;
};

}  // namespace plait::jinja
