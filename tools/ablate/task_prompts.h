// From items to tokens, with as much in common as there is: a prefix for a group, a stem for an item, a tail
// for each choice.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/ablate/open_encoder.h"
#include "tools/ablate/tasks.h"

namespace plait::ablate {

// The tokens of a choice after the stem. Those before first_scored belong to the prompt: another choice
// merges with the prompt's end.
struct Tail {
  std::vector<Token> tokens;
  std::size_t first_scored;
};

struct PromptItem {
  const TaskItem* item;
  Index doc_id;  // the item's place in its file, from 0
  std::string prompt_sha;
  std::vector<Token> stem;  // at least one
  std::vector<Tail> tails;  // by choice; none: generation
  Index naive_tokens;       // that run when every choice is a sequence of its own

  std::vector<Response> responses;  // [variant][choice]; of generation [variant]
};

// Items that stand after the same examples. For every item and choice prefix + stem + tail is the tokenizer's
// encoding of the whole text, whatever merges where.
struct PromptGroup {
  std::vector<Token> prefix;
  std::vector<PromptItem> items;
};

// Which items are asked, in the order they are: by group in the order the groups first occur, in a group as
// in the file.
class Prompts {
 public:
  // limit: only the first so many items of the file that are no examples; 0 = all. Throws Error when a group
  // has fewer examples than asked for, or nothing is left to ask. Borrows both.
  Prompts(const FileTask& task, const Tokenizer& tokenizer, Index limit);

  std::size_t group_count() const { return groups_.size(); }
  Index item_count(std::size_t group) const { return static_cast<Index>(groups_[group].items.size()); }
  // Throws Error naming file and line of an item whose answer the likelihood of no token tells.
  PromptGroup encode(std::size_t group) const;

 private:
  struct Group {
    std::string prefix;
    std::vector<std::size_t> items;  // indices in the file
  };
  void form_groups(Index limit);
  std::string prefix_of(const std::string& group) const;
  std::vector<const TaskItem*> examples_of(const std::string& group) const;
  std::string question(const TaskItem& item) const;
  std::string answer(const TaskItem& item, std::size_t choice) const;
  PromptItem encode_item(const std::string& prefix, std::size_t index) const;
  void cut_stem(PromptItem& encoded, std::span<const Token> context) const;

  const FileTask& task_;
  OpenEncoder encoder_;
  std::vector<Group> groups_;
};

}  // namespace plait::ablate
