#include "tools/stream/session.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "tools/likelihood.h"
#include "tools/stream/health.h"
#include "weights/snapshot_file.h"
#include "weights/temporary_file.h"

namespace plait::stream {
namespace {

// The C library's exp and log, in double precision, may round otherwise on another machine.
constexpr double kRounding = 1e-12;

constexpr const char* kHealthFile = "health";

bool same_loss(double a, double b) {
  return a == b || std::abs(a - b) <= kRounding * std::abs(a) || (std::isnan(a) && std::isnan(b));
}

bool there(const std::string& path) {
  std::error_code ignored;
  return !path.empty() && std::filesystem::exists(path, ignored);
}

History history_of(const Snapshot* snapshot) {
  return snapshot ? History(snapshot->forgotten, snapshot->forgotten_digest, snapshot->tokens) : History();
}

// What a journal knows its stream by. before: the tokens before the input's.
std::string identity_of(const Stream& stream, History before) {
  Digest digest;
  digest.add(stream.model().identity());
  digest.add(stream.arithmetic().dump());
  digest.add(stream.edits().dump());
  before.forget_before(before.end());
  digest.add(before.digest());
  digest.add(before.tokens().data(), before.tokens().size_bytes());
  return digest.hex();
}

StreamOptions options_of(const SessionSettings& settings) {
  StreamOptions options = settings.options;
  options.history = kHealthTokens;
  return options;
}

std::string_view text_of(const std::vector<char>& bytes) { return {bytes.data(), bytes.size()}; }

bool begins_like_hdf5(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::string begin(8, '\0');
  std::ifstream(path, std::ios::binary).read(begin.data(), 8);
  return begin == "\x89HDF\r\n\x1a\n";
}

std::list<WriterLock> locked(std::initializer_list<std::string> paths) {
  std::list<WriterLock> locks;
  for (const std::string& path : paths)
    if (!path.empty()) locks.emplace_back(path);
  return locks;
}

Stream begun(std::shared_ptr<const Model> model, const StreamOptions& options, const Snapshot* begin) {
  if (begin) return Stream::restore(std::move(model), *begin, options);
  return Stream(std::move(model), options);
}

std::unique_ptr<const Snapshot> saved_in(const SessionSettings& settings, const Outputs& outputs) {
  if (!settings.resume || !there(outputs.save)) return nullptr;
  return std::make_unique<const Snapshot>(load_snapshot(outputs.save));
}

Stream opened(std::shared_ptr<const Model> model, const SessionSettings& settings, const Outputs& outputs,
              const Snapshot* begin, const Snapshot* saved) {
  if (!saved) return begun(std::move(model), options_of(settings), begin);
  try {
    return Stream::restore(std::move(model), *saved, options_of(settings));
  } catch (const Error& error) {
    fail("'", outputs.save, "': ", error.what());
  }
}

}  // namespace

Outputs with_journal(Outputs outputs) {
  if (outputs.journal.empty() && !outputs.per_token.empty()) outputs.journal = outputs.per_token + ".journal";
  return outputs;
}

std::size_t predicted_token_bytes(Index position) {
  return static_cast<std::size_t>(position - History::kept_from(position - kHealthTokens)) * sizeof(Token);
}

Session::Session(std::shared_ptr<const Model> model, const SessionSettings& settings,
                 std::unique_ptr<Input> input, Outputs outputs, const Snapshot* begin)
    : model_(model),
      input_(std::move(input)),
      outputs_(with_journal(std::move(outputs))),
      locks_(locked({outputs_.save, outputs_.per_token})),
      every_(settings.every),
      start_(begin ? begin->position() : 0),
      saved_(saved_in(settings, outputs_)),
      stream_(opened(std::move(model), settings, outputs_, begin, saved_.get())),
      furthest_(stream_.position()),
      seen_(history_of(begin)) {
  if (!settings.resume)
    for (const std::string& path : {outputs_.save, outputs_.journal, outputs_.per_token, outputs_.health})
      if (there(path)) fail("'", path, "' is there already; --resume goes on with it");
  const History& fed = stream_.history();
  if (fed.end() < start_ || (fed.begin() <= start_ && !seen_->agrees_with(fed)))
    fail("'", outputs_.save, "' does not go on from the snapshot that --load names");
  identity_ = identity_of(stream_, *seen_);
  // All that is there is looked at before anything is made.
  std::vector<Loss> built = losses_built();
  if (there(outputs_.health))
    health_until(text_of(AppendFile::read(outputs_.health, kHealthFile)), 0, identity_, outputs_.health);
  if (!outputs_.journal.empty()) journal_.emplace(outputs_.journal, start_, identity_);
  if (!outputs_.health.empty()) health_.emplace(outputs_.health, kHealthFile);
  for (const std::string& path : {outputs_.save, outputs_.per_token})
    if (!path.empty()) remove_stale_temporaries(path);  // nobody else writes them: they are locked
  go_on(begin, std::move(built));
  saved_.reset();
}

// What the file that is replaced as a whole holds; nothing where it is torn and the journal has it all.
std::vector<Loss> Session::losses_built() const {
  const std::string& path = outputs_.per_token;
  std::error_code ignored;
  if (!there(path) || std::filesystem::file_size(path, ignored) == 0) return {};
  try {
    std::vector<Loss> losses = read_losses(path);
    if (!losses.empty() && losses.front().position != start_ && losses.front().position != start_ + 1)
      fail("it begins at position ", losses.front().position);
    return losses;
  } catch (const Error& error) {
    if (begins_like_hdf5(path) && there(outputs_.journal) && !LossJournal::read(outputs_.journal).empty())
      return {};
    fail("'", path, "' is there already and is no file of losses by position of this input: ", error.what());
  }
}

// A stream that is ahead of its journal (which somebody else has cut), or of what its next health looks back
// to, goes back.
void Session::go_on(const Snapshot* begin, std::vector<Loss> built) {
  fed_ = stream_.history();
  const Index end = journal_ ? journal_->end().value_or(start_) : stream_.position();
  if (end < stream_.position()) go_back(std::max(end - 1, start_), begin);
  if (health_) {
    while (!recall(begin)) go_back(health_begin(next_checkpoint()), begin);
    const std::string text(text_of(health_->contents()));
    const std::size_t kept = health_until(text, stream_.position(), identity_, outputs_.health);
    health_end_ = text.rfind('\n') + 1;
    health_ahead_ = text.substr(kept, health_end_ - kept);
    health_torn_ = health_end_ < text.size();
  }
  if (seen_->end() == stream_.position()) seen_.reset();
  if (!journal_) return;
  known_ = LossJournal::read(journal_->path());
  known_in_ = journal_->path();
  // Behind a kept boundary there are no logits: the loss of the token there is the journal's.
  const Index scored = stream_.position() + (stream_.logits().empty() ? 1 : 0);
  for (const Loss& loss : known_)
    if (loss.position < scored) add(loss);
  if (built.size() <= known_.size()) return;
  known_ = std::move(built);
  known_in_ = outputs_.per_token;
}

// Copies of the stream as it was where its next healths begin; false where one is missing.
bool Session::recall(const Snapshot* begin) {
  earlier_.clear();
  for (Index next = next_checkpoint(); health_begin(next) <= stream_.position(); next += every_) {
    const Index from = health_begin(next);
    if (!earlier_.empty() && earlier_.back().position == from) continue;  // the input's begin
    if (from == stream_.position()) {
      earlier_.push_back(stream_.sequence());
    } else if (from == start_) {
      earlier_.push_back(begun(model_, stream_.options(), begin).sequence());
    } else {
      if (!saved_) return false;
      const auto& all = saved_->boundaries;
      const auto at = std::find_if(all.begin(), all.end(), [&](const auto& b) { return b.position == from; });
      if (at == all.end()) return false;
      earlier_.push_back(stream_.earlier(*at));
    }
  }
  return true;
}

// To the last boundary that is kept, or to where the input begins; the input, which is read anew anyway, has
// the tokens from there on.
void Session::go_back(Index position, const Snapshot* begin) {
  const Boundary* boundary = stream_.boundaries().last_at_or_before(position);
  if (boundary && boundary->position > start_)
    stream_.rollback(stream_.position() - boundary->position);
  else
    stream_ = begun(model_, stream_.options(), begin);
}

void Session::add(const Loss& loss) {
  sum_ += loss.nll;
  correct_ += loss.top1;
  ++scored_;
}

bool Session::poll() {
  input_->poll();
  // What the stream was fed before it is not run again, but it has to be the same.
  if (!seen_) return false;
  const std::size_t count = recognise(input_->pending());
  input_->take(count);
  if (seen_->end() == stream_.position())
    seen_.reset();
  else if (input_->ended())
    fail("input '", input_->path(), "' ends after ", seen_->end() - start_,
         " tokens, but the stream was fed ", stream_.position() - start_, " of it");
  return count > 0;
}

// How many tokens of `pending` the stream was fed.
std::size_t Session::recognise(std::span<const Token> pending) {
  const History& fed = stream_.history();
  const bool hidden = seen_->end() < fed.begin();  // the stream has a digest of these
  const auto left = static_cast<std::size_t>((hidden ? fed.begin() : fed.end()) - seen_->end());
  const std::size_t count = std::min(pending.size(), left);
  const std::span<const Token> tokens = pending.first(count);
  check_known(seen_->end(), tokens);
  seen_->append(tokens);
  seen_->forget_before(seen_->end());
  if (hidden && seen_->end() == fed.begin() && seen_->digest() != fed.digest())
    fail("the first ", seen_->end() - start_, " tokens of input '", input_->path(),
         "' are not those that the stream was fed; it is another text");
  return count;
}

const Loss* Session::known(Index position) const {
  const Index at = known_.empty() ? -1 : position - known_.front().position;
  return at >= 0 && at < std::ssize(known_) ? &known_[static_cast<std::size_t>(at)] : nullptr;
}

void Session::check_known(Index position, std::span<const Token> tokens) const {
  const auto compare = [&](Token token, Token earlier, const std::string& where) {
    if (token != earlier)
      fail("token ", position - start_, " of input '", input_->path(), "' is ", token, ", but ", where, " ",
           earlier, "; it is another text");
  };
  for (const Token token : tokens) {
    if (fed_ && fed_->begin() <= position && position < fed_->end())
      compare(token, fed_->since(position).front(), "the stream was fed");
    if (const Loss* loss = known(position)) compare(token, loss->token, cat("'", known_in_, "' has"));
    ++position;
  }
}

// Records that are known are those of an earlier run: they have to agree, and stay. Of a token that nothing
// predicted there is none, but the loss behind it tells.
void Session::journal_losses() {
  for (const Loss& now : losses_)
    if (const Loss* loss = known(now.position); loss && !same_loss(loss->nll, now.nll))
      fail("token ", now.position - start_, " of input '", input_->path(), "' has a loss of ", now.nll,
           " nats, but in '", known_in_, "' of ", loss->nll, "; it is another text");
  const Index end = journal_->end().value_or(start_);
  const auto first =
      std::find_if(losses_.begin(), losses_.end(), [&](const Loss& l) { return l.position >= end; });
  journal_->append({first, losses_.end()});
  if (!ahead()) known_.clear();
}

// Whether an earlier run scored more than this one did so far.
bool Session::ahead() const { return !known_.empty() && known_.back().position >= stream_.position(); }

Index Session::next_checkpoint() const { return (stream_.position() / every_ + 1) * every_; }

Index Session::next_stop() const {
  const Index position = stream_.position();
  Index stop = next_checkpoint();
  if (health_) stop = std::min(stop, ((position + kHealthTokens) / every_ + 1) * every_ - kHealthTokens);
  return std::min(stop, position + stream_.until_boundary().value_or(stop - position));
}

Index Session::ready() const {
  if (seen_) return 0;
  return std::min(static_cast<Index>(input_->pending().size()), next_stop() - stream_.position());
}

Item Session::begin(Index count) {
  running_ = input_->pending().first(static_cast<std::size_t>(count));
  check_tokens(*model_, running_);
  check_known(stream_.position(), running_);
  losses_.clear();
  if (!stream_.logits().empty()) score(stream_.position(), stream_.logits(), running_.front());
  return {&stream_.sequence(), running_, Want::all, Origin::given};
}

void Session::score(Index position, std::span<const float> logits, Token token) {
  const TokenScore score = score_token(logits, token);
  losses_.push_back({position, token, score.top1, score.nll});
}

void Session::see(Index position, std::span<const float> logits) {
  const auto next = static_cast<std::size_t>(position + 1 - stream_.history().end());
  if (next < running_.size())
    score(position + 1, logits, running_[next]);
  else
    last_.assign(logits.begin(), logits.end());
}

void Session::end() {
  stream_.record(running_, Origin::given, last_);
  input_->take(running_.size());
  running_ = {};
  for (const Loss& loss : losses_) add(loss);
  if (journal_) journal_losses();
  if (fed_ && fed_->end() <= stream_.position()) fed_.reset();
  const Index position = stream_.position();
  const bool at_checkpoint = position % every_ == 0;
  if (health_ && at_checkpoint) write_health();
  if (health_ && (position + kHealthTokens) % every_ == 0) keep_for_health();
  while (!earlier_.empty() && earlier_.front().position < health_begin(next_checkpoint()))
    earlier_.pop_front();
  if (at_checkpoint) checkpoint();
}

// A health looks back at the tokens since here.
Index Session::health_begin(Index position) const { return std::max(position - kHealthTokens, start_); }

void Session::keep_for_health() { earlier_.push_back(stream_.sequence()); }

// Of the copies a health looks back to, beside the stream.
std::size_t Session::health_bytes() const {
  std::size_t bytes = 0;
  for (const Sequence& sequence : earlier_)
    for (const State& state : sequence.states) bytes += state.copy_bytes();
  return bytes;
}

std::size_t Session::bytes() const {
  return stream_.state_bytes() + stream_.history().bytes() + stream_.boundaries().bytes() + health_bytes();
}

// Lines of an earlier run have to agree, and stay.
void Session::write_health() {
  const std::string now = health_of(stream_, earlier_.front(), identity_).dump();
  if (!health_ahead_.empty()) {
    const std::size_t end = health_ahead_.find('\n');
    if (!same_health(Json::parse(health_ahead_.substr(0, end)), Json::parse(now)))
      fail("'", outputs_.health, "' has another health than that of position ", stream_.position(),
           "; it is of another text, or of another --every");
    health_ahead_.erase(0, end + 1);
    return;
  }
  if (health_torn_) health_->cut(health_end_);
  health_torn_ = false;
  health_->append(now + "\n");
}

void Session::checkpoint() {
  if (journal_) journal_->flush();
  if (health_) health_->flush();
  save();
  // As often as the journal has doubled: all of them together cost as much as the last.
  if (scored_ > 0 && scored_ >= 2 * written_.value_or(0)) write_per_token();
}

// With what the next healths look back to. A stream that went back leaves the snapshot that is further on.
void Session::save() const {
  if (outputs_.save.empty() || stream_.position() < furthest_) return;
  Snapshot snapshot = stream_.snapshot();
  for (const Sequence& earlier : earlier_)
    if (earlier.position > start_) stream_.add_boundary(snapshot, earlier.position, earlier.states);
  save_snapshot(outputs_.save, snapshot);
}

void Session::write_per_token() {
  if (outputs_.per_token.empty() || (ahead() && there(outputs_.per_token))) return;
  std::vector<Loss> losses = LossJournal::read(journal_->path());
  losses.resize(std::min(losses.size(), static_cast<std::size_t>(scored_)));  // not what it is ahead
  write_losses(outputs_.per_token, losses);
  written_ = scored_;
}

void Session::finish() {
  if (input_->ended() && ahead())
    fail("input '", input_->path(), "' ends after ", stream_.position() - start_, " tokens, but '", known_in_,
         "' has ", known_.back().position + 1 - start_, "; it is another text");
  checkpoint();
  if (written_ != scored_) write_per_token();
}

Json Session::report() const {
  const auto scored = static_cast<double>(scored_);
  Json json = {{"input", input_->path()},
               {"start", start_},
               {"position", stream_.position()},
               {"tokens", stream_.position() - start_},
               {"scored", scored_},
               {"nll", scored_ > 0 ? Json(sum_ / scored) : Json()},
               {"top1", scored_ > 0 ? Json(static_cast<double>(correct_) / scored) : Json()},
               {"state_bytes", stream_.state_bytes()},
               {"token_bytes", stream_.history().bytes()},
               {"kept_bytes", stream_.boundaries().bytes()},
               {"health_bytes", health_bytes()},
               {"stride", stream_.boundaries().stride()},
               {"kept", Json::array()}};
  for (const auto& boundary : stream_.boundaries().all()) json["kept"].push_back(boundary->position);
  return json;
}

}  // namespace plait::stream
