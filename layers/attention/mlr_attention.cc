// score: mlr_attention. q.k comes as the sum of the levels that query and key share (KeyLevel), each with its
// factor on the query's channels; what is left is the division by their number.
#include <algorithm>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class SharedLevels final : public Score {
 public:
  explicit SharedLevels(std::vector<KeyLevel> levels) : levels_(std::move(levels)) {}

  // The row's own blocks lie in one another: what is outside the next one shares no more levels, on both
  // sides.
  void apply(const QueryRow& row, Index first, Index count, const double*, float* s,
             const Kernels& k) const override {
    const auto divide = [&](Index begin, Index end, std::size_t shared) {
      begin = std::max(begin, first), end = std::min(end, first + count);
      if (begin < end)
        k.scale(s + (begin - first), 1.0f / static_cast<float>(shared), s + (begin - first), end - begin);
    };
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      const KeyRange own = block(l, row);
      const KeyRange inner = l + 1 < levels_.size() ? block(l + 1, row) : KeyRange{own.end, own.end};
      divide(own.begin, inner.begin, l + 1);
      divide(inner.end, own.end, l + 1);
    }
  }

 private:
  KeyRange block(std::size_t level, const QueryRow& row) const {
    const Index size = levels_[level].block, begin = row.position / size * size;
    return {begin, begin + size};
  }

  std::vector<KeyLevel> levels_;
};

}  // namespace

std::vector<KeyLevel> key_levels(const ScoreOption& first) {
  std::vector<KeyLevel> levels;
  const auto* mlr = std::get_if<MlrAttention>(&first);
  Index channel = 0;
  for (std::size_t l = 0; mlr && l < mlr->ranks.size(); channel += mlr->ranks[l++])
    if (mlr->ranks[l] > 0) levels.push_back({channel, mlr->ranks[l], mlr->blocks[l]});
  return levels;
}

std::unique_ptr<Score> make_mlr_attention(const MlrAttention& settings) {
  if (settings.divide != MlrAttention::Divide::shared_levels) return make_scaled_dot(1);
  return std::make_unique<SharedLevels>(key_levels(settings));
}

}  // namespace plait
