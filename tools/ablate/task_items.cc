#include "tools/ablate/task_items.h"

#include <algorithm>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "tools/ablate/document.h"

namespace plait::ablate {
namespace {

std::string where_of(const std::string& origin, Index line) { return cat("'", origin, "', line ", line); }

std::size_t right_choice(const Value& answer, const std::vector<std::string>& choices) {
  if (answer.json().is_number()) return static_cast<std::size_t>(answer.integer(0, std::ssize(choices) - 1));
  const std::string text = answer.text();
  const auto count = std::count(choices.begin(), choices.end(), text);
  if (count != 1)
    answer.refuse("the answer '", text, "' is ", count, " of the ", choices.size(),
                  " choices; it must be one");
  return static_cast<std::size_t>(std::find(choices.begin(), choices.end(), text) - choices.begin());
}

// An empty choice has no likelihood per byte.
void read_choices(Section& section, TaskItem& item) {
  const Value choices = section.get("choices");
  for (const Value& choice : choices.items()) item.choices.push_back(choice.text());
  if (item.choices.size() < 2) choices.refuse("an item needs two choices or more, not ", item.choices.size());
  item.right = right_choice(section.get("answer"), item.choices);
  item.answer = item.choices[item.right];
}

void read_generation(Section& section, TaskItem& item) {
  item.answer = section.get("answer").text();
  section.maybe("stop", [&](const Value& stop) {
    for (const Value& one : stop.items_or_single()) item.stops.push_back(one.text());
  });
}

TaskItem parse_item(std::string_view text, const std::string& origin, Index line) {
  Document document{origin, {}, {static_cast<int>(line), {}, {}}};
  try {
    document.json = Json::parse(text);
  } catch (const Json::exception& error) {
    fail(where_of(origin, line), ": not JSON: ", error.what());
  }
  Section section{Value(document)};
  TaskItem item;
  item.line = line;
  item.sha256 = sha256(text);
  item.prompt = section.get("prompt").text();
  section.maybe("group", [&](const Value& group) { item.group = group.text(); });
  if (section.has("choices"))
    read_choices(section, item);
  else
    read_generation(section, item);
  section.finish();
  return item;
}

ItemFile::Kind kind_of(const TaskItem& item) {
  return item.choices.empty() ? ItemFile::Kind::generation : ItemFile::Kind::choice;
}

}  // namespace

std::string ItemFile::where(const TaskItem& item) const { return where_of(origin, item.line); }

ItemFile parse_items(std::string_view text, const std::string& origin) {
  ItemFile file{origin, plait::sha256(text), {}, {}};
  Index line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view row = text.substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (row.find_first_not_of(" \t\r") == row.npos) continue;
    file.items.push_back(parse_item(row, origin, line));
    if (kind_of(file.items.back()) != kind_of(file.items.front()))
      fail(where_of(origin, line), ": items with choices and items without are mixed in one file");
  }
  if (file.items.empty()) fail("'", origin, "' holds no items");
  file.kind = kind_of(file.items.front());
  return file;
}

}  // namespace plait::ablate
