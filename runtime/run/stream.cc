#include "runtime/run/stream.h"

#include <algorithm>
#include <cassert>
#include <iterator>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"

namespace plait {
namespace {

void add_sampled(std::vector<Log::Range>& ranges, Index begin, Index end) {
  if (!ranges.empty() && ranges.back().end == begin)
    ranges.back().end = end;
  else
    ranges.push_back({begin, end});
}

// The edits that do something, with the digests of what they refer to.
Json effective(const StreamOptions& options) {
  Json list = Json::array();
  for (const Edit& edit : options.edits) {
    if (edit.strength == 0) continue;
    list.push_back(to_json(edit));
    const auto reference = options.references.find(edit.reference);
    if (reference != options.references.end()) list.back()["reference_sha256"] = reference->second->digest;
  }
  return list;
}

}  // namespace

Stream::Stream(std::shared_ptr<const Model> model, StreamOptions options)
    : model_(std::move(model)), options_(std::move(options)), sequence_(*model_, options_.rollback_depth) {
  if (options_.rollback_depth < 0) fail("a stream's rollback depth cannot be ", options_.rollback_depth);
  if (!options_.edits.empty())
    sequence_.plan = std::make_shared<const EditPlan>(*model_, options_.edits, options_.references);
}

std::span<const float> Stream::feed(std::span<const Token> tokens, Origin origin) {
  std::vector<float> last;
  const Item item{&sequence_, tokens, Want::last, origin};
  run_batch(*model_, {&item, 1}, {options_.compute},
            [&](std::size_t, Index, std::span<const float> row) { last.assign(row.begin(), row.end()); });
  record(tokens, origin, last);
  return logits_;
}

void Stream::feed(std::span<const Token> tokens, const RowSink& sink, Origin origin) {
  std::vector<float> last;
  const Item item{&sequence_, tokens, Want::all, origin};
  run_batch(*model_, {&item, 1}, {options_.compute},
            [&](std::size_t, Index position, std::span<const float> row) {
              if (position + 1 == static_cast<Index>(tokens_.size() + tokens.size()))
                last.assign(row.begin(), row.end());
              sink(position, row);
            });
  record(tokens, origin, last);
}

void Stream::record(std::span<const Token> tokens, Origin origin, std::span<const float> last_logits) {
  if (tokens.empty()) return;
  const auto begin = static_cast<Index>(tokens_.size());
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  if (origin == Origin::sampled) add_sampled(sampled_, begin, static_cast<Index>(tokens_.size()));
  logits_.assign(last_logits.begin(), last_logits.end());
  assert(position() == static_cast<Index>(tokens_.size()));
}

Stream::RollbackCost Stream::can_rollback(Index n) const {
  if (n < 0 || n > position()) return {false, 0};
  for (const State& state : sequence_.states) {
    // A state may stand before the position when its last rows were skipped; then it has less to undo.
    const Index behind = position() - state.position();
    if (n > behind && !state.can_rollback(n - behind)) return {true, position() - n};
  }
  return {true, 0};
}

void Stream::rollback(Index n) {
  const RollbackCost cost = can_rollback(n);
  if (!cost.possible) fail("cannot roll back ", n, " tokens of a stream at position ", position());
  const Index target = position() - n;
  if (cost.replayed > 0) {
    replay(target);
  } else {
    for (State& state : sequence_.states) {
      const Index behind = position() - state.position();
      if (n > behind) state.rollback(n - behind);
    }
    sequence_.position = target;
    tokens_.resize(static_cast<std::size_t>(target));
    std::erase_if(sampled_, [&](const Log::Range& r) { return r.begin >= target; });
    if (!sampled_.empty()) sampled_.back().end = std::min(sampled_.back().end, target);
  }
  if (n > 0) logits_.clear();
}

// Runs the first `target` tokens again, with the same phases, on fresh states.
void Stream::replay(Index target) {
  Stream fresh(model_, options_);
  std::vector<Index> cuts = {0, target};
  for (const Log::Range& range : sampled_)
    for (Index cut : {range.begin, range.end})
      if (cut > 0 && cut < target) cuts.push_back(cut);
  std::sort(cuts.begin(), cuts.end());
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const bool sampled = std::any_of(sampled_.begin(), sampled_.end(), [&](const Log::Range& r) {
      return r.begin <= cuts[i] && cuts[i] < r.end;
    });
    fresh.feed(std::span(tokens_).subspan(static_cast<std::size_t>(cuts[i]),
                                          static_cast<std::size_t>(cuts[i + 1] - cuts[i])),
               sampled ? Origin::sampled : Origin::given);
  }
  *this = std::move(fresh);
}

Snapshot Stream::snapshot() const {
  Snapshot s;
  s.model_name = model_->card().name;
  s.model_identity = model_->identity();
  s.arithmetic = arithmetic();
  s.edits = effective(options_);
  s.id = options_.id;
  s.tokens = tokens_;
  s.sampled = sampled_;
  s.logits = logits_;
  for (int n = 0; n < model_->node_count(); ++n) {
    if (model_->layer(n).fields().empty()) continue;
    const State& state = sequence_.states[static_cast<std::size_t>(n)];
    s.states.push_back(
        {model_->graph().nodes[static_cast<std::size_t>(n)].name, state.saved_fields(), state.image()});
  }
  return s;
}

namespace {

void check_same(const char* what, const Json& saved, const Json& now) {
  if (saved != now)
    fail("the snapshot was saved with ", what, " ", saved.dump(), ", this stream has ", now.dump());
}

void check_position(const std::string& node, Index saved, Index tokens) {
  if (saved > tokens)
    fail("the snapshot's state of node '", node, "' stands at ", saved, ", after its ", tokens, " tokens");
}

}  // namespace

Stream Stream::restore(std::shared_ptr<const Model> model, const Snapshot& snapshot, StreamOptions options) {
  options.id = snapshot.id;
  Stream stream(std::move(model), std::move(options));
  check_same("model identity", snapshot.model_identity, stream.model_->identity());
  check_same("arithmetic", snapshot.arithmetic, stream.arithmetic());
  check_same("edits", snapshot.edits, effective(stream.options_));
  const auto position = static_cast<Index>(snapshot.tokens.size());
  std::size_t next = 0;
  for (int n = 0; n < stream.model_->node_count(); ++n) {
    if (stream.model_->layer(n).fields().empty()) continue;
    const std::string& name = stream.model_->graph().nodes[static_cast<std::size_t>(n)].name;
    if (next >= snapshot.states.size() || snapshot.states[next].node != name)
      fail("the snapshot has no state of node '", name, "'");
    check_position(name, snapshot.states[next].image.position, position);
    State& state = stream.sequence_.states[static_cast<std::size_t>(n)];
    if (stream.sequence_.plan) state.remember(stream.sequence_.plan->memory(n));
    try {
      state.restore(snapshot.states[next].image);
    } catch (const Error& error) {
      fail("snapshot, node '", name, "': ", error.what());
    }
    ++next;
  }
  if (next != snapshot.states.size())
    fail("the snapshot has a state of '", snapshot.states[next].node, "', which the model lacks");
  if (!snapshot.logits.empty() && static_cast<Index>(snapshot.logits.size()) != stream.model_->card().vocab)
    fail("the snapshot has ", snapshot.logits.size(), " logits, the model's vocabulary is ",
         stream.model_->card().vocab);
  stream.sequence_.position = position;
  stream.tokens_ = snapshot.tokens;
  stream.sampled_ = snapshot.sampled;
  stream.logits_ = snapshot.logits;
  return stream;
}

Snapshot Stream::snapshot_since(Index from) const {
  Stream later = fork();  // its logs begin at `from`
  for (State& state : later.sequence_.states)
    for (std::size_t i = 0; i < state.fields().size(); ++i)
      if (state.fields()[i].kind == Field::Kind::log) state.log(static_cast<Index>(i)).hide_before(from);
  Snapshot added = later.snapshot();
  std::size_t next = 0;
  for (const State& state : sequence_.states) {
    if (state.fields().empty()) continue;
    std::vector<State::Image::Item>& items = added.states[next++].image.items;
    for (std::size_t i = 0; i < state.fields().size(); ++i) {
      if (state.fields()[i].kind != Field::Kind::log) continue;
      const Log& log = state.log(static_cast<Index>(i));
      items[i].present = log.present();
      std::vector<Log::Piece> earlier;
      for (const Log::Range& range : log.logical())
        if (range.begin < from) earlier.push_back({{range.begin, std::min(range.end, from)}, {}});
      items[i].pieces.insert(items[i].pieces.begin(), std::make_move_iterator(earlier.begin()),
                             std::make_move_iterator(earlier.end()));
    }
  }
  return added;
}

std::size_t Stream::state_bytes() const {
  std::size_t total = 0;
  for (const State& state : sequence_.states) total += state.bytes();
  return total;
}

std::string Stream::state_digest() const {
  Digest digest;
  for (const State& state : sequence_.states) digest.add(state.digest());
  return digest.hex();
}

Json Stream::arithmetic() const { return plait::arithmetic(model_->card(), options_.compute); }

}  // namespace plait
