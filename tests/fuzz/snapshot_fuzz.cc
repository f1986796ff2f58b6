// Snapshots: an Error, or a stream that goes on. An input that begins like an HDF5 file is the contents of a
// snapshot's file, under a trailer that fits; any other says how a good snapshot is changed before it is
// restored.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "tests/fuzz/temporary_file.h"
#include "tests/testing.h"
#include "weights/snapshot_file.h"
#include "weights/trailer.h"

namespace plait {
namespace {

// State of every kind of field, with and without a window.
std::shared_ptr<const Model> model() {
  static const auto made = [] {
    std::ifstream file(PLAIT_SOURCE_DIR "/tests/cli/cards/small.json");
    return testing::random_model(Json::parse(file), 1);
  }();
  return made;
}

StreamOptions options() {
  StreamOptions options;
  options.keep = std::size_t{1} << 20;
  options.compute.threads = 1;
  options.history = 64;
  return options;
}

const Snapshot& good() {
  static const Snapshot snapshot = [] {
    Stream stream(model(), options());
    stream.feed(testing::Numbers(1).tokens(560, model()->card().vocab));
    return stream.snapshot();
  }();
  return snapshot;
}

void go_on(const Snapshot& snapshot) {
  Stream stream = Stream::restore(model(), snapshot, options());
  stream.state_digest();
  const Snapshot again = stream.snapshot();
  stream.feed({1, 2, 3});
  if (stream.can_rollback(40).possible) stream.rollback(40);
  stream.feed({4});
  Stream::restore(model(), again, options()).feed({1});
}

// The next of the input's numbers; 0 at its end.
class Numbers {
 public:
  Numbers(const unsigned char* data, std::size_t size) : at_(data), end_(data + size) {}
  bool more() const { return at_ < end_; }
  std::size_t below(std::size_t count) { return count > 0 ? byte() % count : 0; }
  // Near what is there, a typical one, or any.
  Index position(Index now) {
    const unsigned kind = byte();
    if (kind < 128) return now + static_cast<Index>(kind) - 64;
    if (kind < 192) return static_cast<Index>(kind - 128) * 32;
    std::uint64_t any = 0;
    for (int i = 0; i < 8; ++i) any = any << 8 | byte();
    return static_cast<Index>(any >> (kind % 64));
  }

 private:
  unsigned byte() { return more() ? *at_++ : 0; }
  const unsigned char *at_, *end_;
};

using Item = State::Image::Item;

void change_range(Numbers& numbers, Log::Range& range) {
  Index& bound = numbers.below(2) ? range.begin : range.end;
  bound = numbers.position(bound);
}

// Rows of as many positions, so that the size gives nothing away.
void fit(Log::Piece& piece, std::size_t row) {
  const Index rows = piece.range.end - piece.range.begin;
  if (0 < rows && rows <= 4096) piece.rows.resize(row * static_cast<std::size_t>(rows));
}

void change_log(Numbers& numbers, Item& item) {
  const std::size_t what = numbers.below(7);
  if (what == 0) item.log_end = numbers.position(item.log_end);
  if (what == 1) item.present.push_back({numbers.position(item.log_end), numbers.position(item.log_end)});
  if (item.pieces.empty()) return;
  const Log::Piece& first = item.pieces.front();
  const std::size_t row =
      first.rows.size() / static_cast<std::size_t>(std::max<Index>(first.range.end - first.range.begin, 1));
  Log::Piece& piece = item.pieces[numbers.below(item.pieces.size())];
  if (what == 2 && !item.present.empty())
    change_range(numbers, item.present[numbers.below(item.present.size())]);
  if (what == 3) change_range(numbers, piece.range), fit(piece, row);
  if (what == 4) piece.rows.resize(numbers.below(256));
  if (what == 5) {
    Log::Piece more{{numbers.position(item.log_end), numbers.position(item.log_end)}, {}};
    fit(more, row);
    item.pieces.push_back(std::move(more));
  }
  if (what == 6) item.pieces.pop_back();
}

void change_states(Numbers& numbers, std::vector<Snapshot::NodeState>& states) {
  if (states.empty()) return;
  Snapshot::NodeState& state = states[numbers.below(states.size())];
  State::Image& image = state.image;
  const std::size_t what = numbers.below(16);
  if (what == 0) image.position = numbers.position(image.position);
  if (what == 1) std::swap(state, states[numbers.below(states.size())]);
  if (what == 2) states.pop_back();
  if (image.items.empty() || what < 3) return;
  Item& item = image.items[numbers.below(image.items.size())];
  if (what == 3) item.name = image.items[numbers.below(image.items.size())].name;
  if (what == 4) item.bytes.resize(item.bytes.size() + numbers.below(9) * 4);
  if (what == 5) item.bytes.resize(numbers.below(256) * 4);
  if (what == 6 && !item.bytes.empty())
    item.bytes[numbers.below(item.bytes.size())] = static_cast<std::byte>(numbers.below(256));
  if (what == 7) image.items.pop_back();
  if (what > 7) change_log(numbers, item);
}

void change(Numbers& numbers, Snapshot& snapshot) {
  const std::size_t what = numbers.below(12);
  if (what == 0) snapshot.tokens.resize(numbers.below(256) * 8);
  if (what == 1) snapshot.tokens.push_back(static_cast<Token>(numbers.position(256)));
  if (what == 2) snapshot.logits.resize(numbers.below(256));
  if (what == 3) {  // as the file's reader lets it through
    const Index most = Index{1} << 53, blocks = std::clamp<Index>(numbers.position(1), 0, most / 512);
    snapshot.forgotten = blocks * History::kBlock;
    snapshot.forgotten_digest = snapshot.forgotten > 0 ? std::string(64, '0') : "";
  }
  if (what == 4) snapshot.stride = numbers.position(snapshot.stride);
  if (what > 7) return change_states(numbers, snapshot.states);
  if (snapshot.boundaries.empty()) return;
  Snapshot::Boundary& boundary = snapshot.boundaries[numbers.below(snapshot.boundaries.size())];
  if (what == 5) boundary.position = numbers.position(boundary.position);
  if (what == 6) std::swap(boundary, snapshot.boundaries.back());
  if (what == 7) change_states(numbers, boundary.states);
}

}  // namespace
}  // namespace plait

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  plait::fuzz::count_children();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  try {
    if (size > 4 && std::memcmp(data, "\x89HDF", 4) == 0) {
      std::string bytes(reinterpret_cast<const char*>(data), size);
      const Trailer trailer = make_trailer(size, sha256(bytes));
      bytes.append(reinterpret_cast<const char*>(&trailer), sizeof trailer);
      const fuzz::TemporaryFile file(bytes);
      go_on(load_snapshot(file.path()));
    } else {
      Snapshot snapshot = good();
      for (Numbers numbers(data, size); numbers.more();) change(numbers, snapshot);
      go_on(snapshot);
    }
  } catch (const Error&) {
    if (size == 0) std::abort();  // nothing was changed
  }
  return 0;
}
