// Text as it is generated: shown as soon as it can be.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "runtime/text/tokenizer.h"
#include "tools/program.h"

namespace plait {

// What ends a generated text.
struct Stops {
  std::vector<std::string> texts;
  std::vector<Token> tokens;
};

// Text that may be shown: everything but what could still become a stop text.
class Printer {
 public:
  Printer(const Tokenizer& tokenizer, const Stops& stops, bool live)
      : decoder_(tokenizer), stops_(stops), live_(live) {}

  // A token of the context before the generated text: completes a character that is cut there, shows nothing.
  void prime(Token token) { decoder_.push(token); }

  // False when the token is a stop, or completes a stop text; it and what follows are not shown.
  bool push(Token token) {
    if (std::find(stops_.tokens.begin(), stops_.tokens.end(), token) != stops_.tokens.end()) return false;
    pending_ += decoder_.push(token);
    std::size_t stop = std::string::npos;
    for (const std::string& text : stops_.texts) stop = std::min(stop, pending_.find(text));
    if (stop != std::string::npos) pending_.resize(stop);
    show(stop != std::string::npos ? pending_.size() : pending_.size() - held_back());
    return stop == std::string::npos;
  }

  void finish() {
    pending_ += decoder_.finish();
    show(pending_.size());
    if (live_ && !text_.empty() && text_.back() != '\n') print("\n");
    if (live_) flush_output();
  }
  const std::string& text() const { return text_; }

 private:
  // Length of the longest end of the pending text with which a stop text begins.
  std::size_t held_back() const {
    std::size_t longest = 0;
    for (const std::string& stop : stops_.texts)
      for (std::size_t n = std::min(stop.size() - 1, pending_.size()); n > longest; --n)
        if (pending_.ends_with(stop.substr(0, n))) longest = n;
    return longest;
  }

  void show(std::size_t bytes) {
    const std::string piece = pending_.substr(0, bytes);
    pending_.erase(0, bytes);
    text_ += piece;
    if (!live_ || piece.empty()) return;
    print(piece);
    flush_output();
  }

  StreamDecoder decoder_;
  Stops stops_;
  bool live_;
  std::string pending_, text_;
};

}  // namespace plait
