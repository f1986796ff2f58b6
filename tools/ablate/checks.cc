#include "tools/ablate/checks.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/run/batch.h"
#include "tools/ablate/checking.h"
#include "tools/ablate/reduced_model.h"
#include "tools/program.h"

namespace plait::ablate {
namespace {

constexpr Index kLargeModel = 50'000'000;  // parameters
constexpr Index kLargeVocabulary = 16384;  // logits of long texts are held
constexpr Index kExcerptVocabulary = 2048;
constexpr Index kFarthestBoundary = 64;

}  // namespace

Finding pass(std::string detail) { return {Check::Verdict::passed, std::move(detail)}; }
Finding refute(std::string detail) { return {Check::Verdict::failed, std::move(detail)}; }
Finding inapplicable(std::string reason) { return {Check::Verdict::not_applicable, std::move(reason)}; }

Check timed(const char* id, const char* name, const std::function<Finding()>& find) {
  const Stopwatch watch;
  Finding finding = find();
  return {id, name, finding.verdict, std::move(finding.detail), watch.seconds()};
}

std::vector<Token> text_of(const Subject& subject, Index count) {
  if (subject.tokens.empty()) fail("the checks of a study need a text, this one has no tokens");
  std::vector<Token> text;
  for (Index i = 0; i < count; ++i)
    text.push_back(subject.tokens[static_cast<std::size_t>(i) % subject.tokens.size()]);
  check_tokens(*subject.model, text);
  return text;
}

Index short_length(const Model& model) { return std::min(model.boundary(), kFarthestBoundary) + 8; }

Affordable affordable(const std::shared_ptr<const Model>& model) {
  if (model->parameter_count() <= kLargeModel && model->card().vocab <= kLargeVocabulary)
    return {model, "the model"};
  const auto part = excerpt(*model, kExcerptVocabulary);
  return {part, cat("an excerpt of the model (", blocks_of(part->graph()).size(), " of its ",
                    blocks_of(model->graph()).size(), " blocks, one of every sort, ", part->card().vocab,
                    " of its ", model->card().vocab, " tokens)")};
}

std::vector<Check> run_checks(const Subject& subject, std::span<const EditList> conditions,
                              const References& references, const CheckProgress& progress) {
  const std::vector<std::function<Check()>> all = {
      [&] { return check_empty_intervention(subject); },
      [&] { return check_strength_zero(subject); },
      [&] { return check_skip(subject); },
      [&] { return check_wavefront(subject, conditions, references); },
      [&] { return check_splits(subject); },
      [&] { return check_resumption(subject); },
      [&] { return check_shadow(subject); },
      [&] { return check_mean_of_constant(subject); },
      [&] { return check_effective_matrix(subject); },
      [&] { return check_double_precision(subject); }};
  std::vector<Check> checks;
  for (const auto& check : all) {
    if (progress)
      progress(static_cast<double>(checks.size()) / static_cast<double>(all.size()),
               cat("check C", checks.size() + 1));
    checks.push_back(check());
  }
  return checks;
}

bool passed(std::span<const Check> checks) {
  return std::none_of(checks.begin(), checks.end(),
                      [](const Check& c) { return c.verdict == Check::Verdict::failed; });
}

const char* name_of(Check::Verdict verdict) {
  switch (verdict) {
    case Check::Verdict::passed:
      return "passed";
    case Check::Verdict::failed:
      return "failed";
    case Check::Verdict::not_applicable:
      break;
  }
  return "not applicable";
}

Json to_json(std::span<const Check> checks) {
  Json list = Json::array();
  for (const Check& c : checks) {
    const bool judged = c.verdict != Check::Verdict::not_applicable;
    list.push_back({{"id", c.id},
                    {"name", c.name},
                    {"verdict", name_of(c.verdict)},
                    {"passed", judged ? Json(c.verdict == Check::Verdict::passed) : Json()},
                    {"detail", judged ? c.detail : cat("not applicable: ", c.detail)},
                    {"seconds", c.seconds}});
  }
  return {{"passed", passed(checks)}, {"checks", std::move(list)}};
}

void write_checks(const std::string& path, std::span<const Check> checks) {
  OutputFile file(path);
  file.write(to_json(checks).dump(2) + "\n");
  file.commit();
}

}  // namespace plait::ablate
