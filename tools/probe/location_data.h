// Samples of single-location regression as a file for other programs.
#pragma once

#include <vector>

#include "tools/probe/location_task.h"
#include "tools/program.h"

namespace plait::probe {

// Writes an .npy array of records {nu: float64, tokens: float32 [L, width], location: int64, label: float64}:
// sampling.draws samples of the task at each nu, one nu after the other. The hidden directions are the first
// two of location_directions by sampling.seed; the samples are those that layer_risk reads.
void write_samples(const LocationTask& task, const std::vector<double>& nu, Index width,
                   const Sampling& sampling, OutputFile& file);

}  // namespace plait::probe
