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

FileTask parse_file_task(Fields& fields, const std::string& folder) {
  FileTask task;
  task.file = read_items(folder, fields.text("file"));
  task.num_fewshot = fields.integer_or("num_fewshot", 0, 0, 1 << 20);
  const std::string fewshot = fields.text_or("fewshot_file", "");
  if (!fewshot.empty()) task.fewshot = read_items(folder, fewshot);
  task.scoring = static_cast<Scoring>(fields.choice("scoring", {"text", "letters"}));
  task.target_delimiter = fields.text_or("target_delimiter", task.target_delimiter);
  task.fewshot_delimiter = fields.text_or("fewshot_delimiter", task.fewshot_delimiter);
  task.max_tokens = fields.integer_or("max_tokens", task.max_tokens, 1, 1 << 20);
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
    json["scoring"] = task.scoring == Scoring::letters ? "letters" : "text";
  else
    json["max_tokens"] = task.max_tokens;
  return json;
}

template <class T>
void put(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}

}  // namespace

Task parse_task(const Json& json, const std::string& folder, const std::string& where) {
  const Json object = json.is_string() ? Json{{"file", json}} : json;
  Fields fields(object, where);
  Task task;
  if (fields.has("generator")) {
    const Generator generator = parse_generator(fields);
    task.name = name_of(generator.kind);
    task.source = generator;
  } else {
    FileTask own = parse_file_task(fields, folder);
    task.name = std::filesystem::path(own.file.origin).stem().string();
    task.source = std::move(own);
  }
  task.name = fields.text_or("name", task.name);
  task.limit = fields.integer_or("limit", 0, 1);
  fields.finish();
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

TaskCost run_task(const Task& task, const TaskSetup& setup, Index done, const TaskSink& sink) {
  TaskCost cost;
  const TaskContext context{task, setup, done, sink, cost};
  if (const auto* generator = std::get_if<Generator>(&task.source)) {
    run_probes(context, *generator);
  } else {
    const auto& own = std::get<FileTask>(task.source);
    own.file.kind == ItemFile::Kind::choice ? run_choices(context, own) : run_generation(context, own);
  }
  return cost;
}

}  // namespace plait::ablate
