#include "runtime/text/word_piece.h"

#include <algorithm>

namespace plait {
namespace {

Index characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

}  // namespace

WordPiece::WordPiece(Vocabulary vocabulary, WordPieceOptions options)
    : vocabulary_(std::move(vocabulary)),
      options_(std::move(options)),
      trie_(trie_of(vocabulary_)),
      inner_(trie_.walk(Trie::kRoot, options_.prefix)) {}

void WordPiece::encode(std::string_view piece, std::vector<Token>& out) const {
  if (characters(piece) > options_.longest_word) return out.push_back(options_.unknown);
  const std::size_t before = out.size();
  for (std::size_t at = 0; at < piece.size();) {
    Trie::Node node = at == 0 ? Trie::kRoot : inner_;
    std::size_t longest = at;
    Token token = -1;
    for (std::size_t end = at; end < piece.size() && node != Trie::kNone;) {
      node = trie_.step(node, static_cast<unsigned char>(piece[end++]));
      if (node == Trie::kNone || trie_.token(node) < 0) continue;
      token = trie_.token(node);
      longest = end;
    }
    if (token < 0) {
      out.resize(before);
      return out.push_back(options_.unknown);
    }
    out.push_back(token);
    at = longest;
  }
}

}  // namespace plait
