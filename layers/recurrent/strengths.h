// What a row does to a recurrence, as numbers per head, and the edits of the canonical sites as changes of
// them.
#pragma once

#include <span>
#include <vector>

#include "runtime/run/edit_rows.h"
#include "runtime/run/layer.h"

namespace plait {

// Views of all rows of a batch; one without data stands for a place the kind does not have.
struct Strengths {
  Index heads = 0;
  View<float> decay;  // log decays [rows, heads * channels]
  View<float> erase;  // [rows, heads]
  View<float> write;  // [rows, heads]
  View<float> match;  // [rows, heads] 1 where the erasure only sets the length of what is written
};

// decay/{one, constant, zero}, write/{constant, zero}, erase/off, state/{freeze, no_write, delete_write}.
// match is 0 where no edit sets it. Shows decays and write strengths to whoever watches a segment. The
// strength a delta rule calls beta is both erase and write, so the edits of `write` and `state` change both.
void edit_strengths(std::span<const Segment> segments, const Strengths& strengths);
// Rows of o := 0 where an edit of that site and operator covers the head. o [rows, heads * width]
void clear_heads(std::span<const Segment> segments, Site site, Operator op, Index heads, View<float> o);
// state/{zero, no_read}: what is read from the state := 0.
void edit_reads(std::span<const Segment> segments, Index heads, View<float> o);
// gate/one: factor := 1; gate/mean: := a value per head or channel; shows the factors to whoever watches.
// factors [rows, heads * width]
void edit_gates(std::span<const Segment> segments, Index heads, View<float> factors);
// head/scale on what enters the output projection. y [rows, heads * width]
void scale_heads(std::span<const Segment> segments, Index heads, View<float> y, const Compute& compute);
// l2 norm per head in place, eps inside the root, but for rows and heads with qk_norm/off; then times
// `factor`. x [rows, heads * width]
void normalise_heads(std::span<const Segment> segments, Index heads, View<float> x, float eps, float factor,
                     const Compute& compute);

// Segments whose convolution keeps the activation that follows it.
std::vector<Segment> activated(std::span<const Segment> segments);

// The site lists the functions above serve. channels: of one head.
SiteSpec decay_site(Index heads, Index channels = 1);
SiteSpec write_site(Index heads);
SiteSpec erase_site(Index heads);
// With state/stale where there is a state after every token.
SiteSpec state_site(Index heads, Every finest = Every::token);
SiteSpec conv_site();
SiteSpec qk_norm_site(Index heads);

}  // namespace plait
