#include "tools/stream/session.h"

#include <algorithm>
#include <filesystem>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "tools/likelihood.h"
#include "tools/stream/health.h"
#include "weights/snapshot_file.h"

namespace plait::stream {
namespace {

bool there(const std::string& path) {
  std::error_code ignored;
  return !path.empty() && std::filesystem::exists(path, ignored);
}

// What a journal knows its stream by.
std::string identity_of(const Stream& stream, Index start) {
  Digest digest;
  digest.add(stream.model().identity());
  digest.add(stream.arithmetic().dump());
  digest.add(stream.edits().dump());
  const auto tokens = stream.tokens().first(static_cast<std::size_t>(start));
  digest.add(tokens.data(), tokens.size_bytes());
  return digest.hex();
}

Stream opened(std::shared_ptr<const Model> model, const SessionSettings& settings, const Outputs& outputs,
              const Snapshot* begin) {
  if (settings.resume && there(outputs.save)) {
    const Snapshot saved = load_snapshot(outputs.save);
    try {
      return Stream::restore(std::move(model), saved, settings.options);
    } catch (const Error& error) {
      fail("'", outputs.save, "': ", error.what());
    }
  }
  if (begin) return Stream::restore(std::move(model), *begin, settings.options);
  return Stream(std::move(model), settings.options);
}

}  // namespace

Session::Session(std::shared_ptr<const Model> model, const SessionSettings& settings,
                 std::unique_ptr<Input> input, Outputs outputs, const Snapshot* begin)
    : model_(model),
      input_(std::move(input)),
      outputs_(std::move(outputs)),
      every_(settings.every),
      start_(begin ? static_cast<Index>(begin->tokens.size()) : 0),
      stream_(opened(std::move(model), settings, outputs_, begin)) {
  if (outputs_.journal.empty() && !outputs_.per_token.empty())
    outputs_.journal = outputs_.per_token + ".journal";
  if (!settings.resume)
    for (const std::string& path : {outputs_.save, outputs_.journal, outputs_.per_token, outputs_.health})
      if (there(path)) fail("'", path, "' is there already; --resume goes on with it");
  if (begin && (stream_.position() < start_ ||
                !std::equal(begin->tokens.begin(), begin->tokens.end(), stream_.tokens().begin())))
    fail("'", outputs_.save, "' does not go on from the snapshot that --load names");
  if (!outputs_.journal.empty()) journal_.emplace(outputs_.journal, start_, identity_of(stream_, start_));
  if (journal_) go_on();
  if (!outputs_.health.empty()) {
    health_.emplace(outputs_.health);
    cut_health();
  }
}

// Stream and journal end at the same position: a journal that is ahead of the snapshot is cut, a stream that
// is ahead of its journal (which somebody else has cut) goes back.
void Session::go_on() {
  const Index end = journal_->end().value_or(start_);
  if (end == 0) {
    stream_.rollback(stream_.position());
  } else if (end < stream_.position()) {
    const std::vector<Token> tokens(stream_.tokens().begin(), stream_.tokens().begin() + end);
    stream_.resend(tokens);
  }
  journal_->cut(stream_.position());
  for (const Loss& loss : LossJournal::read(journal_->path())) add(loss);
}

void Session::add(const Loss& loss) {
  sum_ += loss.nll;
  correct_ += loss.top1;
  ++scored_;
}

// Keeps the whole lines of positions up to the stream's.
void Session::cut_health() {
  const std::vector<char> bytes = health_->contents();
  const std::string_view text(bytes.data(), bytes.size());
  std::size_t kept = 0;
  for (std::size_t end; (end = text.find('\n', kept)) != text.npos; kept = end + 1) {
    const Json line = Json::parse(text.substr(kept, end - kept), nullptr, false);
    if (!line.is_object() || line.value("position", Index{-1}) < 0)
      fail("'", outputs_.health, "' holds a line that is no health of a stream");
    if (line["position"] > stream_.position()) break;
  }
  health_->cut(kept);
}

void Session::poll() {
  input_->poll();
  // What the stream was fed before it is not run again, but it has to be the same.
  const auto pending = input_->pending();
  const auto fed = stream_.tokens().subspan(static_cast<std::size_t>(start_ + verified_));
  const std::size_t count = std::min(pending.size(), fed.size());
  if (count == 0) {
    if (!fed.empty() && input_->ended())
      fail("input '", input_->path(), "' ends after ", verified_, " tokens, but the stream was fed ",
           stream_.position() - start_, " of it");
    return;
  }
  const auto differs =
      std::mismatch(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(count), fed.begin());
  if (differs.second != fed.begin() + static_cast<std::ptrdiff_t>(count)) {
    const Index at = verified_ + (differs.second - fed.begin());
    fail("token ", at, " of input '", input_->path(), "' is ", *differs.first, ", but the stream was fed ",
         *differs.second, "; it is another text");
  }
  input_->take(count);
  verified_ += static_cast<Index>(count);
}

Index Session::next_stop() const {
  const Index position = stream_.position();
  const Index checkpoint = (position / every_ + 1) * every_;
  Index stop = checkpoint;
  if (health_ && checkpoint - kHealthTokens > position) stop = checkpoint - kHealthTokens;
  return std::min(stop, position + stream_.until_boundary().value_or(stop - position));
}

Index Session::ready() const {
  if (start_ + verified_ < stream_.position()) return 0;
  return std::min(static_cast<Index>(input_->pending().size()), next_stop() - stream_.position());
}

Item Session::begin(Index count) {
  running_ = input_->pending().first(static_cast<std::size_t>(count));
  check_tokens(*model_, running_);
  losses_.clear();
  if (!stream_.logits().empty()) score(stream_.position(), stream_.logits(), running_.front());
  return {&stream_.sequence(), running_, Want::all, Origin::given};
}

void Session::score(Index position, std::span<const float> logits, Token token) {
  const TokenScore score = score_token(logits, token);
  losses_.push_back({position, token, score.top1, score.nll});
}

void Session::see(Index position, std::span<const float> logits) {
  const auto next = static_cast<std::size_t>(position + 1 - static_cast<Index>(stream_.tokens().size()));
  if (next < running_.size())
    score(position + 1, logits, running_[next]);
  else
    last_.assign(logits.begin(), logits.end());
}

void Session::end() {
  stream_.record(running_, Origin::given, last_);
  input_->take(running_.size());
  verified_ += static_cast<Index>(running_.size());
  running_ = {};
  for (const Loss& loss : losses_) add(loss);
  if (journal_) journal_->append(losses_);
  const Index position = stream_.position();
  const bool at_checkpoint = position % every_ == 0;
  if (health_ && at_checkpoint) write_health();
  if (health_ && (position + kHealthTokens) % every_ == 0) before_ = stream_.sequence();
  if (at_checkpoint) checkpoint();
}

void Session::write_health() {
  const Index from = std::max<Index>(stream_.position() - kHealthTokens, 0);
  if (!before_ || before_->position != from) {  // the stream went on behind that place
    Stream back = stream_.fork();
    back.rollback(stream_.position() - from);
    before_ = back.sequence();
  }
  health_->append(health_of(stream_, *before_).dump() + "\n");
  before_.reset();
}

void Session::checkpoint() {
  if (journal_) journal_->flush();
  if (health_) health_->flush();
  if (!outputs_.save.empty()) save_snapshot(outputs_.save, stream_.snapshot());
  // As often as the journal has doubled: all of them together cost as much as the last.
  if (scored_ > 0 && scored_ >= 2 * written_) write_per_token();
}

void Session::write_per_token() {
  if (outputs_.per_token.empty()) return;
  write_losses(outputs_.per_token, LossJournal::read(journal_->path()));
  written_ = scored_;
}

void Session::finish() {
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
               {"kept_bytes", stream_.boundaries().bytes()},
               {"stride", stream_.boundaries().stride()},
               {"kept", Json::array()}};
  for (const auto& boundary : stream_.boundaries().all()) json["kept"].push_back(boundary->position);
  return json;
}

}  // namespace plait::stream
