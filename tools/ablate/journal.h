// What a sweep has scored so far, in a file that only grows: a killed sweep goes on behind the last whole
// record.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/run/wavefront.h"
#include "tools/ablate/scores.h"
#include "tools/append_file.h"

namespace plait::ablate {

// Scores of all conditions on one unit.
struct UnitScores {
  Index unit = 0;
  Index conditions = 0, tokens = 0;
  std::vector<TokenScores> scores;  // [conditions, tokens]
  std::span<const TokenScores> of(Index condition) const {
    return std::span(scores).subspan(static_cast<std::size_t>(condition * tokens),
                                     static_cast<std::size_t>(tokens));
  }
};

// Units that were run together, and what that cost.
struct ScoredBatch {
  std::vector<UnitScores> units;
  WavefrontCost cost;
};

// Little-endian. Header: "PLAITJ02", then 64 characters: the SHA-256 of the plan the scores belong to.
// Records, one for a batch: u32 units, u32 tiles, u64 tokens, f64 rows; of each unit u32 unit, conditions,
// tokens and f32 nll, f32 kl, i32 rank, u8 agree [conditions, tokens] each; u32 CRC-32 of all that. A file
// that another plan has written is refused; what follows the last whole record is cut off, so that a batch is
// there with its cost or not at all.
class Journal {
 public:
  // Creates the file or goes on with it. Throws Error naming the file.
  Journal(const std::string& path, const std::string& plan_sha256);

  // Units of the records that were there, in their order.
  const std::vector<Index>& done() const { return done_; }
  const WavefrontCost& cost() const { return cost_; }  // of all records
  // On the disk when it returns. Throws Error (full disk); the file then ends with a torn record.
  void append(const ScoredBatch& batch);

  // All scores of a finished journal, in the order of units. Throws Error on a damaged one.
  static std::vector<UnitScores> read(const std::string& path, const std::string& plan_sha256);

 private:
  void add(const ScoredBatch& batch);

  AppendFile file_;
  std::vector<Index> done_;
  WavefrontCost cost_;
};

}  // namespace plait::ablate
