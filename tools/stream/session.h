// One input, its stream and what is written of it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "runtime/run/stream.h"
#include "tools/append_file.h"
#include "tools/stream/input.h"
#include "tools/stream/loss_journal.h"

namespace plait::stream {

// Files of one session; empty = none. A per_token file without a journal has one beside it.
struct Outputs {
  std::string save, journal, per_token, health;
};

struct SessionSettings {
  StreamOptions options;
  Index every = 0;      // tokens between checkpoints, a multiple of the model's boundary
  bool resume = false;  // goes on with what the outputs hold
};

// A checkpoint makes what was scored, the health and the snapshot safe on the disk, in this order. A session
// that is killed and resumed writes the same bytes as one that was not: it goes on from its last snapshot,
// after its input gave once more what the snapshot was fed.
class Session {
 public:
  // begin: a stream to go on from; null for a fresh one. Throws Error naming what does not fit.
  Session(std::shared_ptr<const Model> model, const SessionSettings& settings, std::unique_ptr<Input> input,
          Outputs outputs, const Snapshot* begin);

  const Input& input() const { return *input_; }
  const Stream& stream() const { return stream_; }
  void poll();          // looks what the input has
  Index ready() const;  // tokens that may be run now, up to the next place where the stream has to stop
  bool ended() const { return input_->ended(); }

  // One run: begin() gives its item, see() takes its rows, end() writes. Throws Error when that fails.
  Item begin(Index count);
  void see(Index position, std::span<const float> logits);
  void end();
  void finish();  // a last checkpoint, and the HDF5 file
  Json report() const;

 private:
  void go_on();
  void cut_health();
  void add(const Loss& loss);
  void score(Index position, std::span<const float> logits, Token token);
  void write_health();
  void checkpoint();
  void write_per_token();
  Index next_stop() const;

  std::shared_ptr<const Model> model_;
  std::unique_ptr<Input> input_;
  Outputs outputs_;
  Index every_, start_ = 0;
  Stream stream_;
  Index verified_ = 0;  // tokens of the input seen so far that the stream had been fed before
  std::optional<LossJournal> journal_;
  std::optional<AppendFile> health_;
  std::optional<Sequence> before_;  // the stream kHealthTokens tokens before its next health
  Index written_ = 0;               // records in the HDF5 file

  std::span<const Token> running_;
  std::vector<float> last_;
  std::vector<Loss> losses_;
  double sum_ = 0;
  Index scored_ = 0, correct_ = 0;
};

}  // namespace plait::stream
