// What a model did on reference texts: what mean, constant, resample, patch, zero_rescale and swap put in a
// place of their own.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/edit.h"
#include "runtime/run/model.h"
#include "runtime/run/state.h"

namespace plait {

// Of one node, over all rows of the reference.
struct Recorded {
  Index count = 0;           // rows
  std::vector<double> mean;  // [width]
  double norm = 0;           // mean of the rows' 2-norms
  double step_norm = 0;      // a branch: the same of the sum of all branches of its residual step, else norm
  std::vector<float> rows;   // [count, width], the texts after each other; empty unless asked for
  // Means of the inner sites that were asked for and the layer has, by column as InnerWatch is told them.
  std::map<Site, std::vector<double>> inner;
  // Their rows, [count, columns]: head outputs, gate factors, a norm's scales.
  std::map<Site, std::vector<float>> inner_rows;
  Index position = 0;  // where `state` was taken
  std::vector<State::Image>
      state;  // of the first text at `position`; empty unless asked for or without fields
};

struct Recording {
  std::map<std::string, std::shared_ptr<const Recorded>> nodes;  // by name of the node
  std::string digest;  // SHA-256 of the model's identity, the arithmetic, the texts and what was asked for
};

// Recordings by the name an edit gives as its `reference`.
using References = std::map<std::string, std::shared_ptr<const Recording>>;

struct RecordRequest {
  std::vector<std::string> nodes;     // empty = all but the output node
  bool rows = false;                  // keep every row: memory of count x width floats per node
  Index state_at = -1;                // keep the nodes' states of the first text before this position
  std::vector<Site> inner;            // sites to keep means of: decay, write, gate, head (Segment::watch)
  std::vector<Site> inner_rows = {};  // sites to keep every row of: head, norm, gate
};

// Runs every text as a stream of its own, of an encoder whole, without edits. Sums are f64 chains in the
// order of the rows. Throws Error on a node that is none, and on state_at where there is no such state.
Recording record(const Model& model, std::span<const std::vector<Token>> texts, const RecordRequest& request,
                 const Compute& compute);

}  // namespace plait
