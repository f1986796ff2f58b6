// What `plait stream --resume` finds of its journal and of its health: an Error, or whole records that stay
// as they are when the stream goes on.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runtime/base/error.h"
#include "tests/fuzz/temporary_file.h"
#include "tools/stream/health.h"
#include "tools/stream/loss_journal.h"

namespace plait {
namespace {

using stream::Loss;
using stream::LossJournal;

constexpr std::size_t kHeader = 84, kRecord = 28;  // tools/stream/README.md

// CRCs that fit, as whoever makes up a journal would write them.
void seal(std::string& bytes) {
  const auto close = [&](std::size_t begin, std::size_t size) {
    if (begin + size > bytes.size()) return;
    const std::uint32_t crc = crc_of(std::span(bytes).subspan(begin, size - 4));
    std::memcpy(bytes.data() + begin + size - 4, &crc, sizeof crc);
  };
  close(0, kHeader);
  for (std::size_t at = kHeader; at < bytes.size(); at += kRecord) close(at, kRecord);
}

bool same(const std::vector<Loss>& a, const std::vector<Loss>& b) {  // NaN equals itself
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Loss& x, const Loss& y) {
    return x.position == y.position && x.token == y.token && x.top1 == y.top1 &&
           std::memcmp(&x.nll, &y.nll, sizeof x.nll) == 0;
  });
}

void demand(bool good) {
  if (!good) std::abort();
}

void journal(const std::string& bytes) {
  const fuzz::TemporaryFile file(bytes);
  std::vector<Loss> losses = LossJournal::read(file.path());
  for (std::size_t i = 1; i < losses.size(); ++i) demand(losses[i].position == losses[i - 1].position + 1);
  const auto start = static_cast<Index>(get<std::int64_t>(bytes, 8));
  LossJournal journal(file.path(), start, bytes.substr(16, 64));
  demand(same(LossJournal::read(file.path()), losses));
  const Index end = losses.empty() ? start : losses.back().position + 1;
  demand(journal.end().value_or(start) == end);
  losses.push_back({end, 7, true, 0.5});
  journal.append(std::span(losses).last(1));
  demand(same(LossJournal::read(file.path()), losses));
}

void health(std::string_view text) {
  const std::size_t kept = stream::health_until(text, 512, "s", "x");
  demand(kept <= text.size() && (kept == 0 || text[kept - 1] == '\n'));
  demand(stream::health_until(text.substr(0, kept), 512, "s", "x") == kept);
}

}  // namespace
}  // namespace plait

// The first byte says what the rest is.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] == 'h') {
      health(bytes);
    } else {
      if (data[0] == 's') seal(bytes);
      journal(bytes);
    }
  } catch (const Error&) {
  }
  return 0;
}
