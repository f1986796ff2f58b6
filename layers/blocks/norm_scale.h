// What a norm multiplies a row by, and the edit norm/freeze that takes it from another run.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

// Norms implement this beside Layer. Fed to norm/freeze as values, a row's own scale changes no bit.
class NormScale {
 public:
  virtual ~NormScale() = default;
  // row [width], the layer's input -> 1 / sqrt(mean x^2 + eps) or 1 / sqrt(var + eps)
  virtual float scale(const float* row, const Kernels& k) const = 0;
};

inline std::span<const SiteSpec> norm_sites() {
  static const std::vector<SiteSpec> sites = {{Site::norm, {Operator::freeze}}};
  return sites;
}

inline const Edit* frozen(const Segment& segment) { return segment.edit(Site::norm, Operator::freeze); }

// The scale of the r-th row of a segment under norm/freeze: values[i] belongs to the i-th token of the range;
// without values it is that of the row in the run without edits. Throws Error where there is none.
inline float frozen_scale(const NormScale& norm, const Ports& ports, const Segment& segment, Index r,
                          const Kernels& k) {
  const Edit& edit = *frozen(segment);
  if (edit.values.empty()) {
    if (segment.clean_row < 0)
      fail("edit of '", edit.node,
           "': norm/freeze takes its scales from the model without edits on the same ",
           "tokens, which does not run beside this one; give it 'values'");
    return norm.scale(ports.input().row(segment.clean_row + r), k);
  }
  const Index i = segment.position + r - edit.begin, count = static_cast<Index>(edit.values.size());
  if (i < 0 || i >= count)
    fail("edit of '", edit.node, "': norm/freeze has scales for ", count, " tokens from position ",
         edit.begin, ", none for position ", segment.position + r);
  return static_cast<float>(edit.values[static_cast<std::size_t>(i)]);
}

// Calls body(row, scale) for the rows under norm/freeze, and shows the scales of others to whoever watches.
template <class Body>
void for_each_frozen(const NormScale& norm, const Ports& ports, std::span<const Segment> segments,
                     const Kernels& k, Body&& body) {
  for (const Segment& segment : segments) {
    for (Index r = 0; frozen(segment) && r < segment.rows; ++r)
      body(segment.first_row + r, frozen_scale(norm, ports, segment, r, k));
    if (!segment.watch) continue;
    std::vector<float> scales;
    for (Index r = 0; r < segment.rows; ++r)
      scales.push_back(norm.scale(ports.input().row(segment.first_row + r), k));
    segment.watch->see(Site::norm, {scales.data(), segment.rows, 1, 1});
  }
}

inline std::vector<Segment> not_frozen(std::span<const Segment> segments) {
  std::vector<Segment> rest;
  for (const Segment& segment : segments)
    if (!frozen(segment)) rest.push_back(segment);
  return rest;
}

}  // namespace plait
