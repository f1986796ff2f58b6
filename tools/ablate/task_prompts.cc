#include "tools/ablate/task_prompts.h"

#include <algorithm>
#include <limits>
#include <map>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

constexpr std::size_t kLetters = 26;

std::string letter(std::size_t choice) { return {static_cast<char>('A' + choice)}; }

void check_letters(const ItemFile& file) {
  for (const TaskItem& item : file.items)
    if (item.choices.size() > kLetters)
      fail(file.where(item), ": ", item.choices.size(), " choices have no letters of their own; ", kLetters,
           " have");
}

void check_sorts(const FileTask& task) {
  const bool choices = task.file.kind == ItemFile::Kind::choice;
  if (task.fewshot && task.fewshot->kind != task.file.kind)
    fail("'", task.fewshot->origin, "' gives no examples for '", task.file.origin,
         "': items with choices and items without are different tasks");
  if (task.scoring == ChoiceScoring::letters) {
    if (!choices) fail("'", task.file.origin, "' has no choices that letters could stand for");
    check_letters(task.file);
    if (task.fewshot) check_letters(*task.fewshot);
  }
}

}  // namespace

Prompts::Prompts(const FileTask& task, const Tokenizer& tokenizer, Index limit)
    : task_(task), encoder_(tokenizer) {
  check_sorts(task);
  form_groups(limit);
}

void Prompts::form_groups(Index limit) {
  std::map<std::string, std::size_t> place;  // group -> in groups_
  std::map<std::string, Index> passed;       // items of a group that are its examples
  Index asked = 0;
  const auto& items = task_.file.items;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string& name = items[i].group;
    if (!task_.fewshot && passed[name]++ < task_.num_fewshot) continue;
    if (limit > 0 && asked++ == limit) break;
    const auto [found, is_new] = place.try_emplace(name, groups_.size());
    if (is_new) groups_.push_back({prefix_of(name), {}});
    groups_[found->second].items.push_back(i);
  }
  if (groups_.empty())
    fail("'", task_.file.origin, "' has ", items.size(), " items; with ", task_.num_fewshot,
         " examples to each group none is left to ask");
}

std::vector<const TaskItem*> Prompts::examples_of(const std::string& group) const {
  const ItemFile& source = task_.fewshot ? *task_.fewshot : task_.file;
  const bool for_all = task_.fewshot && std::all_of(source.items.begin(), source.items.end(),
                                                    [](const TaskItem& item) { return item.group.empty(); });
  std::vector<const TaskItem*> examples;
  for (const TaskItem& item : source.items)
    if (std::ssize(examples) < task_.num_fewshot && (for_all || item.group == group))
      examples.push_back(&item);
  if (std::ssize(examples) < task_.num_fewshot)
    fail("'", source.origin, "' has ", examples.size(), " examples for the group '", group, "', not ",
         task_.num_fewshot);
  return examples;
}

std::string Prompts::prefix_of(const std::string& group) const {
  std::string prefix;
  for (const TaskItem* example : examples_of(group))
    prefix += question(*example) + answer(*example, example->right) + task_.fewshot_delimiter;
  return prefix;
}

std::string Prompts::question(const TaskItem& item) const {
  if (task_.scoring == ChoiceScoring::text) return item.prompt;
  std::string text = item.prompt + "\n";
  for (std::size_t c = 0; c < item.choices.size(); ++c) text += letter(c) + ". " + item.choices[c] + "\n";
  return text + "Answer:";
}

std::string Prompts::answer(const TaskItem& item, std::size_t choice) const {
  if (task_.scoring == ChoiceScoring::letters) return task_.target_delimiter + letter(choice);
  return task_.target_delimiter + (item.choices.empty() ? item.answer : item.choices[choice]);
}

// The stem holds everything up to the first token that some choice adds; what comes after is a tail.
void Prompts::cut_stem(PromptItem& encoded, std::span<const Token> context) const {
  std::size_t end = context.size();
  for (const Tail& whole : encoded.tails) end = std::min(end, whole.first_scored);
  if (end == 0)
    fail(task_.file.where(*encoded.item),
         ": the tokenizer joins the whole prompt with an answer; nothing is left that predicts it");
  encoded.stem.assign(context.begin(), context.begin() + static_cast<std::ptrdiff_t>(end));
  encoded.naive_tokens = encoded.tails.empty() ? std::ssize(context) : 0;
  for (Tail& tail : encoded.tails) {
    encoded.naive_tokens += std::ssize(tail.tokens) - 1;
    tail.tokens.erase(tail.tokens.begin(), tail.tokens.begin() + static_cast<std::ptrdiff_t>(end));
    tail.first_scored -= end;
  }
}

PromptItem Prompts::encode_item(const std::string& prefix, std::size_t index) const {
  const TaskItem& item = task_.file.items[index];
  const std::string text = prefix + question(item);
  PromptItem encoded{&item, static_cast<Index>(index), sha256(text), {}, {}, 0, {}};
  const std::vector<Token> context = encoder_.encode(text);
  for (std::size_t c = 0; c < item.choices.size(); ++c) {
    Tail whole{encoder_.encode(text + answer(item, c)), 0};
    whole.first_scored = shared_length(context, whole.tokens);
    if (whole.first_scored == whole.tokens.size())
      fail(task_.file.where(item), ": the choice '", item.choices[c], "' adds no token to the prompt");
    encoded.tails.push_back(std::move(whole));
  }
  cut_stem(encoded, context);
  return encoded;
}

PromptGroup Prompts::encode(std::size_t group) const {
  const Group& own = groups_[group];
  PromptGroup encoded{encoder_.encode(own.prefix), {}};
  const std::vector<Token>& prefix = encoded.prefix;
  std::size_t shared = prefix.size();
  std::vector<std::size_t> dropped;  // tokens of the prefix that a stem no longer holds
  for (const std::size_t index : own.items) {
    PromptItem& item = encoded.items.emplace_back(encode_item(own.prefix, index));
    const auto common = std::min(shared_length(prefix, item.stem), item.stem.size() - 1);
    item.stem.erase(item.stem.begin(), item.stem.begin() + static_cast<std::ptrdiff_t>(common));
    item.stem.shrink_to_fit();
    dropped.push_back(common);
    shared = std::min(shared, common);
  }
  for (std::size_t i = 0; i < encoded.items.size(); ++i)
    encoded.items[i].stem.insert(encoded.items[i].stem.begin(),
                                 prefix.begin() + static_cast<std::ptrdiff_t>(shared),
                                 prefix.begin() + static_cast<std::ptrdiff_t>(dropped[i]));
  encoded.prefix.resize(shared);
  return encoded;
}

}  // namespace plait::ablate
