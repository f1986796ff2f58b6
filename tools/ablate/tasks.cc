#include "tools/ablate/tasks.h"

#include <filesystem>

#include "runtime/base/error.h"
#include "tools/ablate/task_run.h"
#include "tools/program.h"

namespace plait::ablate {
namespace {

ItemFile read_items(const std::string& folder, const std::string& name) {
  const std::string path = (std::filesystem::path(folder) / name).string();
  return parse_items(read_file(path), path);
}

FileTask parse_file_task(Section& section, const std::string& folder) {
  constexpr Index kMost = 1 << 20;
  FileTask task;
  task.file = read_items(folder, section.get("file").text());
  section.maybe("num_fewshot", [&](const Value& value) { task.num_fewshot = value.integer(0, kMost); });
  section.maybe("fewshot_file", [&](const Value& value) { task.fewshot = read_items(folder, value.text()); });
  section.maybe("scoring", [&](const Value& value) {
    task.scoring = value.one_of({"text", "letters"}) == "text" ? ChoiceScoring::text : ChoiceScoring::letters;
  });
  const auto delimiter = [&](const char* key, std::string& text) {  // may be empty
    section.maybe(key, [&](const Value& value) {
      if (!value.json().is_string()) value.refuse_type("a string");
      text = value.json().get<std::string>();
    });
  };
  delimiter("target_delimiter", task.target_delimiter);
  delimiter("fewshot_delimiter", task.fewshot_delimiter);
  section.maybe("max_tokens", [&](const Value& value) { task.max_tokens = value.integer(1, kMost); });
  return task;
}

Json to_json(const ItemFile& file) {
  return {{"file", std::filesystem::path(file.origin).filename().string()},
          {"sha256", file.sha256},
          {"items", file.items.size()}};
}

Json to_json(const FileTask& task) {
  Json json = to_json(task.file);
  json["num_fewshot"] = task.num_fewshot;
  if (task.fewshot) json["fewshot"] = to_json(*task.fewshot);
  json["target_delimiter"] = task.target_delimiter;
  json["fewshot_delimiter"] = task.fewshot_delimiter;
  if (task.file.kind == ItemFile::Kind::choice)
    json["scoring"] = task.scoring == ChoiceScoring::letters ? "letters" : "text";
  else
    json["max_tokens"] = task.max_tokens;
  return json;
}

template <class T>
void put(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}

}  // namespace

Task parse_task(const Value& value, const std::string& folder) {
  Task task;
  const auto take_file = [&](FileTask own) {
    task.name = std::filesystem::path(own.file.origin).stem().string();
    task.source = std::move(own);
  };
  if (value.json().is_string()) {
    FileTask own;
    own.file = read_items(folder, value.text());
    take_file(std::move(own));
    return task;
  }
  Section section(value);
  if (section.has("generator")) {
    const Generator generator = parse_generator(section);
    task.name = name_of(generator.kind);
    task.source = generator;
  } else {
    take_file(parse_file_task(section, folder));
  }
  section.maybe("name", [&](const Value& name) { task.name = name.text(); });
  section.maybe("limit", [&](const Value& limit) { task.limit = limit.integer(1, INT32_MAX); });
  section.finish();
  return task;
}

Json to_json(const Task& task) {
  Json json = std::visit([](const auto& source) { return to_json(source); }, task.source);
  json["name"] = task.name;
  json["limit"] = task.limit > 0 ? Json(task.limit) : Json();
  return json;
}

Json sample_json(const ItemResult& item, const QueryResult& query, std::size_t variant,
                 const std::string& condition_id) {
  const Outcome& outcome = query.outcomes[variant];
  Json resps = Json::array();
  for (const Response& r : outcome.resps)
    resps.push_back(
        {{"text", r.text}, {"logprob", r.logprob}, {"n_tokens", r.n_tokens}, {"is_greedy", r.is_greedy}});
  const auto or_null = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  const QueryFactors& factors = query.factors;
  Json json = {{"condition_id", condition_id},
               {"task", item.task},
               {"doc_id", item.doc_id},
               {"doc_sha", item.doc_sha},
               {"prompt_sha", item.prompt_sha},
               {"target", query.target},
               {"resps", std::move(resps)},
               {"pred", outcome.pred},
               {"correct", outcome.correct},
               {"acc", outcome.acc},
               {"acc_norm", or_null(outcome.acc_norm)},
               {"nll", or_null(outcome.nll)},
               {"n_shot", factors.n_shot},
               {"context_len", factors.context_len}};
  if (!item.group.empty()) json["group"] = item.group;
  put(json, "length", factors.length);
  put(json, "pairs", factors.pairs);
  put(json, "distance", factors.distance);
  put(json, "position_bin", factors.position_bin);
  put(json, "depth", factors.depth);
  return json;
}

TaskCost& TaskCost::operator+=(const TaskCost& more) {
  tokens += more.tokens;
  naive_tokens += more.naive_tokens;
  sampled += more.sampled;
  rows += more.rows;
  return *this;
}

void run_task(const Task& task, const TaskSetup& setup, Index done, const TaskSink& sink) {
  const TaskContext context{task, setup, done, sink};
  if (const auto* generator = std::get_if<Generator>(&task.source)) {
    run_probes(context, *generator);
  } else {
    const auto& own = std::get<FileTask>(task.source);
    own.file.kind == ItemFile::Kind::choice ? run_choices(context, own) : run_generation(context, own);
  }
}

}  // namespace plait::ablate
