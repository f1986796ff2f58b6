// Text as it is generated: shown as soon as it can be.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "runtime/text/tokenizer.h"
#include "tools/program.h"

namespace plait {

// Text that may be shown: everything but what could still become a stop text.
class Printer {
 public:
  Printer(const Tokenizer& tokenizer, const std::vector<std::string>& stops, bool live)
      : decoder_(tokenizer), stops_(stops), live_(live) {}

  // A token of the context before the generated text: completes a character that is cut there, shows nothing.
  void prime(Token token) { decoder_.push(token); }

  // False when a stop text is complete; it and what follows are not shown.
  bool push(Token token) {
    pending_ += decoder_.push(token);
    std::size_t stop = std::string::npos;
    for (const std::string& text : stops_) stop = std::min(stop, pending_.find(text));
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
    for (const std::string& stop : stops_)
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
  std::vector<std::string> stops_;
  bool live_;
  std::string pending_, text_;
};

}  // namespace plait
