// Tasks: what models are asked besides the likelihood of a text, for all variants of a study at once
// (ablation-and-streaming sections 4.2 and 8).
//
// What items have in common is run once: the examples before them, the question before its choices. Every
// number equals the one of the naive way, in which each choice of each variant is a sequence of its own, bit
// for bit.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "runtime/run/wavefront.h"
#include "runtime/text/tokenizer.h"
#include "tools/ablate/generators.h"
#include "tools/ablate/task_items.h"

namespace plait::ablate {

enum class ChoiceScoring {
  text,     // each choice's text after the prompt; acc: the likeliest, acc_norm: per byte of the choice
  letters,  // the choices are listed after the prompt as A., B., ..; the letters are scored
};

// Items of a file: multiple choice or generation.
struct FileTask {
  ItemFile file;
  // Examples before every prompt: the first of the item's group in `fewshot`, or in `file` itself, where they
  // are not asked then. A fewshot file without groups serves all.
  Index num_fewshot = 0;
  std::optional<ItemFile> fewshot;
  ChoiceScoring scoring = ChoiceScoring::text;
  std::string target_delimiter = " ";      // between a prompt and its answer
  std::string fewshot_delimiter = "\n\n";  // after an example
  Index max_tokens = 256;                  // generation: of a reply
};

struct Task {
  std::string name;
  std::variant<FileTask, Generator> source;
  Index limit = 0;  // the first so many items only; 0 = all
};

// A file's name, or {"file": .., "name": .., "scoring": "text" or "letters", "num_fewshot": ..,
// "fewshot_file":
// .., "target_delimiter": .., "fewshot_delimiter": .., "max_tokens": .., "limit": ..}, or a generator's
// object with "name" and "limit". Files are named from `folder`. The name is the file's without its ending,
// or the generator's. Throws Error naming the key, or a file and its line.
Task parse_task(const Value& value, const std::string& folder);
// Everything the results depend on, files by their digests.
Json to_json(const Task& task);

struct Response {
  std::string text;
  double logprob = 0;  // nats, of all its tokens
  Index n_tokens = 0;
  bool is_greedy = false;  // every token was the likeliest
};

// One variant's answer to one query.
struct Outcome {
  std::vector<Response> resps;  // by choice; one otherwise
  std::string pred;             // empty where no number was comparable
  bool correct = false;         // choice: the likeliest; otherwise exact match
  double acc = 0;               // generators: the share of right tokens
  std::optional<double> acc_norm;
  std::optional<double> nll;  // of the target, nats, over all its tokens
};

// What else a query is filed under.
struct QueryFactors {
  Index n_shot = 0;
  Index context_len = 0;  // tokens before the answer
  std::optional<Index> length, pairs, distance, position_bin;
  std::optional<double> depth;
};

struct QueryResult {
  std::string target;
  QueryFactors factors;
  std::vector<Outcome> outcomes;  // by variant
};

struct ItemResult {
  std::string task, group;
  Index doc_id = 0;                  // the item's place in its file, or its number
  std::string doc_sha, prompt_sha;   // of the item; of the text or tokens before the answer
  std::vector<QueryResult> queries;  // one, but for generators
};

// One line of samples.jsonl.
Json sample_json(const ItemResult& item, const QueryResult& query, std::size_t variant,
                 const std::string& condition_id);

struct TaskSetup {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;          // null: only generators of ids
  std::vector<std::shared_ptr<const EditPlan>> plans;  // [0] is the baseline; null = no edits
  WavefrontOptions options;
};

struct TaskCost {
  Index tokens = 0;        // given, that ran for each variant
  Index naive_tokens = 0;  // that would have run if every choice were a sequence of its own
  Index sampled = 0;       // tokens the variants wrote, all together
  double rows = 0;         // given rows through all nodes but the output node, all variants together
  TaskCost& operator+=(const TaskCost& more);
  bool operator==(const TaskCost&) const = default;
};

// Items that were asked together, and what that cost.
struct AskedBatch {
  std::vector<ItemResult> items;
  TaskCost cost;
};
using TaskSink = std::function<void(const AskedBatch& batch)>;

// Asks every item but the first `done` and gives the sink each with all its variants, in an order that
// depends on the task only: a run that ended after n items goes on with done = n. Where n is the end of a
// batch, the batches that follow cost what they do in a run that never ended; what is run again because items
// share it is not counted. Generation is greedy; a reply ends before a stop text, at an end-of-sequence
// token, after max_tokens, or where logits are not numbers.
void run_task(const Task& task, const TaskSetup& setup, Index done, const TaskSink& sink);

}  // namespace plait::ablate
