// The text of one stream as it comes: a file, a pipe, a file that grows.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/tokenizer.h"

namespace plait::stream {

// Cuts a text into pieces that are tokenized one by one. Where it cuts depends on the text only, never on how
// it arrives: after a newline between two characters that are no white space, where no pattern of the usual
// tokenizers joins what it divides, or after kLongestPiece bytes at the begin of a character. Tokenizers of
// bytes need no pieces and wait for nothing.
class TextPieces {
 public:
  static constexpr std::size_t kLongestPiece = std::size_t{1} << 16;

  TextPieces(std::shared_ptr<const Tokenizer> tokenizer, Specials specials);
  // Appends to `tokens` what is certain after `text`.
  void push(std::string_view text, std::vector<Token>& tokens);
  void finish(std::vector<Token>& tokens);

 private:
  void encode(std::string_view piece, std::vector<Token>& tokens);
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool prefix_;  // the special tokens of a text's begin are still to come
  std::string waiting_;
  std::size_t looked_ = 0;  // bytes of waiting_ in which no cut was found
};

class Input {
 public:
  enum class AtEnd { finish, follow };  // follow: a file that grows has no end
  // "-" is standard input. Throws Error when it cannot be opened.
  Input(const std::string& path, TextPieces pieces, AtEnd at_end);
  ~Input();
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  const std::string& path() const { return path_; }
  // Takes what is there, without waiting, while few tokens are pending. Throws Error when reading fails.
  void poll();
  std::span<const Token> pending() const { return std::span(tokens_).subspan(taken_); }
  void take(std::size_t count);
  bool ended() const { return at_end_ && pending().empty(); }
  // To wait for; -1 for files, which are always ready.
  int descriptor() const { return at_end_ || regular_ ? -1 : file_; }

 private:
  std::string path_;
  TextPieces pieces_;
  AtEnd when_;
  int file_ = -1;
  bool regular_ = false, at_end_ = false;
  std::int64_t read_ = 0;
  std::vector<Token> tokens_;
  std::size_t taken_ = 0;
};

}  // namespace plait::stream
