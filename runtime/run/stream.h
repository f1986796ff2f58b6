// One running sequence: model, states, position.
//
//   auto model = plait::load("m.h5");
//   plait::Stream s(model);
//   auto logits = s.feed(prompt);
//   s.feed({token});
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/batch.h"
#include "runtime/run/boundaries.h"
#include "runtime/run/history.h"
#include "runtime/run/model.h"

namespace plait {

struct StreamOptions {
  Compute compute;
  Index rollback_depth = 0;  // tokens a rollback may undo without running the model; costs state bytes
  EditList edits = {};
  References references = {};  // what the edits' `reference` names
  std::uint64_t id = 0;        // names the stream in the sampler's draws
  std::size_t keep = 0;        // bytes of earlier states to keep for rollbacks further back (boundaries.h)
  // None: all tokens are kept, 4 bytes each, so that every rollback can be replayed. Otherwise this many of
  // the last at least, and those that the rollback depth and the boundaries call for, which then count in
  // `keep`: a stream in constant memory. What went is known by its digest.
  std::optional<Index> history = {};
};

// A saved stream, complete: what a snapshot file holds. Loading it into another model, arithmetic or set of
// edits is refused with a sentence naming the difference.
struct Snapshot {
  std::string model_name, model_identity;
  Json arithmetic;
  Json edits;  // list
  std::uint64_t id = 0;
  Index forgotten = 0;              // tokens fed before those of `tokens`
  std::string forgotten_digest;     // History::digest of them
  std::vector<Token> tokens;        // fed since; its end is the position
  std::vector<Log::Range> sampled;  // positions of tokens the sampler produced
  std::vector<float> logits;        // after the last token; empty right after a rollback or before any token
  Json sampler;                     // whatever the caller keeps (settings); may be null
  struct NodeState {
    std::string node;
    std::vector<Field> fields;
    State::Image image;
  };
  std::vector<NodeState> states;  // nodes with fields, in graph order
  // Earlier states of the same nodes, ascending; those at multiples of the stride are kept again. Images of
  // windowed rows: the other logs' rows are the first ones of `states`.
  struct Boundary {
    Index position;
    std::vector<NodeState> states;
  };
  std::vector<Boundary> boundaries;
  Index stride = 0;  // of the boundaries

  Index position() const { return forgotten + static_cast<Index>(tokens.size()); }
};

// A value: copying is a fork (pages are shared). Not thread-safe; different streams may run in different
// threads.
class Stream {
 public:
  explicit Stream(std::shared_ptr<const Model> model, StreamOptions options = {});

  // Appends tokens, any number at any split; returns the logits [vocab] after the last one (valid until the
  // next call).
  std::span<const float> feed(std::span<const Token> tokens, Origin origin = Origin::given);
  std::span<const float> feed(std::initializer_list<Token> tokens, Origin origin = Origin::given) {
    return feed(std::span(tokens.begin(), tokens.size()), origin);
  }
  // Logits after every token: sink(position, logits).
  using RowSink = std::function<void(Index position, std::span<const float> logits)>;
  void feed(std::span<const Token> tokens, const RowSink& sink, Origin origin = Origin::given);

  Stream fork() const { return *this; }

  // Undoes the last n tokens: within the declared depth without running the model, further back by replaying
  // from the nearest kept boundary or the start, exactly. There are no logits until the next feed. Throws
  // Error if n exceeds the position, or if what it needs was not kept.
  void rollback(Index n);
  struct RollbackCost {
    bool possible;
    Index replayed;  // tokens the model would run again
  };
  RollbackCost can_rollback(Index n) const;

  // Makes the stream stand after `tokens`, all of them given, with logits: what it shares with them is not
  // run again, and a stream that stands there runs nothing. `run` counts the tokens the model did run.
  struct Resent {
    Index shared, run;
  };
  Resent resend(std::span<const Token> tokens);

  Snapshot snapshot() const;
  // One boundary more for a snapshot of the stream as it stands: the states of a copy made at `position`,
  // which is no token's before the first. Adds nothing if it is there, or if an intervention hid what it
  // shows.
  void add_boundary(Snapshot& snapshot, Index position, const std::vector<State>& then) const;
  // What the stream was at a boundary of the snapshot it was restored from.
  Sequence earlier(const Snapshot::Boundary& boundary) const;
  // Throws Error naming the difference if model, arithmetic or edits disagree.
  static Stream restore(std::shared_ptr<const Model> model, const Snapshot& snapshot,
                        StreamOptions options = {});
  // What this stream adds to a snapshot of itself at position `from`: of logs the pieces before it have no
  // rows. Such a snapshot cannot be restored alone; see join() of weights/prefix_entry.h.
  Snapshot snapshot_since(Index from) const;

  Index position() const { return sequence_.position; }
  std::span<const Token> tokens() const { return history_.tokens(); }  // those that are kept, up to the last
  const History& history() const { return history_; }
  // Positions of tokens the sampler produced.
  std::span<const Log::Range> sampled() const { return sampled_; }
  std::span<const float> logits() const { return logits_; }  // empty if there are none
  const Model& model() const { return *model_; }
  const StreamOptions& options() const { return options_; }
  std::size_t state_bytes() const;  // of the states now; what is kept of earlier ones is apart
  const Boundaries& boundaries() const { return boundaries_; }
  std::string state_digest() const;  // over all nodes' logical states
  Json arithmetic() const;
  Json edits() const;  // those that do something, with the digests of what they refer to

  // For batches: several streams' tokens in one walk. After run_batch, tell the stream what it got. A
  // boundary is kept only where a run ends: `until_boundary` says how many tokens that is away, none where
  // nothing is kept.
  Sequence& sequence() { return sequence_; }
  const Sequence& sequence() const { return sequence_; }
  std::optional<Index> until_boundary() const;
  void record(std::span<const Token> tokens, Origin origin, std::span<const float> last_logits);

 private:
  void run(std::span<const Token> tokens, Want want, const RowSink& sink, Origin origin);
  bool within_depth(Index n) const;
  void replay(Index target);
  void forget_after(Index target);  // tokens, phases, boundaries
  void forget_old_tokens();
  bool phases_matter() const;
  // `later`: the states whose logs hold the rows that images of boundaries leave out; null for whole images.
  void restore_states(const std::vector<Snapshot::NodeState>& saved, Index position,
                      const std::vector<State>* later, std::vector<State>& states) const;
  void restore_boundaries(const Snapshot& snapshot);
  std::shared_ptr<const Model> model_;
  StreamOptions options_;
  Sequence sequence_;
  History history_;
  std::vector<Log::Range> sampled_;
  std::vector<float> logits_;
  Boundaries boundaries_;
};

}  // namespace plait
