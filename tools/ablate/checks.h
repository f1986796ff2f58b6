// The validity gate of a study (ablation-and-streaming 6, P1): checks C1 to C10 of section 7 on the very
// model, arithmetic and conditions that are to be measured. No study writes results after a failed check.
//
// Cost. Checks of single blocks and of conditions run the whole model on a few tokens: eight more than the
// least common multiple of its grids, which are at most 64 of them counted. What needs long texts or double
// precision everywhere (C5 past every window, C10) runs models above 50 M parameters as an excerpt: one block
// of every sort with its own weights, 2,048 tokens of the vocabulary.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/edit_plan.h"
#include "runtime/run/model.h"

namespace plait::ablate {

struct Check {
  enum class Verdict { passed, failed, not_applicable };
  std::string id;    // "C3"
  std::string name;  // "layer.skip is the model without the block"
  Verdict verdict = Verdict::failed;
  std::string detail;  // a sentence with numbers; not_applicable: the reason
  double seconds = 0;
};

// What is checked. Tokens: the study's own text, at least one; repeated from the start where a check takes
// more.
struct Subject {
  std::shared_ptr<const Model> model;
  std::span<const Token> tokens;
  Compute compute;                            // of C1 to C8; C9 and C10 speak of f32 and run `exact`
  std::size_t memory = std::size_t{1} << 30;  // of a walk of variants, bytes
};

// Each throws Error on a token outside the vocabulary.
Check check_empty_intervention(const Subject& subject);  // C1
Check check_strength_zero(const Subject& subject);       // C2: every site and operator of the model
Check check_skip(const Subject& subject);                // C3: every block
Check check_splits(const Subject& subject);              // C5
Check check_resumption(const Subject& subject);          // C6: save and load, rollback, under edits
Check check_shadow(const Subject& subject);              // C7: every residual step
Check check_mean_of_constant(const Subject& subject);    // C8: every node
Check check_effective_matrix(const Subject& subject);    // C9: every delta-rule layer
Check check_double_precision(const Subject& subject);    // C10
// C4: a sample of the conditions, with the first, the last and the one of the most edits.
Check check_wavefront(const Subject& subject, std::span<const EditList> conditions,
                      const References& references);

// All ten, in order. Called before each check with the share that is done: progress(0.3, "C4 ...").
using CheckProgress = std::function<void(double fraction, const std::string& what)>;
std::vector<Check> run_checks(const Subject& subject, std::span<const EditList> conditions,
                              const References& references, const CheckProgress& progress = {});

bool passed(std::span<const Check> checks);   // none failed
const char* name_of(Check::Verdict verdict);  // "passed", "failed", "not applicable"
// {"passed", "checks": [{"id", "name", "verdict", "passed" (null where not applicable), "detail",
// "seconds"}]}
Json to_json(std::span<const Check> checks);
void write_checks(const std::string& path,
                  std::span<const Check> checks);  // checks.json, whole or not at all

}  // namespace plait::ablate
