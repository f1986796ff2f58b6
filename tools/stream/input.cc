#include "tools/stream/input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/error.h"

namespace plait::stream {
namespace {

constexpr std::size_t kEnough = 4096;  // pending tokens before more is read
constexpr std::size_t kBlock = std::size_t{1} << 16;

bool white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Bytes of the first piece of `text`, none of whose first `looked` bytes is a cut; 0 if its end is not there.
std::size_t first_cut(std::string_view text, std::size_t looked) {
  const std::size_t end = std::min(text.size(), TextPieces::kLongestPiece);
  for (std::size_t i = std::max<std::size_t>(looked, 2); i < end; ++i)
    if (!white(text[i - 2]) && text[i - 1] == '\n' && !white(text[i])) return i;
  if (text.size() <= TextPieces::kLongestPiece) return 0;
  std::size_t cut = TextPieces::kLongestPiece;
  while (cut > TextPieces::kLongestPiece - 3 && (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) --cut;
  return cut;
}

}  // namespace

TextPieces::TextPieces(std::shared_ptr<const Tokenizer> tokenizer, Specials specials)
    : tokenizer_(std::move(tokenizer)), prefix_(specials == Specials::with) {}

void TextPieces::push(std::string_view text, std::vector<Token>& tokens) {
  if (text.empty()) return;
  if (tokenizer_->kind() == "bytes") return encode(text, tokens);
  waiting_ += text;
  std::size_t begin = 0;
  for (;;) {
    const std::string_view rest = std::string_view(waiting_).substr(begin);
    const std::size_t cut = first_cut(rest, looked_);
    looked_ = 0;
    if (cut == 0) break;
    encode(rest.substr(0, cut), tokens);
    begin += cut;
  }
  waiting_.erase(0, begin);
  looked_ = waiting_.size();
}

void TextPieces::finish(std::vector<Token>& tokens) {
  if (!waiting_.empty() || prefix_) encode(waiting_, tokens);
  waiting_.clear();
}

void TextPieces::encode(std::string_view piece, std::vector<Token>& tokens) {
  const std::vector<Token> plain = tokenizer_->encode(piece, Specials::without);
  if (std::exchange(prefix_, false)) {
    // Those that the post-processor puts behind a text have no place inside a stream.
    const std::vector<Token> whole = tokenizer_->encode(piece, Specials::with);
    const auto text = std::search(whole.begin(), whole.end(), plain.begin(), plain.end());
    tokens.insert(tokens.end(), whole.begin(), text);
  }
  tokens.insert(tokens.end(), plain.begin(), plain.end());
}

Input::Input(const std::string& path, TextPieces pieces, AtEnd at_end)
    : path_(path), pieces_(std::move(pieces)), when_(at_end) {
  const bool standard = path == "-";
  // A pipe nobody writes to yet must not hold up the other inputs.
  file_ = standard ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) fail("cannot open '", path, "': ", std::strerror(errno));
  struct stat status {};
  ::fstat(file_, &status);
  regular_ = S_ISREG(status.st_mode);
  if (S_ISDIR(status.st_mode)) {
    ::close(file_);
    fail("cannot read '", path, "': it is a folder");
  }
}

Input::~Input() {
  if (path_ != "-") ::close(file_);
}

void Input::take(std::size_t count) {
  taken_ += count;
  if (taken_ < kEnough && taken_ < tokens_.size()) return;
  tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
}

void Input::poll() {
  char block[kBlock];
  while (!at_end_ && pending().size() < kEnough) {
    pollfd ready{file_, POLLIN, 0};
    if (!regular_ && ::poll(&ready, 1, 0) <= 0) return;
    const ssize_t got = ::read(file_, block, sizeof block);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got < 0) fail("cannot read '", path_, "': ", std::strerror(errno));
    if (got == 0) {
      if (regular_ && when_ == AtEnd::follow) {
        struct stat status {};
        if (::fstat(file_, &status) == 0 && status.st_size < read_)
          fail("'", path_, "' was cut to ", status.st_size, " bytes after ", read_, " of it were read");
        return;
      }
      at_end_ = true;
      pieces_.finish(tokens_);
      return;
    }
    read_ += got;
    pieces_.push({block, static_cast<std::size_t>(got)}, tokens_);
  }
}

}  // namespace plait::stream
