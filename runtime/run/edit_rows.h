// The operators that replace or disturb rows as they are: zero, mean, resample, noise and scale, on one head
// of a layer's rows or on a node's whole output (head 0 of 1).
#pragma once

#include "runtime/run/layer.h"

namespace plait {

// rows [segment.rows, channels]: head `head` of `heads`, the rows of the segment. noise: + value * rms(row) *
// normal, rms over the head's channels of the row, the numbers keyed by (seed, layer, head, position). Throws
// Error when resample has values, but no row for a token.
void edit_rows(const Edit& edit, const Segment& segment, Index heads, Index head, View<float> rows);

// Which row of its reference a resample puts at a position: drawn by (seed, position).
Index drawn_row(const Edit& edit, Index position);

// rows := the edit's values by channel if it has them (heads * channels), else its value for the head.
void fill_values(const Edit& edit, Index heads, Index head, View<float> rows);

// The site `head` of the rows [rows, heads * channels] of a batch, in the order of the edits. A layer whose
// norm would undo a scale applies that one elsewhere. Shows the rows to whoever watches a segment.
enum class HeadEdits { all, but_scale };
void edit_heads(std::span<const Segment> segments, Index heads, View<float> rows, HeadEdits which);

// What edit_heads serves, and a gate whose factors may be fill_values'. channels: of one head.
SiteSpec head_site(Index heads, Index channels);
SiteSpec gate_site(Index heads, Index channels);

}  // namespace plait
