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

// Calls body(row, scale) for the rows under norm/freeze. values[i] belongs to the i-th token of the range; an
// Error names the first token that has none.
template <class Body>
void for_each_frozen(std::span<const Segment> segments, Body&& body) {
  for (const Segment& segment : segments) {
    const Edit* edit = frozen(segment);
    for (Index r = 0; edit && r < segment.rows; ++r) {
      const Index i = segment.position + r - edit->begin, count = static_cast<Index>(edit->values.size());
      if (i < 0 || i >= count)
        fail("edit of '", edit->node, "': norm/freeze has scales for ", count, " tokens from position ",
             edit->begin, ", none for position ", segment.position + r);
      body(segment.first_row + r, static_cast<float>(edit->values[static_cast<std::size_t>(i)]));
    }
  }
}

inline std::vector<Segment> not_frozen(std::span<const Segment> segments) {
  std::vector<Segment> rest;
  for (const Segment& segment : segments)
    if (!frozen(segment)) rest.push_back(segment);
  return rest;
}

}  // namespace plait
