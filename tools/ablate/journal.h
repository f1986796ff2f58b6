// What a sweep has scored so far, in a file that only grows: a killed sweep goes on behind the last whole
// record.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "tools/ablate/scores.h"

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

// Little-endian. Header: "PLAITJ01", then 64 characters: the SHA-256 of the plan the scores belong to.
// Records: u32 unit, conditions, tokens; f32 nll, f32 kl, i32 rank, u8 agree [conditions, tokens] each; u32
// CRC-32 of all that. A file that another plan has written is refused; what follows the last whole record is
// cut off.
class Journal {
 public:
  // Creates the file or goes on with it. Throws Error naming the file.
  Journal(const std::string& path, const std::string& plan_sha256);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Units of the records that were there, in their order.
  const std::vector<Index>& done() const { return done_; }
  // On the disk when it returns. Throws Error (full disk); the file then ends with a torn record.
  void append(const UnitScores& unit);

  // All records of a finished journal, in the order of units. Throws Error on a damaged one.
  static std::vector<UnitScores> read(const std::string& path, const std::string& plan_sha256);

 private:
  std::string path_;
  int file_ = -1;
  std::vector<Index> done_;
};

}  // namespace plait::ablate
