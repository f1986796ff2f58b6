// Learns the merges of byte-pair encoding: the most frequent pair of neighbours becomes a token, again and
// again (Sennrich et al. 2016). For benchmarks that need a vocabulary of a real size.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

class BytePairTrainer {
 public:
  // Tokens so far: the characters of `alphabet`, UTF-8.
  explicit BytePairTrainer(const std::vector<std::string>& alphabet) : tokens_(alphabet) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) ids_[tokens_[i]] = static_cast<Token>(i);
  }

  // A word of these characters, seen `count` times.
  void add(const std::vector<std::string>& characters, std::int64_t count) {
    Word word{{}, count};
    for (const std::string& c : characters) word.symbols.push_back(ids_.at(c));
    words_.push_back(std::move(word));
  }

  // Until there are `size` tokens or no pair is seen twice.
  void train(std::size_t size) {
    for (std::size_t w = 0; w < words_.size(); ++w) count_pairs(w, 1);
    for (const auto& [pair, seen] : pairs_) queue_.push({seen.count, pair});
    while (tokens_.size() < size && !queue_.empty()) {
      const auto [count, pair] = queue_.top();
      queue_.pop();
      const std::int64_t now = pairs_[pair].count;
      if (now < 2) continue;
      if (now == count)
        merge(pair);
      else
        queue_.push({now, pair});
    }
  }

  // The "model" of a tokenizer.json.
  nlohmann::json model() const {
    nlohmann::json vocabulary = nlohmann::json::object();
    for (std::size_t i = 0; i < tokens_.size(); ++i) vocabulary[tokens_[i]] = i;
    return {{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", merges_}};
  }
  std::size_t size() const { return tokens_.size(); }

 private:
  using Pair = std::uint64_t;
  struct Word {
    std::vector<Token> symbols;
    std::int64_t count;
  };
  struct Seen {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  // where it was seen, perhaps no longer
  };

  static Pair pair_of(Token left, Token right) {
    return static_cast<Pair>(left) << 32 | static_cast<std::uint32_t>(right);
  }

  void count_pairs(std::size_t w, int sign) {
    const Word& word = words_[w];
    for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      Seen& seen = pairs_[pair_of(word.symbols[i], word.symbols[i + 1])];
      seen.count += sign * word.count;
      if (sign > 0 && (seen.words.empty() || seen.words.back() != w))
        seen.words.push_back(static_cast<std::uint32_t>(w));
    }
  }

  void merge(Pair pair) {
    const auto left = static_cast<Token>(pair >> 32), right = static_cast<Token>(pair & UINT32_MAX);
    const auto merged = static_cast<Token>(tokens_.size());
    const auto name = [&](Token t) -> const std::string& { return tokens_[static_cast<std::size_t>(t)]; };
    merges_.push_back({name(left), name(right)});
    tokens_.push_back(name(left) + name(right));
    const std::vector<std::uint32_t> words = std::move(pairs_[pair].words);
    std::unordered_set<Pair> fresh;
    for (const std::uint32_t w : words) {
      count_pairs(w, -1);
      replace(words_[w].symbols, left, right, merged);
      count_pairs(w, 1);
      const auto& symbols = words_[w].symbols;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
        if (symbols[i] == merged || symbols[i + 1] == merged)
          fresh.insert(pair_of(symbols[i], symbols[i + 1]));
    }
    for (const Pair now : fresh) queue_.push({pairs_[now].count, now});
  }

  static void replace(std::vector<Token>& symbols, Token left, Token right, Token merged) {
    std::size_t to = 0;
    for (std::size_t from = 0; from < symbols.size(); ++from) {
      const bool found = from + 1 < symbols.size() && symbols[from] == left && symbols[from + 1] == right;
      symbols[to++] = found ? merged : symbols[from];
      from += found;
    }
    symbols.resize(to);
  }

  std::vector<std::string> tokens_;
  std::unordered_map<std::string, Token> ids_;
  std::vector<std::vector<std::string>> merges_;
  std::vector<Word> words_;
  std::unordered_map<Pair, Seen> pairs_;
  std::priority_queue<std::pair<std::int64_t, Pair>> queue_;  // counts may be old
};

}  // namespace plait
