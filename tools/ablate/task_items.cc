#include "tools/ablate/task_items.h"

#include <algorithm>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "tools/ablate/fields.h"

namespace plait::ablate {
namespace {

std::string where_of(const std::string& origin, Index line) { return cat("'", origin, "', line ", line); }

std::size_t right_choice(Fields& fields, const std::vector<std::string>& choices) {
  const Json& answer = fields.value("answer");
  if (answer.is_number_integer()) {
    if (answer < 0 || answer >= choices.size())
      fields.refuse("the answer is choice ", answer.dump(), "; there are choices 0 to ", choices.size() - 1);
    return answer.get<std::size_t>();
  }
  if (!answer.is_string()) fields.refuse("'answer' is ", answer.dump(), ", neither an index nor a text");
  const auto& text = answer.get_ref<const std::string&>();
  const auto count = std::count(choices.begin(), choices.end(), text);
  if (count != 1) fields.refuse("the answer '", text, "' is ", count, " of the choices; it must be one");
  return static_cast<std::size_t>(std::find(choices.begin(), choices.end(), text) - choices.begin());
}

void read_choices(Fields& fields, TaskItem& item) {
  item.choices = fields.texts("choices");
  if (item.choices.size() < 2) fields.refuse("there must be two choices or more, not ", item.choices.size());
  for (const std::string& choice : item.choices)
    if (choice.empty()) fields.refuse("a choice is empty; its likelihood per byte has no meaning");
  item.right = right_choice(fields, item.choices);
  item.answer = item.choices[item.right];
}

void read_generation(Fields& fields, TaskItem& item) {
  item.answer = fields.text("answer");
  if (!fields.has("stop")) return;
  if (fields.value("stop").is_string())
    item.stops = {fields.text("stop")};
  else
    item.stops = fields.texts("stop");
  for (const std::string& stop : item.stops)
    if (stop.empty()) fields.refuse("a 'stop' is empty; every reply would end at once");
}

TaskItem parse_item(std::string_view text, const std::string& origin, Index line) {
  const std::string where = where_of(origin, line);
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    fail(where, ": not JSON: ", error.what());
  }
  Fields fields(json, where);
  TaskItem item;
  item.line = line;
  item.sha256 = sha256(text);
  item.prompt = fields.text("prompt");
  item.group = fields.text_or("group", "");
  if (fields.has("choices"))
    read_choices(fields, item);
  else
    read_generation(fields, item);
  fields.finish();
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
