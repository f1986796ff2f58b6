// Token texts and their ids, compact: one block of text, one table of places, one hash table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

class Vocabulary {
 public:
  static constexpr Token kMaxToken = (1 << 24) - 1;

  // Throws Error naming `where`: an id that is negative, beyond kMaxToken or given twice. A text given twice
  // means its last id.
  void add(std::string_view text, std::int64_t id, const std::string& where);

  void reserve(Index tokens, std::size_t bytes);  // for as many and texts as long as will be added

  std::optional<Token> find(std::string_view text) const;
  bool has(Token id) const;
  std::string_view text(Token id) const;  // empty for an id between the others that has no text
  Index count() const { return count_; }
  Index limit() const { return static_cast<Index>(places_.size()); }  // one more than the largest id

 private:
  struct Place {
    std::uint32_t begin = 0, length = 0;
    bool used = false;
  };
  void insert(Token id);
  void grow();

  std::string texts_;
  std::vector<Place> places_;
  std::vector<Token> table_;  // open addressing; -1: free
  Index count_ = 0;
};

}  // namespace plait
