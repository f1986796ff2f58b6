#include "tools/equalities.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>

#include "runtime/base/error.h"
#include "runtime/run/batch.h"
#include "runtime/run/encoder.h"
#include "tools/likelihood.h"
#include "weights/snapshot_file.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// A file name nobody else uses, removed with this object and when the program is interrupted.
TemporaryFile scratch_file() {
  return TemporaryFile(
      (std::filesystem::temp_directory_path() / cat("plait-equal-", ::getpid(), ".h5")).string());
}

}  // namespace

Equalities::Equalities(std::shared_ptr<const Model> model, std::span<const Token> tokens,
                       StreamOptions options)
    : model_(std::move(model)), tokens_(tokens), options_(std::move(options)) {
  Stream stream = open();
  whole_ = logits(stream, tokens_, "all");
  state_ = stream.state_digest();
}

Stream Equalities::open(Index depth) const {
  StreamOptions options = options_;
  options.rollback_depth = depth;
  return Stream(model_, options);
}

std::vector<float> Equalities::logits(Stream& stream, std::span<const Token> tokens,
                                      const std::string& pattern) const {
  const Split split(pattern);
  std::vector<float> rows;
  rows.reserve(tokens.size() * at(model_->card().vocab));
  for (std::size_t done = 0, feed = 0; done < tokens.size(); ++feed) {
    const auto n = at(split.size(feed, static_cast<Index>(tokens.size() - done)));
    stream.feed(tokens.subspan(done, n),
                [&](Index, std::span<const float> row) { rows.insert(rows.end(), row.begin(), row.end()); });
    done += n;
  }
  return rows;
}

EqualityCheck Equalities::compare(const std::string& name, Index begin, std::span<const float> rows,
                                  const Stream& stream, std::string detail) const {
  const Index vocab = model_->card().vocab;
  const auto expected = std::span<const float>(whole_).subspan(at(begin * vocab));
  const Numerics numerics = options_.compute.numerics;
  if (rows.size() != expected.size())
    return {name, numerics, false,
            cat(rows.size() / at(vocab), " rows instead of ", expected.size() / at(vocab))};
  for (std::size_t r = 0; r < rows.size(); r += at(vocab))
    if (std::memcmp(rows.data() + r, expected.data() + r, at(vocab) * sizeof(float)) != 0)
      return {name, numerics, false,
              cat("the logits after token ", begin + static_cast<Index>(r) / vocab, " differ")};
  if (stream.state_digest() != state_)
    return {name, numerics, false, "the logits are equal, but the final states differ"};
  return {name, numerics, true, std::move(detail)};
}

EqualityCheck Equalities::same(const std::string& name, Stream stream) const {
  const auto rows = logits(stream, tokens_, "all");
  return compare(name, 0, rows, stream, cat(count(), " rows of logits, state"));
}

EqualityCheck Equalities::split(const std::string& pattern) const {
  Stream stream = open();
  const auto rows = logits(stream, tokens_, pattern);
  return compare(cat("split ", pattern), 0, rows, stream, cat(count(), " rows of logits, state"));
}

EqualityCheck Equalities::threads(int threads) const {
  StreamOptions options = options_;
  options.compute.threads = threads;
  return same(cat("threads ", threads), Stream(model_, options));
}

EqualityCheck Equalities::instruction_set(Isa isa) const {
  StreamOptions options = options_;
  options.compute.isa = isa;
  return same(cat("instruction set ", name_of(isa)), Stream(model_, options));
}

// The sequence between two others that are at other positions and bring other numbers of rows.
EqualityCheck Equalities::packing() const {
  const std::vector<Token> other = reversed();
  Stream before = open(), stream = open(), after = open();
  before.feed(std::span<const Token>(other).first(at(count() / 3)));
  std::vector<float> rows;
  const auto next = [](Stream& s, std::span<const Token> text, Index n) {
    return text.subspan(at(s.sequence().position))
        .first(std::min(at(n), text.size() - at(s.sequence().position)));
  };
  for (Index step = 0; stream.sequence().position < count(); ++step) {
    const std::array<Index, 3> sizes = {3 + step % 5, 1 + 37 * (step % 2), 11};
    const std::array<Item, 3> items = {
        Item{&before.sequence(), next(before, other, sizes[0]), Want::none, Origin::given},
        Item{&stream.sequence(), next(stream, tokens_, sizes[1]), Want::all, Origin::given},
        Item{&after.sequence(), next(after, tokens_, sizes[2]), Want::last, Origin::given}};
    run_batch(*model_, items, {options_.compute, 29, {}},
              [&](std::size_t item, Index, std::span<const float> row) {
                if (item == 1) rows.insert(rows.end(), row.begin(), row.end());
              });
  }
  return compare("packing", 0, rows, stream, "three sequences in one batch, ragged");
}

EqualityCheck Equalities::fork(Side side) const {
  const Index cut = count() / 2;
  Stream stream = open();
  stream.feed(first(cut));
  Stream other = stream.fork();
  const std::vector<Token> text = reversed();
  other.feed(std::span<const Token>(text).first(at(count() - cut)));  // must not touch the original
  if (side == Side::fork) {
    Stream second = stream.fork();
    const auto rows = logits(second, from(cut), "7,64,1");
    return compare("fork", cut, rows, second, cat("at token ", cut));
  }
  const auto rows = logits(stream, from(cut), "all");
  return compare("original of a fork", cut, rows, stream, cat("at token ", cut));
}

EqualityCheck Equalities::rollback(Depth depth) const {
  const std::string name =
      depth == Depth::declared ? "rollback within the depth" : "rollback beyond the depth";
  const Index back = std::min<Index>(count() / 3, depth == Depth::declared ? 40 : count());
  const Index cut = count() - back;
  Stream stream = open(depth == Depth::declared ? back : 0);
  stream.feed(tokens_);
  const Index replayed = stream.can_rollback(back).replayed;
  if (depth == Depth::declared && options_.edits.empty() && replayed > 0)
    return {name, options_.compute.numerics, false,
            cat(back, " tokens within the declared depth ran ", replayed, " tokens again")};
  stream.rollback(back);
  const auto rows = logits(stream, from(cut), "1");
  return compare(name, cut, rows, stream, cat(back, " tokens, ", replayed, " replayed"));
}

EqualityCheck Equalities::save_and_load() const {
  const Index cut = count() / 2 + 1;
  const TemporaryFile file = scratch_file();
  Stream stream = open();
  stream.feed(first(cut));
  save_snapshot(file.path(), stream.snapshot());
  Stream loaded = Stream::restore(model_, load_snapshot(file.path()), options_);
  const auto rows = logits(loaded, from(cut), "64,1,300");
  return compare("save and load", cut, rows, loaded, cat("at token ", cut));
}

EncoderEqualities::EncoderEqualities(const Model& model, std::span<const Token> tokens,
                                     const Compute& compute)
    : model_(model), tokens_(tokens), compute_(compute), whole_(encode(model, tokens, compute)) {}

EqualityCheck EncoderEqualities::compare(const std::string& name, std::span<const float> rows,
                                         std::string detail) const {
  const auto different =
      std::mismatch(whole_.begin(), whole_.end(), rows.begin(), rows.end(), [](float a, float b) {
        return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
      }).first;
  if (different == whole_.end()) return {name, compute_.numerics, true, std::move(detail)};
  const Index width = model_.width(model_.graph().output());
  return {name, compute_.numerics, false,
          cat("the outputs of token ", (different - whole_.begin()) / width, " differ")};
}

EqualityCheck EncoderEqualities::threads(int count) const {
  Compute compute = compute_;
  compute.threads = count;
  return compare(cat("threads ", count), encode(model_, tokens_, compute),
                 cat(tokens_.size(), " rows of outputs"));
}

EqualityCheck EncoderEqualities::instruction_set(Isa isa) const {
  Compute compute = compute_;
  compute.isa = isa;
  return compare(cat("instruction set ", name_of(isa)), encode(model_, tokens_, compute),
                 cat(tokens_.size(), " rows of outputs"));
}

EqualityCheck EncoderEqualities::packing() const {
  const std::vector<Token> other(tokens_.rbegin(), tokens_.rend());
  const std::span<const Token> all(other);
  const std::array<std::span<const Token>, 4> sequences = {all.first(all.size() / 3), tokens_, all.first(1),
                                                           all};
  RunOptions options;
  options.compute = compute_;
  options.row_block = static_cast<Index>(4 * all.size());
  std::vector<float> rows;
  encode_batch(model_, sequences, options, [&](std::size_t sequence, View<const float> output) {
    if (sequence == 1) rows.assign(output.data, output.data + output.rows * output.cols);
  });
  return compare("packing", rows, "four sequences in one walk, ragged");
}

}  // namespace plait
