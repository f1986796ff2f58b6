// A prefix tree over the bytes of texts.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/text/vocabulary.h"

namespace plait {

class Trie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0, kNone = UINT32_MAX;

  // Texts are not empty; of equal texts the last counts. Total length below 2^31.
  explicit Trie(std::vector<std::pair<std::string_view, Token>> entries);
  Node step(Node node, unsigned char byte) const;
  Node walk(Node node, std::string_view text) const;           // kNone when it leaves the tree
  Token token(Node node) const { return nodes_[node].token; }  // -1: no text ends here

 private:
  struct Inner {
    std::uint32_t first, count;  // of edges_
    Token token;
  };
  struct Edge {
    unsigned char byte;
    Node to;
  };
  std::vector<Inner> nodes_;
  std::vector<Edge> edges_;  // of a node: ascending bytes
  std::array<Node, 256> root_;
};

Trie trie_of(const Vocabulary& vocabulary);  // of every text that is not empty

inline Trie::Node Trie::step(Node node, unsigned char byte) const {
  if (node == kRoot) return root_[byte];
  const Inner& inner = nodes_[node];
  std::uint32_t low = inner.first, high = inner.first + inner.count;
  while (low < high) {
    const std::uint32_t middle = (low + high) / 2;
    if (edges_[middle].byte < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low < inner.first + inner.count && edges_[low].byte == byte ? edges_[low].to : kNone;
}

}  // namespace plait
