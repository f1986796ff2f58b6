// Conducts a study: gate, sweep, pairs, analysis, files. What `plait ablate` does once its flags are read.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/run/model.h"
#include "runtime/text/tokenizer.h"
#include "tools/ablate/spec.h"

namespace plait::ablate {

struct ExperimentSettings {
  Study study;
  std::string model_file;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  Compute compute;
  std::size_t memory = 0;  // bytes of the sweep; 0 = a quarter of the machine's, at least 512 MiB
  std::string folder;
  enum class Start { fresh, resume } start = Start::fresh;
  std::string command_line, version;
  // Whether the tasks' limits are --limit's, or their own; for run.json.
  enum class Limits { own, flag } limits = Limits::own;
  std::function<void(const std::string& line)> say = [](const std::string&) {};  // a line for people
  std::function<void(double share, const std::string& detail)> progress = [](double, const std::string&) {};
};

struct ExperimentOutcome {
  bool valid = false;        // all checks passed; otherwise there are no results
  std::string failed_check;  // the first sentence of what did not
  Json run;                  // run.json
};

// Writes the run folder (ablation-and-streaming 8). Fresh needs a folder that is absent or empty; resume one
// that this study has begun, and does nothing twice. Throws Error on bad input before anything is written.
ExperimentOutcome conduct(const ExperimentSettings& settings);

}  // namespace plait::ablate
