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

std::shared_ptr<const EditPlan> plan_of(const Model& model, const StreamOptions& options) {
  if (options.edits.empty()) return nullptr;
  return std::make_shared<const EditPlan>(model, options.edits, options.references);
}

}  // namespace

Stream::Stream(std::shared_ptr<const Model> model, StreamOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      sequence_(*model_, options_.rollback_depth, plan_of(*model_, options_)),
      boundaries_(model_->boundary(), options_.keep, options_.history ? sizeof(Token) : 0) {
  if (options_.rollback_depth < 0) fail("a stream's rollback depth cannot be ", options_.rollback_depth);
  if (options_.history.value_or(0) < 0) fail("a stream cannot keep its last ", *options_.history, " tokens");
}

std::span<const float> Stream::feed(std::span<const Token> tokens, Origin origin) {
  run(tokens, Want::last, {}, origin);
  return logits_;
}

void Stream::feed(std::span<const Token> tokens, const RowSink& sink, Origin origin) {
  run(tokens, Want::all, sink, origin);
}

// In pieces that end where a boundary is kept.
void Stream::run(std::span<const Token> tokens, Want want, const RowSink& sink, Origin origin) {
  check_tokens(*model_, tokens);
  while (!tokens.empty()) {
    const auto left = static_cast<Index>(tokens.size());
    const Index count = std::min(until_boundary().value_or(left), left);
    const Index end = position() + count;
    const auto piece = tokens.first(static_cast<std::size_t>(count));
    std::vector<float> last;
    const Item item{&sequence_, piece, count == left || want == Want::all ? want : Want::none, origin};
    run_batch(*model_, {&item, 1}, {options_.compute},
              [&](std::size_t, Index position, std::span<const float> row) {
                if (position + 1 == end) last.assign(row.begin(), row.end());
                if (sink) sink(position, row);
              });
    record(piece, origin, last);
    tokens = tokens.subspan(piece.size());
  }
}

std::optional<Index> Stream::until_boundary() const {
  const std::optional<Index> next = boundaries_.next(position());
  return next ? std::optional(*next - position()) : std::nullopt;
}

void Stream::record(std::span<const Token> tokens, Origin origin, std::span<const float> last_logits) {
  if (tokens.empty()) return;
  const Index begin = history_.end();
  history_.append(tokens);
  if (origin == Origin::sampled) add_sampled(sampled_, begin, history_.end());
  logits_.assign(last_logits.begin(), last_logits.end());
  assert(position() == history_.end());
  boundaries_.keep(position(), sequence_.states);
  forget_old_tokens();
}

void Stream::forget_old_tokens() {
  if (!options_.history) return;
  const Index recent = position() - std::max(*options_.history, options_.rollback_depth);
  history_.forget_before(options_.keep > 0 ? std::min(recent, boundaries_.begin()) : recent);
}

bool Stream::within_depth(Index n) const {
  return std::all_of(sequence_.states.begin(), sequence_.states.end(), [&](const State& state) {
    // A state may stand before the position when its last rows were skipped; then it has less to undo.
    const Index behind = position() - state.position();
    return n <= behind || state.can_rollback(n - behind);
  });
}

Stream::RollbackCost Stream::can_rollback(Index n) const {
  const Index target = position() - n;
  if (n < 0 || target < history_.begin()) return {false, 0};
  if (within_depth(n)) return {true, 0};
  const Boundary* boundary = boundaries_.last_at_or_before(target);
  const Index from = boundary ? boundary->position : 0;
  if (from < history_.begin()) return {false, 0};
  return {true, target - from};
}

void Stream::rollback(Index n) {
  if (!can_rollback(n).possible)
    fail("cannot roll back ", n, " tokens of a stream at position ", position(),
         history_.begin() > 0 ? cat(", which keeps none before ", history_.begin()) : "");
  if (n == 0) return;
  const Index target = position() - n;
  if (within_depth(n)) {
    for (State& state : sequence_.states) {
      const Index behind = position() - state.position();
      if (n > behind) state.rollback(n - behind);
    }
    sequence_.position = target;
    forget_after(target);
  } else {
    replay(target);
  }
  logits_.clear();
}

void Stream::forget_after(Index target) {
  history_.cut(target);
  std::erase_if(sampled_, [&](const Log::Range& r) { return r.begin >= target; });
  if (!sampled_.empty()) sampled_.back().end = std::min(sampled_.back().end, target);
  boundaries_.drop_after(target);
}

// Runs the tokens from the last boundary on, or from the start, again up to `target`, with the same phases.
void Stream::replay(Index target) {
  Stream again(model_, options_);
  again.boundaries_ = boundaries_;
  again.boundaries_.drop_after(target);
  if (const Boundary* boundary = boundaries_.last_at_or_before(target)) {
    again.sequence_.states = boundary->states;
    again.sequence_.position = boundary->position;
    again.history_ = history_;
    again.sampled_ = sampled_;
    again.forget_after(boundary->position);
  }
  std::vector<Index> cuts = {again.position(), target};
  for (const Log::Range& range : sampled_)
    for (Index cut : {range.begin, range.end})
      if (cut > again.position() && cut < target) cuts.push_back(cut);
  std::sort(cuts.begin(), cuts.end());
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const bool sampled = std::any_of(sampled_.begin(), sampled_.end(), [&](const Log::Range& r) {
      return r.begin <= cuts[i] && cuts[i] < r.end;
    });
    again.run(history_.since(cuts[i]).first(static_cast<std::size_t>(cuts[i + 1] - cuts[i])), Want::none, {},
              sampled ? Origin::sampled : Origin::given);
  }
  *this = std::move(again);
}

bool Stream::phases_matter() const {
  return std::any_of(options_.edits.begin(), options_.edits.end(), [](const Edit& edit) {
    return edit.strength != 0 && (edit.phase == Phase::prefill || edit.phase == Phase::decode);
  });
}

Stream::Resent Stream::resend(std::span<const Token> tokens) {
  check_tokens(*model_, tokens);
  if (tokens.empty()) fail("a text of no tokens has no logits to go on from");
  Index shared = history_.shared(tokens);
  if (!sampled_.empty() && phases_matter()) shared = std::min(shared, sampled_.front().begin);
  const auto all = static_cast<Index>(tokens.size());
  Index run = 0;
  if (shared < all || shared < position() || logits_.empty()) {
    shared = std::min(shared, all - 1);  // the last token's logits are wanted
    RollbackCost cost = can_rollback(position() - shared);
    if (cost.possible) {
      rollback(position() - shared);
    } else {
      *this = Stream(model_, options_);
      shared = 0;
    }
    run = cost.replayed + all - shared;
    feed(tokens.subspan(static_cast<std::size_t>(shared)));
  }
  // From here on they count as given, whoever wrote them first.
  sampled_.clear();
  return {shared, run};
}

namespace {

std::vector<Snapshot::NodeState> node_states(const Model& model, const std::vector<State>& states,
                                             State::LogRows rows) {
  std::vector<Snapshot::NodeState> all;
  for (int n = 0; n < model.node_count(); ++n) {
    if (model.layer(n).fields().empty()) continue;
    const State& state = states[static_cast<std::size_t>(n)];
    all.push_back(
        {model.graph().nodes[static_cast<std::size_t>(n)].name, state.saved_fields(), state.image(rows)});
  }
  return all;
}

// Whether the logs without a window still show what they showed at a boundary: an intervention may have
// hidden it.
bool shown_by(const std::vector<State>& now, const std::vector<State>& then) {
  for (std::size_t n = 0; n < now.size(); ++n)
    if (!now[n].shows_rows_of(then[n])) return false;
  return true;
}

}  // namespace

Snapshot Stream::snapshot() const {
  Snapshot s;
  s.model_name = model_->card().name;
  s.model_identity = model_->identity();
  s.arithmetic = arithmetic();
  s.edits = edits();
  s.id = options_.id;
  s.forgotten = history_.begin();
  s.forgotten_digest = history_.digest();
  s.tokens.assign(tokens().begin(), tokens().end());
  s.sampled = sampled_;
  s.logits = logits_;
  s.states = node_states(*model_, sequence_.states, State::LogRows::all);
  s.stride = boundaries_.stride();
  for (const auto& boundary : boundaries_.all()) add_boundary(s, boundary->position, boundary->states);
  return s;
}

void Stream::add_boundary(Snapshot& snapshot, Index position, const std::vector<State>& then) const {
  const auto at = std::ranges::lower_bound(snapshot.boundaries, position, {}, &Snapshot::Boundary::position);
  if ((at != snapshot.boundaries.end() && at->position == position) || !shown_by(sequence_.states, then))
    return;
  snapshot.boundaries.insert(at, {position, node_states(*model_, then, State::LogRows::windowed)});
}

namespace {

void check_same(const char* what, const Json& saved, const Json& now) {
  if (saved != now)
    fail("the snapshot was saved with ", what, " ", saved.dump(), ", this stream has ", now.dump());
}

// Where nothing skips rows every state stands at the end. Catching up takes time, so it may not be asked for
// without bounds.
void check_position(const std::string& node, Index saved, Index tokens, bool edited) {
  constexpr Index kFarthestBehind = Index{1} << 30;
  if (saved > tokens)
    fail("the snapshot's state of node '", node, "' stands at ", saved, ", after its ", tokens, " tokens");
  if (saved < tokens - (edited ? kFarthestBehind : 0))
    fail("the snapshot's state of node '", node, "' stands at ", saved, " of its ", tokens, " tokens");
}

}  // namespace

void Stream::restore_states(const std::vector<Snapshot::NodeState>& saved, Index position,
                            const std::vector<State>* later, std::vector<State>& states) const {
  std::size_t next = 0;
  for (int n = 0; n < model_->node_count(); ++n) {
    if (model_->layer(n).fields().empty()) continue;
    const auto i = static_cast<std::size_t>(n);
    const std::string& name = model_->graph().nodes[i].name;
    if (next >= saved.size() || saved[next].node != name)
      fail("the snapshot has no state of node '", name, "'");
    check_position(name, saved[next].image.position, position, sequence_.plan != nullptr);
    if (sequence_.plan) states[i].remember(sequence_.plan->memory(n));
    try {
      if (later)
        states[i].restore(saved[next].image, (*later)[i]);
      else
        states[i].restore(saved[next].image);
    } catch (const Error& error) {
      fail("snapshot, node '", name, "': ", error.what());
    }
    ++next;
  }
  if (next != saved.size())
    fail("the snapshot has a state of '", saved[next].node, "', which the model lacks");
}

void Stream::restore_boundaries(const Snapshot& snapshot) {
  if (snapshot.boundaries.empty() && snapshot.stride == 0) return;
  if (snapshot.stride <= 0 || snapshot.stride > kMostTokens || snapshot.stride % model_->boundary() != 0)
    fail("the snapshot keeps boundaries every ", snapshot.stride, " tokens, which is no multiple of ",
         model_->boundary());
  boundaries_.set_stride(snapshot.stride);
  Index last = 0;
  for (const Snapshot::Boundary& boundary : snapshot.boundaries) {
    if (boundary.position <= last || boundary.position > position())
      fail("the snapshot has a boundary at ", boundary.position, " after one at ", last, " in ", position(),
           " tokens");
    last = boundary.position;
    boundaries_.keep(boundary.position, earlier(boundary).states);
  }
}

Sequence Stream::earlier(const Snapshot::Boundary& boundary) const {
  Sequence then(*model_, options_.rollback_depth, sequence_.plan);
  restore_states(boundary.states, boundary.position, &sequence_.states, then.states);
  then.position = boundary.position;
  return then;
}

Stream Stream::restore(std::shared_ptr<const Model> model, const Snapshot& snapshot, StreamOptions options) {
  options.id = snapshot.id;
  Stream stream(std::move(model), std::move(options));
  check_same("model identity", snapshot.model_identity, stream.model_->identity());
  check_same("arithmetic", snapshot.arithmetic, stream.arithmetic());
  check_same("edits", snapshot.edits, stream.edits());
  const Index position = snapshot.position();
  stream.restore_states(snapshot.states, position, nullptr, stream.sequence_.states);
  if (!snapshot.logits.empty() && static_cast<Index>(snapshot.logits.size()) != stream.model_->card().vocab)
    fail("the snapshot has ", snapshot.logits.size(), " logits, the model's vocabulary is ",
         stream.model_->card().vocab);
  stream.sequence_.position = position;
  stream.history_ = History(snapshot.forgotten, snapshot.forgotten_digest, snapshot.tokens);
  stream.sampled_ = snapshot.sampled;
  stream.logits_ = snapshot.logits;
  stream.restore_boundaries(snapshot);
  if (snapshot.forgotten > 0) stream.boundaries_.drop_before(snapshot.forgotten, position);
  stream.forget_old_tokens();
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

Json Stream::edits() const {
  Json list = Json::array();
  for (const Edit& edit : options_.edits) {
    if (edit.strength == 0) continue;
    list.push_back(to_json(edit));
    const auto reference = options_.references.find(edit.reference);
    if (reference != options_.references.end()) list.back()["reference_sha256"] = reference->second->digest;
  }
  return list;
}

}  // namespace plait
