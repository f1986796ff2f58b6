// score: mlr_attention. q.k comes as the sum of the levels that query and key share (KeyLevel), each with its
// factor on the query's channels; what is left is the division by their number.
#include <algorithm>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class SharedLevels final : public Score {
 public:
  explicit SharedLevels(std::vector<KeyLevel> levels) : levels_(std::move(levels)) {}

  // Nearer keys share more levels: those from the begin of the row's own block of a level on share it.
  void apply(const QueryRow& row, Index first, Index count, const double*, float* s,
             const Kernels& k) const override {
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      const Index begin = begin_of(l, row, first), end = std::min(begin_of(l + 1, row, first), first + count);
      if (begin < end)
        k.scale(s + (begin - first), 1.0f / static_cast<float>(l + 1), s + (begin - first), end - begin);
    }
  }

 private:
  Index begin_of(std::size_t level, const QueryRow& row, Index first) const {
    if (level == levels_.size()) return row.position + 1;
    return std::max(first, row.position / levels_[level].block * levels_[level].block);
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
