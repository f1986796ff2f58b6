// Task files: JSON lines, each an item that a model is asked.
//
//   {"prompt": "..", "choices": ["..", ".."], "answer": 1 or "..", "group": ".."}     multiple choice
//   {"prompt": "..", "answer": "..", "stop": ".." or ["..", ..], "group": ".."}       generation
//
// `group` (a subject) and `stop` may be absent; a file holds items of one sort.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/view.h"

namespace plait::ablate {

struct TaskItem {
  Index line = 0;      // in its file, from 1
  std::string sha256;  // of the line
  std::string prompt, group;
  std::vector<std::string> choices;  // empty: generation
  std::size_t right = 0;             // the index of the right choice
  std::string answer;                // the right choice, or the text to generate
  std::vector<std::string> stops;    // generation: a reply ends before the first of them
};

struct ItemFile {
  enum class Kind { choice, generation };
  std::string origin;  // the file's name, for messages
  std::string sha256;  // of the whole file
  Kind kind = Kind::choice;
  std::vector<TaskItem> items;  // at least one

  std::string where(const TaskItem& item) const;  // "'arc.jsonl', line 3"
};

// Blank lines are passed over. Throws Error naming file and line of what is no such item.
ItemFile parse_items(std::string_view text, const std::string& origin);

}  // namespace plait::ablate
