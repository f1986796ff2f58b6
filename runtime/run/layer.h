// A layer has one face: run(rows). Decode, prefill, batched decode and a wavefront of ablations are the same
// call.
#pragma once

#include <memory>
#include <span>

#include "runtime/base/numerics.h"
#include "runtime/base/view.h"
#include "runtime/run/edit.h"
#include "runtime/run/state.h"

namespace plait {

// Is told what inner sites hold; see Segment::watch.
class InnerWatch {
 public:
  virtual ~InnerWatch() = default;
  // values [rows of the segment, heads * channels] of the site's SiteSpec, [.., heads] where that has no
  // channels: log decays, write strengths, gate factors, head outputs, a norm's scales. Valid during the
  // call, which comes from the thread that runs the layer.
  virtual void see(Site site, View<const float> values) = 0;
};

// Port widths.
struct Signature {
  std::vector<Index> inputs;  // columns of each input port; empty for a layer that reads tokens
  Index output = 0;
};

// Consecutive rows of one sequence inside a batch.
struct Segment {
  State* state = nullptr;  // this node's state of that sequence; null for layers without fields
  Index position = 0;      // sequence position of the first row
  Index first_row = 0, rows = 0;
  const Edits* edits = nullptr;  // this node's inner edits for these rows; null or empty = none
  // Null = nobody. Told by a layer, once per run, of every site that has decay/constant, write/constant,
  // gate/mean, head/mean or norm/freeze. Only segments without edits have one.
  InnerWatch* watch = nullptr;
  // Where the inputs of the same tokens in the run without edits begin; -1 = it is not in this call. Only
  // norms under norm/freeze look there.
  Index clean_row = -1;

  // Null-safe look-up: the edit of this site and operator that covers `head`.
  const Edit* edit(Site site, Operator op, Index head) const {
    return edits ? edits->find(site, op, head) : nullptr;
  }
  const Edit* edit(Site site, Operator op) const { return edits ? edits->find(site, op) : nullptr; }
  // The segment's rows of `all` to whoever watches; a view without data is a site the layer does not have.
  void show(Site site, View<const float> all) const {
    if (watch && all.data) watch->see(site, all.slice_rows(first_row, rows));
  }
};

// All rows of a batch: inputs[i] [rows, signature.inputs[i]], output [rows, signature.output], tokens [rows].
struct Ports {
  std::span<const View<const float>> inputs;
  View<float> output;
  std::span<const Token> tokens;
  View<const float> input() const { return inputs[0]; }
};

struct Context {
  Compute compute;
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual Signature signature() const = 0;
  virtual std::span<const Field> fields() const { return {}; }    // state
  virtual std::span<const SiteSpec> sites() const { return {}; }  // inner places an edit may name

  // Computes every row of every segment. Rows of a segment follow each other; segments are independent (each
  // has its own state) and may cover less than all rows of the ports: other rows are neither read nor
  // written. A layer writes its fields up to position + rows but leaves State::advance to the executor.
  virtual void run(const Ports& ports, std::span<const Segment> segments, Context& context) const = 0;

  // Layers with gridded fields: folds the open rows of the chunk that ends at `boundary` into the anchors.
  // Called by the executor for a chunk that a hole (skipped rows, filled with neutral zeros) completes; `run`
  // calls the same code.
  virtual void fold(State& state, Index boundary, Context& context) const;
};

}  // namespace plait
