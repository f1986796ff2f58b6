#include "layers/attention/visibility.h"

#include <algorithm>
#include <limits>

namespace plait {
namespace {

// ranges[from ..] minus `hole`.
void subtract(std::vector<KeyRange>& ranges, std::size_t from, KeyRange hole) {
  if (hole.begin >= hole.end) return;
  std::vector<KeyRange> rest;
  for (std::size_t i = from; i < ranges.size(); ++i) {
    const KeyRange r = ranges[i];
    if (r.begin < std::min(r.end, hole.begin)) rest.push_back({r.begin, std::min(r.end, hole.begin)});
    if (std::max(r.begin, hole.end) < r.end) rest.push_back({std::max(r.begin, hole.end), r.end});
  }
  ranges.resize(from);
  ranges.insert(ranges.end(), rest.begin(), rest.end());
}

}  // namespace

Visibility::Visibility(const Sight& sight, const Segment& segment, Index head,
                       std::span<const Log::Range> present)
    : present_(present), causal_(sight.causal), own_{sight.window, sight.sinks, sight.window == 0} {
  if (!segment.edits) return;
  if (const Edit* set = segment.edit(Site::window, Operator::set, head))
    edited_ = Recent{static_cast<Index>(value_of(*set, head)), set->sinks, false};
  for (const Edit* edit : segment.edits->all()) {
    if (!covers(*edit, head)) continue;
    if (edit->site == Site::sinks && edit->op == Operator::mask)
      first_ = std::max(first_, static_cast<Index>(value_of(*edit, head)));
    if (edit->site == Site::score && edit->op == Operator::knockout)
      hidden_.push_back({edit->key_begin, edit->key_end});
    if (edit->site == Site::score && edit->op == Operator::zero)
      muted_.push_back({edit->key_begin, edit->key_end});
  }
}

KeyRange Visibility::Recent::gap(Index position) const {
  if (all) return {0, 0};
  const Index begin = std::min(std::max<Index>(sinks, 0), position + 1);
  return {begin, std::max(begin, position - window + 1)};
}

KeyRange Visibility::Recent::gap_ahead(Index position) const {
  return {std::max(sinks, position + window), all ? 0 : std::numeric_limits<Index>::max()};
}

void Visibility::append(Index position, std::vector<KeyRange>& ranges) const {
  const std::size_t from = ranges.size();
  for (const Log::Range& range : present_) {
    const KeyRange clipped{std::max(range.begin, first_),
                           causal_ ? std::min(range.end, position + 1) : range.end};
    if (clipped.begin < clipped.end) ranges.push_back(clipped);
  }
  subtract(ranges, from, own_.gap(position));
  if (!causal_) subtract(ranges, from, own_.gap_ahead(position));
  if (edited_) subtract(ranges, from, edited_->gap(position));
  if (edited_ && !causal_) subtract(ranges, from, edited_->gap_ahead(position));
  for (const KeyRange& hidden : hidden_) subtract(ranges, from, hidden);
}

}  // namespace plait
