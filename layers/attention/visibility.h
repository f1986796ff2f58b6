// Which cached keys a row sees: those that exist, in its window or among the sinks, minus what edits hide; in
// a causal graph none behind the row itself. Sites: score (knockout, zero), window (set), sinks (mask).
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "runtime/kernels/attention.h"
#include "runtime/run/layer.h"

namespace plait {

// The keys of a layer's own settings: with a window, those less than `window` positions away and the first
// `sinks`; 0 = all.
struct Sight {
  Index window = 0, sinks = 0;
  bool causal = true;
};

class Visibility {
 public:
  // `present` as Log::present() has it. The edits of one head count.
  Visibility(const Sight& sight, const Segment& segment, Index head, std::span<const Log::Range> present);

  // Appends the visible ranges of the row at `position`, ascending and disjoint; nothing if it sees no key.
  void append(Index position, std::vector<KeyRange>& ranges) const;
  // score/zero: keys that are seen, but weigh nothing in the sum of values.
  std::span<const KeyRange> muted() const { return muted_; }
  // Whether two heads of one segment see the same.
  bool same(const Visibility& other) const {
    return edited_ == other.edited_ && first_ == other.first_ && hidden_ == other.hidden_ &&
           muted_ == other.muted_;
  }

 private:
  struct Recent {
    Index window, sinks;
    bool all;  // every earlier key
    // The keys between the sinks and the window, which the row at `position` does not see, and those behind
    // it.
    KeyRange gap(Index position) const;
    KeyRange gap_ahead(Index position) const;
    bool operator==(const Recent&) const = default;
  };

  std::span<const Log::Range> present_;
  bool causal_;
  Recent own_;
  std::optional<Recent> edited_;  // window/set, on top of the layer's own
  Index first_ = 0;               // sinks/mask
  std::vector<KeyRange> hidden_;  // score/knockout
  std::vector<KeyRange> muted_;   // score/zero
};

}  // namespace plait
