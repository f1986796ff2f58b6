// Verification of a model: every node of the fast engine against its double-precision twin, and equality of
// bits over everything that must not matter (architecture section 6).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/model.h"
#include "tools/equalities.h"

namespace plait {

// One node in one mode, on the fast engine's own inputs.
struct NodeCheck {
  std::string name, kind;
  Numerics numerics;
  double rel_error;  // norm of the difference / norm of the twin's output; the largest over groups of rows
  double bound;      // see node_bound
  bool passed() const { return rel_error <= bound; }  // false for NaN
};

struct Verification {
  std::vector<NodeCheck> nodes;  // exact and fast, in graph order
  std::vector<EqualityCheck> checks;
  double logit_error_exact = 0, logit_error_fast = 0;  // end to end: twins chained from the tokens in double
  bool passed() const;
};

struct VerifyOptions {
  int threads = 1;
  std::function<void(double fraction, const std::string& what)> progress = {};
};

// tokens: at least two; a text that crosses the model's grids and windows shows the most.
Verification verify(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                    const VerifyOptions& options);

// The two halves of it.
void compare_with_twins(const Model& model, std::span<const Token> tokens, const VerifyOptions& options,
                        Verification& result);
void check_equalities(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                      const VerifyOptions& options, Verification& result);

}  // namespace plait
