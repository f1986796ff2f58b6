// A run folder as `plait ablate` writes it, of a model that exists only on paper: every design, several data
// sets, metrics and context lengths, matched random sets, and conditions that collapse. The same bytes on
// every machine.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/graph/config.h"

namespace plait::testing {

struct SampleRun {
  std::string id = "sample-1";
  int layers = 24;
  int draws = 199;             // per target and kind of matching
  int more_singles = 0;        // head-level conditions besides those of whole blocks
  double harm = 1;             // factor on every effect
  std::string label_end = {};  // appended to every label
  std::string data_sha256 = "9f2b6a1c0d";
  std::string arithmetic = "exact/1";
};

void write_sample_run(const std::filesystem::path& folder, const SampleRun& sample);

}  // namespace plait::testing
