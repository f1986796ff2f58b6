#include "runtime/text/trie.h"

#include <algorithm>

namespace plait {

Trie::Trie(std::vector<std::pair<std::string_view, Token>> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  root_.fill(kNone);
  struct Span {
    std::size_t begin, end, depth;  // entries that share their first `depth` bytes
  };
  std::vector<Span> spans = {{0, entries.size(), 0}};  // of nodes_, breadth first
  nodes_.push_back({0, 0, -1});
  for (std::size_t node = 0; node < spans.size(); ++node) {
    auto [begin, end, depth] = spans[node];
    for (; begin < end && entries[begin].first.size() == depth; ++begin)
      nodes_[node].token = entries[begin].second;
    nodes_[node].first = static_cast<std::uint32_t>(edges_.size());
    while (begin < end) {
      const char byte = entries[begin].first[depth];
      std::size_t after = begin;
      while (after < end && entries[after].first[depth] == byte) ++after;
      edges_.push_back({static_cast<unsigned char>(byte), static_cast<Node>(spans.size())});
      spans.push_back({begin, after, depth + 1});
      nodes_.push_back({0, 0, -1});
      begin = after;
    }
    nodes_[node].count = static_cast<std::uint32_t>(edges_.size()) - nodes_[node].first;
  }
  for (std::uint32_t i = 0; i < nodes_[kRoot].count; ++i) root_[edges_[i].byte] = edges_[i].to;
}

Trie::Node Trie::walk(Node node, std::string_view text) const {
  for (const char byte : text) {
    if (node == kNone) break;
    node = step(node, static_cast<unsigned char>(byte));
  }
  return node;
}

Trie trie_of(const Vocabulary& vocabulary) {
  std::vector<std::pair<std::string_view, Token>> entries;
  for (Token id = 0; id < vocabulary.limit(); ++id)
    if (!vocabulary.text(id).empty()) entries.emplace_back(vocabulary.text(id), id);
  return Trie(std::move(entries));
}

}  // namespace plait
