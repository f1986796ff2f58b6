// One input, its stream and what is written of it.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "runtime/run/stream.h"
#include "tools/append_file.h"
#include "tools/stream/input.h"
#include "tools/stream/loss_journal.h"
#include "weights/file_lock.h"

namespace plait::stream {

// Files of one session; empty = none. A per_token file without a journal has one beside it.
struct Outputs {
  std::string save, journal, per_token, health;
};

// The same with the journal that a per_token file has.
Outputs with_journal(Outputs outputs);

// Bytes of the tokens that a session's stream keeps at a position, without --keep.
std::size_t predicted_token_bytes(Index position);

struct SessionSettings {
  StreamOptions options;  // but for its history
  Index every = 0;        // tokens between checkpoints, a multiple of the model's boundary
  bool resume = false;    // goes on with what the outputs hold
};

// A checkpoint makes what was scored, the health and the snapshot safe on the disk, in this order. A session
// that is killed and resumed writes the same bytes as one that was not: it goes on from its last snapshot,
// after its input gave once more what the snapshot was fed. Its stream keeps the last tokens only. Its files
// are its own: while it lives another process that wants to write one of them is refused.
class Session {
 public:
  // begin: a stream to go on from; null for a fresh one. Throws Error naming what does not fit.
  Session(std::shared_ptr<const Model> model, const SessionSettings& settings, std::unique_ptr<Input> input,
          Outputs outputs, const Snapshot* begin);

  const Input& input() const { return *input_; }
  const Stream& stream() const { return stream_; }
  bool poll();          // looks what the input has; whether some of it was known already
  Index ready() const;  // tokens that may be run now, up to the next place where the stream has to stop
  bool ended() const { return input_->ended(); }

  // One run: begin() gives its item, see() takes its rows, end() writes. Throws Error when that fails.
  Item begin(Index count);
  void see(Index position, std::span<const float> logits);
  void end();
  void finish();  // a last checkpoint, and the HDF5 file
  Json report() const;
  std::size_t bytes() const;  // of the states, of what is kept of earlier ones, and of tokens

 private:
  std::vector<Loss> losses_built() const;
  void go_on(const Snapshot* begin, std::vector<Loss> built);
  bool recall(const Snapshot* begin);
  void go_back(Index position, const Snapshot* begin);
  std::size_t recognise(std::span<const Token> pending);
  const Loss* known(Index position) const;
  void check_known(Index position, std::span<const Token> tokens) const;
  void journal_losses();
  bool ahead() const;
  void keep_for_health();
  std::size_t health_bytes() const;
  Index health_begin(Index position) const;
  void add(const Loss& loss);
  void score(Index position, std::span<const float> logits, Token token);
  void write_health();
  void checkpoint();
  void save() const;
  void write_per_token();
  Index next_checkpoint() const;
  Index next_stop() const;

  std::shared_ptr<const Model> model_;
  std::unique_ptr<Input> input_;
  Outputs outputs_;
  std::list<WriterLock> locks_;  // of the files that are replaced; journals are locked themselves
  Index every_, start_ = 0;
  std::unique_ptr<const Snapshot> saved_;  // what the stream is restored from, until it is
  Stream stream_;
  Index furthest_;              // position of that snapshot
  std::optional<History> fed_;  // up to there; none once the stream is there again
  // The tokens seen so far, with those before the input's; none once they are as many as the stream was fed.
  std::optional<History> seen_;
  std::string identity_;
  std::optional<LossJournal> journal_;
  // What the journal, or the HDF5 file if that has more, held at a resume; none once the input has been
  // compared with all of it.
  std::vector<Loss> known_;
  std::string known_in_;
  std::optional<AppendFile> health_;
  std::string health_ahead_;      // its lines from the stream's position on, until they are compared
  std::size_t health_end_ = 0;    // of its whole lines
  bool health_torn_ = false;      // something follows them
  std::deque<Sequence> earlier_;  // the stream as it was kHealthTokens tokens before its next healths
  std::optional<Index> written_;  // records of this run in the HDF5 file, once it was built

  std::span<const Token> running_;
  std::vector<float> last_;
  std::vector<Loss> losses_;
  double sum_ = 0;
  Index scored_ = 0, correct_ = 0;
};

}  // namespace plait::stream
