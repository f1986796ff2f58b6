// Loss by position of one stream, in a file that only grows and may be read while it does. The format is in
// tools/stream/README.md.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "tools/append_file.h"

namespace plait::stream {

struct Loss {
  Index position;  // of the token
  Token token;
  bool top1;   // the token had the greatest logit
  double nll;  // nats
  bool operator==(const Loss&) const = default;
};

class LossJournal {
 public:
  // Makes the file or goes on with it; what follows its last whole record is cut off. start: position of the
  // input's first token; stream_sha256: 64 characters that name model, arithmetic, edits and what came before
  // `start`. Throws Error when the file belongs to something else.
  LossJournal(const std::string& path, Index start, const std::string& stream_sha256);

  // One past the last position it has; none without records.
  std::optional<Index> end() const { return end_; }
  void append(std::span<const Loss> losses);
  void flush() { file_.flush(); }
  const std::string& path() const { return file_.path(); }

  // All whole records in order, whoever is writing. Throws Error when the file is no such journal.
  static std::vector<Loss> read(const std::string& path);

 private:
  AppendFile file_;
  std::optional<Index> end_;
};

// Writes position, token, nll and top1 of all records as HDF5, renamed into place, as `score --per-token`
// does.
void write_losses(const std::string& path, std::span<const Loss> losses);
// The records of such a file. Throws Error where it is none, or damaged.
std::vector<Loss> read_losses(const std::string& path);

}  // namespace plait::stream
