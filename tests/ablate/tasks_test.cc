// Tasks: every number equals the naive way's, bit for bit, whatever is shared, and what is shared is not run
// again.
#include "tools/ablate/tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "tests/ablate/task_fixtures.h"
#include "tools/ablate/scores.h"
#include "tools/likelihood.h"
#include "weights/model_file.h"

namespace plait {
namespace {

using ablate::FileTask;
using ablate::ItemFile;
using ablate::ItemResult;
using ablate::parse_items;
using ablate::Task;
using ablate::TaskSetup;
using testing::ask;
using testing::asked_model;
using testing::asked_variants;
using testing::AskedSamples;
using testing::MergingTokenizer;

constexpr std::size_t kRoomy = std::size_t{1} << 28;
constexpr std::size_t kTight = std::size_t{3} << 17;  // too small for the states of all variants at once

// Texts that the merging tokenizer joins where prompts, examples and choices meet: "er: b", "\n\nQ", ": b".
ItemFile two_groups() {
  std::string text;
  for (const char* group : {"even", "odd", "even", "odd", "odd", "even", "even", "odd"}) {
    const auto i = std::to_string(std::count(text.begin(), text.end(), '\n'));
    text += R"({"group": ")" + std::string(group) + R"(", "prompt": "Question )" + i +
            R"(? answer:", "choices": ["berry", "a", "other )" + i + R"(", "a than"], "answer": )" +
            (i < "4" ? "0" : "2") + "}\n";
  }
  return parse_items(text, "two_groups.jsonl");
}

Task file_task(ItemFile file, Index shots, ablate::ChoiceScoring scoring = ablate::ChoiceScoring::text) {
  FileTask task;
  task.file = std::move(file);
  task.num_fewshot = shots;
  task.scoring = scoring;
  return {"task", task, 0};
}

// The naive way, written out: each choice of each variant as a text of its own through a stream of its own.
class Naive {
 public:
  Naive(const Tokenizer& tokenizer, const EditList& edits) : tokenizer_(tokenizer) { options_.edits = edits; }

  struct Scored {
    double logprob = 0, check = 0;  // check: by tools/likelihood.h
    Index tokens = 0, ran = 0;
    bool greedy = true;
  };
  Scored score(const std::string& prompt, const std::string& answer) const {
    const std::vector<Token> context = open(prompt), whole = open(prompt + answer);
    std::size_t begin = 0;
    while (begin < context.size() && begin < whole.size() && context[begin] == whole[begin]) ++begin;
    Scored scored;
    Stream stream(asked_model(), options_);
    double nll = 0;
    std::vector<float> scratch(256);
    stream.feed(std::span(whole).first(whole.size() - 1), [&](Index position, std::span<const float> row) {
      const auto next = static_cast<std::size_t>(position) + 1;
      ++scored.ran;
      if (next < begin) return;
      const ablate::LogSoftmax softmax(row, scratch, {});
      nll += softmax.nll(whole[next]);
      scored.check -= score_token(row, whole[next]).nll;
      scored.greedy = scored.greedy && softmax.greedy() == whole[next];
      ++scored.tokens;
    });
    scored.logprob = -nll;
    return scored;
  }

  struct Written {
    std::string text, end;  // end: stop, eos, length
    double logprob = 0;
    Index tokens = 0;
  };
  Written write(const std::string& prompt, const std::vector<std::string>& stops, Index most) const {
    Stream stream(asked_model(), options_);
    std::span<const float> logits = stream.feed(open(prompt));
    StreamDecoder decoder(tokenizer_, Specials::without);
    Written written;
    std::vector<float> scratch(256);
    for (;;) {
      const ablate::LogSoftmax row(logits, scratch, {});
      const Token token = row.greedy();
      const auto eos = tokenizer_.special_tokens().eos;
      written.end = "eos";
      if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
      written.logprob -= row.nll(token);
      ++written.tokens;
      written.text += decoder.push(token);
      std::size_t cut = written.text.npos;
      for (const std::string& stop : stops) cut = std::min(cut, written.text.find(stop));
      written.end = "stop";
      if (cut != written.text.npos) return written.text.resize(cut), written;
      written.end = "length";
      if (written.tokens == most) break;
      logits = stream.feed({token}, Origin::sampled);
    }
    written.text += decoder.finish();
    return written;
  }

 private:
  std::vector<Token> open(const std::string& text) const {
    std::vector<Token> tokens = tokenizer_.encode(text);
    if (tokenizer_.kind() == "merging") tokens.pop_back();
    return tokens;
  }
  const Tokenizer& tokenizer_;
  StreamOptions options_;
};

std::string question_of(const ablate::TaskItem& item, ablate::ChoiceScoring scoring) {
  if (scoring == ablate::ChoiceScoring::text) return item.prompt;
  std::string text = item.prompt;
  for (std::size_t c = 0; c < item.choices.size(); ++c)
    text += "\n" + std::string(1, "ABCDEFG"[c]) + ". " + item.choices[c];
  return text + "\nAnswer:";
}

std::string choice_of(const ablate::TaskItem& item, ablate::ChoiceScoring scoring, std::size_t c) {
  return scoring == ablate::ChoiceScoring::text ? item.choices[c] : std::string(1, "ABCDEFG"[c]);
}

// Holds every number of an item's results against the naive way.
void expect_naive(const ItemResult& result, const FileTask& task, const std::vector<EditList>& variants,
                  const Tokenizer& tokenizer) {
  const auto& items = task.file.items;
  const auto& item = items[static_cast<std::size_t>(result.doc_id)];
  std::string prompt;
  Index shots = 0;
  for (const auto& example : items)
    if (example.group == item.group && shots++ < task.num_fewshot)
      prompt +=
          question_of(example, task.scoring) + " " + choice_of(example, task.scoring, example.right) + "\n\n";
  prompt += question_of(item, task.scoring);
  EXPECT_EQ(result.prompt_sha, sha256(prompt));
  ASSERT_EQ(result.queries.size(), 1u);
  EXPECT_EQ(result.queries[0].target, item.answer);
  ASSERT_EQ(result.queries[0].outcomes.size(), variants.size());
  for (std::size_t v = 0; v < variants.size(); ++v) {
    const auto& outcome = result.queries[0].outcomes[v];
    const Naive naive(tokenizer, variants[v]);
    std::vector<double> sums, means;
    for (std::size_t c = 0; c < item.choices.size(); ++c) {
      const std::string choice = choice_of(item, task.scoring, c);
      const auto scored = naive.score(prompt, " " + choice);
      const auto& response = outcome.resps[c];
      EXPECT_EQ(response.logprob, scored.logprob)
          << "item " << result.doc_id << " variant " << v << " choice " << c;
      EXPECT_EQ(response.n_tokens, scored.tokens);
      EXPECT_EQ(response.is_greedy, scored.greedy);
      EXPECT_EQ(response.text, choice);
      // exp in f32: a relative error of a few 2^-24 in each of 256 terms, and so in their sum
      EXPECT_NEAR(response.logprob, scored.check, static_cast<double>(scored.tokens) * 8 * 0x1p-24);
      sums.push_back(scored.logprob);
      means.push_back(scored.logprob / static_cast<double>(choice.size()));
    }
    const auto best = [](const std::vector<double>& x) {
      return static_cast<std::size_t>(std::max_element(x.begin(), x.end()) - x.begin());
    };
    EXPECT_EQ(outcome.pred, choice_of(item, task.scoring, best(sums)));
    EXPECT_EQ(outcome.correct, best(sums) == item.right);
    EXPECT_EQ(outcome.acc, best(sums) == item.right ? 1 : 0);
    EXPECT_EQ(outcome.acc_norm, best(means) == item.right ? 1 : 0);
    EXPECT_EQ(outcome.nll, -sums[item.right]);
  }
}

class Tasks : public ::testing::Test {
 protected:
  TaskSetup setup(std::shared_ptr<const Tokenizer> tokenizer, std::size_t memory = kRoomy) const {
    return {asked_model(), std::move(tokenizer), testing::plans_of(*asked_model(), variants_), {{}, memory}};
  }
  std::vector<EditList> variants_ = asked_variants();
  std::shared_ptr<const Tokenizer> bytes_ = std::make_shared<ByteTokenizer>();
  std::shared_ptr<const Tokenizer> merging_ = std::make_shared<MergingTokenizer>();
};

TEST_F(Tasks, ChoicesEqualNaiveScoringBitForBit) {
  for (const auto scoring : {ablate::ChoiceScoring::text, ablate::ChoiceScoring::letters})
    for (const auto& tokenizer : {bytes_, merging_}) {
      const Task task = file_task(two_groups(), 2, scoring);
      const AskedSamples roomy = ask(task, setup(tokenizer));
      std::vector<Index> order;
      for (const ItemResult& item : roomy.items) {
        order.push_back(item.doc_id);
        expect_naive(item, std::get<FileTask>(task.source), variants_, *tokenizer);
      }
      EXPECT_EQ(order, (std::vector<Index>{4, 7, 5, 6}))
          << "by group, in the order the groups are first asked";
      const AskedSamples tight = ask(task, setup(tokenizer, kTight));
      EXPECT_EQ(tight.samples, roomy.samples);
      EXPECT_GT(tight.cost.rows, roomy.cost.rows) << "variants were run in tiles";
      EXPECT_EQ(tight.cost.tokens, roomy.cost.tokens);
      EXPECT_EQ(tight.cost.naive_tokens, roomy.cost.naive_tokens);
    }
}

TEST_F(Tasks, TokensStraddleWhereTextsMeet) {
  // Otherwise the merging tokenizer would test nothing that bytes do not.
  const auto tokens = merging_->encode("x\n\nQuestion 1? answer: berry", Specials::without);
  std::vector<std::string> pieces;
  for (const Token token : tokens) pieces.push_back(merging_->piece(token));
  EXPECT_EQ(pieces[1], "\n\nQ");
  EXPECT_NE(std::find(pieces.begin(), pieces.end(), "er: "), pieces.end());
}

ItemFile sums(Index count) {
  const std::vector<std::string> names = {"zero", "one",   "two",   "three", "four", "five",
                                          "six",  "seven", "eight", "nine",  "ten"};
  std::string text;
  for (Index i = 0; i < count; ++i) {
    const Index a = i % 5, b = i / 5 % 6;
    Json choices = Json::array();
    for (Index c = 0; c < 4; ++c)
      choices.push_back(names[static_cast<std::size_t>((a + b + c * (1 + i % 2)) % 11)]);
    text += Json{{"prompt", "What is " + names[static_cast<std::size_t>(a)] + " plus " +
                                names[static_cast<std::size_t>(b)] + "? It is"},
                 {"choices", choices},
                 {"answer", 0}}
                .dump() +
            "\n";
  }
  return parse_items(text, "sums.jsonl");
}

TEST_F(Tasks, TwentyFiveShotsCostAFiftiethOfTheNaiveTokens) {
  variants_ = {{}, asked_variants()[1]};
  for (const auto scoring : {ablate::ChoiceScoring::text, ablate::ChoiceScoring::letters}) {
    const Task task = file_task(sums(85), 25, scoring);
    const AskedSamples asked = ask(task, setup(bytes_));
    ASSERT_EQ(asked.items.size(), 60u);
    for (const std::size_t i : {0, 17, 59})
      expect_naive(asked.items[i], std::get<FileTask>(task.source), variants_, *bytes_);
    Index naive = 0;
    const auto& items = std::get<FileTask>(task.source).file.items;
    std::size_t prefix = 0;
    for (std::size_t i = 0; i < 25; ++i)
      prefix += (question_of(items[i], scoring) + " " + choice_of(items[i], scoring, 0) + "\n\n").size();
    for (std::size_t i = 25; i < items.size(); ++i)
      for (std::size_t c = 0; c < 4; ++c)
        naive += static_cast<Index>(
            (question_of(items[i], scoring) + " " + choice_of(items[i], scoring, c)).size() + prefix - 1);
    EXPECT_EQ(asked.cost.naive_tokens, naive);
    EXPECT_LE(asked.cost.tokens * 50, naive);
    RecordProperty("ratio", static_cast<int>(naive / asked.cost.tokens));
    std::printf("25 shots, %s: 1/%.1f of the naive tokens\n",
                scoring == ablate::ChoiceScoring::text ? "text" : "letters",
                static_cast<double>(naive) / static_cast<double>(asked.cost.tokens));
  }
}

TEST_F(Tasks, LettersOfOneTokenNeedNoRowsOfTheirOwn) {
  Task task = file_task(sums(8), 2, ablate::ChoiceScoring::letters);
  std::get<FileTask>(task.source).target_delimiter = "";
  const AskedSamples asked = ask(task, setup(bytes_));
  const auto& items = std::get<FileTask>(task.source).file.items;
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < items.size(); ++i)
    tokens += question_of(items[i], ablate::ChoiceScoring::letters).size() + (i < 2 ? 1 + 2 : 0);
  EXPECT_EQ(asked.cost.tokens, static_cast<Index>(tokens));
}

TEST_F(Tasks, ARunGoesOnWhereItEnded) {
  const Task choices = file_task(two_groups(), 1);
  const Task recall =
      testing::task_of({{"generator", "recall"}, {"length", 60}, {"pairs", {1, 3}}, {"items", 3}});
  for (const Task& task : {choices, recall}) {
    const AskedSamples whole = ask(task, setup(bytes_));
    ASSERT_EQ(whole.items.size(), 6u);
    for (const Index done : {1, 3, 5, 6}) {
      const AskedSamples rest = ask(task, setup(bytes_), done);
      ASSERT_EQ(static_cast<Index>(rest.items.size()), 6 - done);
      EXPECT_TRUE(std::equal(rest.samples.rbegin(), rest.samples.rend(), whole.samples.rbegin())) << done;
      EXPECT_EQ(done == 6, rest.cost.tokens == 0);
    }
  }
}

TEST_F(Tasks, WhatFollowsTheEndOfABatchCostsWhatItDoesInAWholeRun) {
  // Where memory is short, groups of a file take several batches, and the first pays for the examples; with
  // still less, variants are run in tiles, each through the whole group. Of generated items a batch has as
  // many as make a walk.
  constexpr std::size_t kFewItems = std::size_t{3} << 19;
  const Task choices = file_task(two_groups(), 1);
  const Task recall =
      testing::task_of({{"generator", "recall"}, {"length", 300}, {"pairs", 2}, {"items", 12}});
  const auto expect_same = [&](const Task& task, std::size_t memory, std::size_t batches) {
    const AskedSamples whole = ask(task, setup(bytes_, memory));
    ASSERT_EQ(whole.ends.size(), batches);
    for (std::size_t b = 0; b < whole.ends.size(); ++b) {
      EXPECT_GT(whole.costs[b].rows, 0);
      const AskedSamples rest = ask(task, setup(bytes_, memory), whole.ends[b]);
      EXPECT_TRUE(std::equal(rest.costs.begin(), rest.costs.end(),
                             whole.costs.begin() + static_cast<std::ptrdiff_t>(b) + 1, whole.costs.end()))
          << b;
    }
  };
  expect_same(choices, kRoomy, 2);
  expect_same(choices, kTight, 2);
  expect_same(choices, kFewItems, 4);
  expect_same(recall, kRoomy, 2);
}

TEST_F(Tasks, ExamplesComeFromTheirOwnFileOrTheItemsOwn) {
  Task task = file_task(sums(4), 2);
  std::get<FileTask>(task.source).fewshot = parse_items(
      "{\"prompt\": \"P\", \"choices\": [\"x\", \"y\"], \"answer\": \"y\"}\n"
      "{\"prompt\": \"R\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n",
      "shots.jsonl");
  const AskedSamples asked = ask(task, setup(bytes_));
  ASSERT_EQ(asked.items.size(), 4u) << "all items are asked";
  EXPECT_EQ(asked.items[0].prompt_sha,
            sha256("P y\n\nR x\n\n" + std::get<FileTask>(task.source).file.items[0].prompt));
  task.limit = 3;
  EXPECT_EQ(ask(task, setup(bytes_)).items.size(), 3u);
}

TEST_F(Tasks, GenerationEqualsSoloRuns) {
  // What the baseline writes decides the stop, the end of sequence and the right answer, so that all occur.
  const std::string first = "Tell me", second = "Now count to ten:", third = "What else?";
  const auto free = Naive(*merging_, {}).write(first, {}, 24);
  ASSERT_EQ(free.end, "length");
  const std::string stop = free.text.substr(free.text.size() / 2, 2);
  Stream stream(asked_model());
  std::vector<Token> prompt = merging_->encode(third);
  prompt.pop_back();
  std::vector<Token> follow;
  std::span<const float> logits = stream.feed(prompt);
  for (int i = 0; i < 6; ++i) {
    std::vector<float> scratch(256);
    follow.push_back(ablate::LogSoftmax(logits, scratch, {}).greedy());
    logits = stream.feed({follow.back()}, Origin::sampled);
  }
  const auto tokenizer = std::make_shared<MergingTokenizer>(follow[5]);

  std::string text = Json{{"prompt", first}, {"answer", " " + free.text}, {"stop", {stop, "never"}}}.dump() +
                     "\n" + Json{{"prompt", second}, {"answer", "x"}, {"stop", stop}}.dump() + "\n\n";
  for (const std::string& open :
       {third, std::string("Go on."), std::string("And then?"), std::string("Why 12;")})
    text += Json{{"prompt", open}, {"answer", "y"}}.dump() + "\n";
  Task task = file_task(parse_items(text, "generate.jsonl"), 0);
  std::get<FileTask>(task.source).max_tokens = 24;
  const auto& items = std::get<FileTask>(task.source).file.items;
  std::map<std::string, int> ends;
  const AskedSamples roomy = ask(task, setup(tokenizer)), tight = ask(task, setup(tokenizer, kTight));
  EXPECT_EQ(roomy.samples, tight.samples);
  ASSERT_EQ(roomy.items.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i)
    for (std::size_t v = 0; v < variants_.size(); ++v) {
      const auto solo = Naive(*tokenizer, variants_[v]).write(items[i].prompt, items[i].stops, 24);
      const auto& outcome = roomy.items[i].queries[0].outcomes[v];
      EXPECT_EQ(outcome.resps[0].text, solo.text) << i << " " << v;
      EXPECT_EQ(outcome.resps[0].logprob, solo.logprob);
      EXPECT_EQ(outcome.resps[0].n_tokens, solo.tokens);
      EXPECT_FALSE(outcome.acc_norm || outcome.nll);
      ++ends[solo.end];
    }
  EXPECT_GT(ends["stop"], 0);
  EXPECT_GT(ends["eos"], 0);
  EXPECT_GT(ends["length"], 0);
  const auto& last = roomy.items[2].queries[0].outcomes;
  EXPECT_NE(last[0].resps[0].text, last[5].resps[0].text) << "an edit of decoding acts";
}

TEST_F(Tasks, ExactMatchPassesOverBlanksAroundTheAnswer) {
  const auto free = Naive(*merging_, {}).write("Tell me", {}, 8);
  const auto item = [&](const std::string& answer) {
    return Json{{"prompt", "Tell me"}, {"answer", answer}}.dump() + "\n";
  };
  Task task =
      file_task(parse_items(item("\n " + free.text + "  ") + item(free.text + "."), "match.jsonl"), 0);
  std::get<FileTask>(task.source).max_tokens = 8;
  const AskedSamples asked = ask(task, setup(merging_));
  EXPECT_TRUE(asked.items[0].queries[0].outcomes[0].correct);
  EXPECT_EQ(asked.items[0].queries[0].outcomes[0].acc, 1);
  EXPECT_FALSE(asked.items[1].queries[0].outcomes[0].correct);
}

TEST_F(Tasks, AModelThatComputesNoNumbersIsWrongAndStopsNobody) {
  variants_ = {{},
               {parse_edit({{"where", "blocks.0.mlp"}, {"operator", "scale"}, {"value", 3e38}}),
                parse_edit({{"where", "blocks.1.mlp"}, {"operator", "scale"}, {"value", 3e38}})}};
  const AskedSamples choices = ask(file_task(two_groups(), 1), setup(bytes_));
  for (const ItemResult& item : choices.items) {
    const auto& broken = item.queries[0].outcomes[1];
    EXPECT_FALSE(std::isfinite(broken.resps[0].logprob));
    EXPECT_FALSE(broken.correct);
    EXPECT_EQ(broken.acc_norm, 0);
    EXPECT_EQ(broken.pred, "");
    EXPECT_TRUE(std::isfinite(item.queries[0].outcomes[0].resps[0].logprob));
  }
  const AskedSamples written =
      ask(file_task(parse_items(R"({"prompt": "Question 1? answer:", "answer": "a"})", "g.jsonl"), 0),
          setup(bytes_));
  EXPECT_EQ(written.items[0].queries[0].outcomes[1].resps[0].n_tokens, 0);
  const AskedSamples copied =
      ask(testing::task_of({{"generator", "copying"}, {"length", 8}, {"items", 1}}), setup(bytes_));
  EXPECT_EQ(copied.items[0].queries[0].outcomes[1].acc, 0);
}

std::string refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_F(Tasks, LinesThatAreNoItemsAreRefused) {
  const std::string good = R"({"prompt": "p", "choices": ["a", "b"], "answer": "b"})"
                           "\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"prompt": )", "not JSON"},
      {R"([1])", "an object"},
      {R"({"choices": ["a", "b"], "answer": 0})", "'prompt'"},
      {R"({"prompt": 5, "choices": ["a", "b"], "answer": 0})", "'prompt'"},
      {R"({"prompt": "p", "choices": ["a"], "answer": 0})", "two choices"},
      {R"({"prompt": "p", "choices": ["a", ""], "answer": 0})", "non-empty"},
      {R"({"prompt": "p", "choices": ["a", "b"], "answer": 2})", "from 0 to 1"},
      {R"({"prompt": "p", "choices": ["a", "b"], "answer": -1})", "from 0 to 1"},
      {R"({"prompt": "p", "choices": ["a", "b"], "answer": "c"})", "is 0 of the 2 choices"},
      {R"({"prompt": "p", "choices": ["a", "a"], "answer": "a"})", "is 2 of the 2 choices"},
      {R"({"prompt": "p", "choices": ["a", "b"], "answer": 0, "stop": "x"})", "unknown key 'stop'"},
      {R"({"prompt": "p", "choices": ["a", "b"], "answer": 0, "grup": "x"})", "unknown key 'grup'"},
      {R"({"prompt": "p", "choices": ["a", "b"]})", "'answer'"},
      {R"({"prompt": "p", "answer": "a"})", "mixed"},
      {"{\"prompt\": \"\xff\", \"choices\": [\"a\", \"b\"], \"answer\": 0}", "not JSON"}};
  for (const auto& [line, part] : cases) {
    const std::string message = refusal([&] { parse_items(good + "\n" + line + "\n", "bad.jsonl"); });
    EXPECT_NE(message.find("'bad.jsonl', line 3: "), message.npos) << line << "\n" << message;
    EXPECT_NE(message.find(part), message.npos) << line << "\n" << message;
  }
  EXPECT_NE(refusal([&] { parse_items(" \n\n", "bad.jsonl"); }).find("no items"), std::string::npos);
  EXPECT_NE(refusal([&] {
              parse_items(R"({"prompt": "p", "answer": "a", "stop": [""]})", "bad.jsonl");
            }).find("line 1: "),
            std::string::npos);
}

TEST_F(Tasks, WhatCannotBeAskedIsRefused) {
  const auto refused = [&](const Task& task, const std::shared_ptr<const Tokenizer>& tokenizer) {
    return refusal([&] { ask(task, setup(tokenizer)); });
  };
  EXPECT_NE(refused(file_task(sums(3), 3), bytes_).find("none is left"), std::string::npos);
  Task shots = file_task(two_groups(), 1);
  std::get<FileTask>(shots.source).fewshot =
      parse_items(R"({"prompt": "p", "choices": ["a", "b"], "answer": 0, "group": "even"})", "shots.jsonl");
  EXPECT_NE(refused(shots, bytes_).find("'shots.jsonl' has 0 examples for the group 'odd', not 1"),
            std::string::npos);
  EXPECT_NE(refused(file_task(sums(3), 0), nullptr).find("no tokenizer"), std::string::npos);
  const ItemFile write = parse_items(R"({"prompt": "p", "answer": "a"})", "write.jsonl");
  EXPECT_NE(refused(file_task(write, 0, ablate::ChoiceScoring::letters), bytes_).find("no choices"),
            std::string::npos);
  std::get<FileTask>(shots.source).fewshot = write;
  EXPECT_NE(refused(shots, bytes_).find("different tasks"), std::string::npos);
  EXPECT_NE(refusal([] {
              testing::task_of({{"generator", "copying"}, {"length", 8}, {"lenght", 9}});
            }).find("unknown key 'lenght'"),
            std::string::npos);
  EXPECT_NE(refusal([] {
              testing::task_of({{"generator", "recal"}, {"length", 8}});
            }).find("recall"),
            std::string::npos);
  EXPECT_NE(refusal([] { testing::task_of("missing.jsonl"); }).find("missing.jsonl"), std::string::npos);
}

TEST_F(Tasks, TheBundledModelKnowsWhichVerbGoesWithThou) {
  const std::string source = PLAIT_SOURCE_DIR;
  const Task task = testing::task_of("agreement.jsonl", source + "/tests/ablate");
  EXPECT_EQ(task.name, "agreement");
  TaskSetup bundled{load(source + "/weights/models/tiny-hybrid.h5"), bytes_, {nullptr}, {{}, kRoomy}};
  double right = 0, expected = 0, variance = 0;
  const AskedSamples asked = ask(task, bundled);
  for (const ItemResult& item : asked.items) {
    const auto& outcome = item.queries[0].outcomes[0];
    const double chance = 1 / static_cast<double>(outcome.resps.size());
    right += outcome.correct;
    expected += chance;
    variance += chance * (1 - chance);
  }
  std::printf("agreement: %.0f of %zu right, %.1f by chance\n", right, asked.items.size(), expected);
  EXPECT_GT(right, expected + 6 * std::sqrt(variance)) << "six standard deviations above guessing";
}

}  // namespace
}  // namespace plait
