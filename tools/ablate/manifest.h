// run.json: what a run was, precisely enough to repeat it.
#pragma once

#include <span>
#include <string>

#include "runtime/text/tokenizer.h"
#include "tools/ablate/corpus.h"
#include "tools/ablate/plan.h"

namespace plait::ablate {

struct ManifestInput {
  const std::string& model_file;
  const Model& model;
  const Tokenizer& tokenizer;
  const Compute& compute;
  const Study& study;
  const Plan& plan;
  std::span<const Text> texts;
};

// Everything but what only the end of a run knows (identity, times, cost).
Json manifest_of(const ManifestInput& input);

std::string sha256_of_file(const std::string& path);  // throws Error

}  // namespace plait::ablate
