// plait run and plait score with --store: the same output as without, and what they say about it.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/program.h"

namespace plait::testing {
namespace {

std::string store(const std::string& name) { return "--store " + name; }

TEST(Store, RunWritesTheSameAndRunsTheModelLess) {
  const std::string arguments =
      "run " + small() + " --prompt-file " + text() + " -n 12 --seed 3 --threads 1 --json - ";
  const Json plain = plait(arguments).json();
  EXPECT_TRUE(plain["store"].is_null());
  const Json first = plait(arguments + store("run-store")).json();
  const Json second = plait(arguments + store("run-store")).json();
  for (const Json& json : {first, second}) EXPECT_EQ(json["tokens"], plain["tokens"]);
  EXPECT_EQ(first["store"]["hit"], 0);
  EXPECT_EQ(first["store"]["miss"], "the store is empty");
  EXPECT_GT(first["store"]["stored"], 0);
  EXPECT_EQ(second["store"]["hit"], plain["prompt_tokens"]);
  EXPECT_TRUE(second["store"]["miss"].is_null());
  EXPECT_EQ(second["store"]["stored"], 0);
}

// Whatever page of the index is hit, a run gives what it gives without a store, and the next one finds the
// store mended or sound.
TEST(Store, ADamagedIndexIsMadeAnew) {
  const std::string arguments =
      "run " + small() + " --prompt-file " + text() + " -n 3 --seed 3 --threads 1 --json - --quiet ";
  const Json plain = plait(arguments).json();
  plait(arguments + store("sound"));
  const std::string sound = read(file("sound/index.sqlite"));
  ASSERT_EQ(sound.size() % 4096, 0u);
  for (std::size_t page = 0; page < sound.size(); page += 4096) {
    std::filesystem::remove_all(file("hit"));
    std::filesystem::copy(file("sound"), file("hit"));
    write(file("hit/index.sqlite"), std::string(sound).replace(page, 4096, 4096, '\0'));
    for (int run = 0; run < 3; ++run) {
      const Outcome outcome = plait(arguments + store("hit"));
      ASSERT_EQ(outcome.code, 0) << page << ": " << outcome.error;
      const Json json = outcome.json();
      EXPECT_EQ(json["tokens"], plain["tokens"]) << page;
      if (run < 2) continue;
      EXPECT_EQ(json["store"]["hit"], 400) << page << ": " << json["store"];
      EXPECT_TRUE(json["store"]["not_stored"].is_null()) << page << ": " << json["store"];
    }
  }
}

// What a run wrote is the beginning of the next prompt.
TEST(Store, ATurnGoesOnWhereTheLastOneEnded) {
  write(file("romeo.txt"), "ROMEO:\n");
  const Outcome next = shell(
      "$PLAIT run --prompt-file romeo.txt -n 40 --temperature 0 --store turns > reply.txt && "
      "cat romeo.txt reply.txt > longer.txt && "
      "$PLAIT run --prompt-file longer.txt -n 1 --temperature 0 --store turns --json -");
  EXPECT_EQ(next.json()["store"]["hit"], 7 + 39) << "the last token was not fed";
}

// A loaded stream is looked up with what it was fed before, and stored though its boundaries are not.
TEST(Store, ALoadedStreamIsGoneOnWith) {
  write(file("more.txt"), read(file(text())) + "and more of it, which was not in the snapshot");
  ASSERT_EQ(plait("run " + small() + " --prompt-file " + text() + " -n 0 --save loaded.snap").code, 0);
  const std::string arguments =
      "run " + small() + " --load loaded.snap --prompt-file more.txt -n 9 --json - ";
  const Json plain = plait(arguments).json();
  const Json first = plait(arguments + store("load-store")).json(),
             second = plait(arguments + store("load-store")).json();
  for (const Json& json : {first, second}) EXPECT_EQ(json["tokens"], plain["tokens"]);
  EXPECT_EQ(first["store"]["tokens"], 400 + first["prompt_tokens"].get<int>());
  EXPECT_EQ(first["prompt_tokens_run"], plain["prompt_tokens"]);
  EXPECT_TRUE(first["store"]["not_stored"].is_null()) << first["store"];
  EXPECT_EQ(second["store"]["hit"], first["store"]["tokens"]);
  EXPECT_EQ(second["prompt_tokens_run"], 0);
}

TEST(Store, ScoresAreTheSameToTheLastBit) {
  for (const std::string more : {"", " --split 7,64,1", " --numerics fast"}) {
    const std::string arguments = "score " + small() + " --text " + text() + " --json - " + more + " ";
    const std::string folder = store("score-store" + std::to_string(more.size()));
    const Json plain = plait(arguments).json();
    plait("score " + small() + " --text " + text() + more + " " + folder);
    const Json again = plait(arguments + folder).json();
    EXPECT_EQ(again["store"]["hit"], plain["tokens"]);
    for (const char* key : {"nll", "nll_stderr", "bits_per_byte", "top1", "logits_sha256", "scored", "bytes"})
      EXPECT_EQ(again[key], plain[key]) << key;
    // A text that parts from it: the first 300 bytes are those.
    shell("head -c 300 " + text() + " > part.txt && printf 'and something else altogether' >> part.txt");
    const std::string part = "score " + small() + " --text part.txt --per-token p.h5 --json - " + more + " ";
    const Json fresh = plait(part).json();
    const std::string fresh_rows = read(file("p.h5"));
    const Json stored = plait(part + folder).json();
    EXPECT_EQ(stored["store"]["shared"], 300);
    EXPECT_EQ(stored["logits_sha256"], fresh["logits_sha256"]);
    EXPECT_EQ(stored["nll"], fresh["nll"]);
    EXPECT_EQ(read(file("p.h5")), fresh_rows);
    EXPECT_EQ(plait(part + folder).json()["store"]["hit"], stored["tokens"]);
  }
}

TEST(Store, SaysWhatItMissedAndWhy) {
  const std::string arguments = "run " + small() + " --prompt 'To be' -n 1 --temperature 0 " + store("say");
  Outcome outcome = plait(arguments);
  EXPECT_NE(outcome.error.find("plait: store: hit 0 of 5 tokens, miss: the store is empty; stored 1 entry"),
            std::string::npos)
      << outcome.error;
  outcome = plait(arguments);
  EXPECT_NE(outcome.error.find("plait: store: hit 5 of 5 tokens; stored 0 entries"), std::string::npos)
      << outcome.error;
  const auto miss = [](const std::string& verb) {
    return plait(verb + " --json - " + store("say")).json()["store"]["miss"];
  };
  const std::string prompt = " --prompt 'To be' -n 1";
  EXPECT_EQ(miss("run " + small() + prompt + " --numerics exact"), "numerics differ");
  EXPECT_EQ(miss("run " + narrow() + prompt), "model digest differs");
  write(file("edits.json"), R"([{"where": "blocks.0.mixer", "operator": "zero"}])");
  EXPECT_EQ(miss("run " + small() + prompt + " --edits edits.json"), "edits differ");
  write(file("five.txt"), "To be");
  EXPECT_EQ(miss("score " + small() + " --text five.txt --numerics fast"),
            "what is kept with the tokens differs");
  const Json full =
      plait("run " + small() + prompt + " --json - --store full --store-bytes 1kB").json()["store"];
  EXPECT_EQ(full["stored"], 0);
  EXPECT_NE(full["not_stored"].get<std::string>().find("the store's budget is 1000 bytes"), std::string::npos)
      << full;
}

TEST(Store, WhatDoesNotGoTogetherIsRefused) {
  const std::string run = "run " + small() + " --prompt x -n 1 ",
                    score = "score " + small() + " --text " + text();
  expect_error(plait(run + store("s") + " --load x.h5 --resend"), 2, "--resend");
  expect_error(plait(score + " --context 64 " + store("s")), 2, "--context");
  expect_error(plait(score + " --dump-logits x.npy " + store("s")), 2, "--dump-logits");
  EXPECT_EQ(plait(run + "--store-bytes 5").code, 2);
  for (const char* bytes : {"0", "-5", "some"})
    expect_error(plait(run + store("s") + " --store-bytes " + bytes), 2, "--store-bytes");
  write(file("occupied"), "x");
  expect_error(plait(run + store("occupied")), 3, "cannot use 'occupied' as a prefix store");
  EXPECT_FALSE(exists("s"));
}

TEST(Store, ProgramsSideBySideDoNotDisturbEachOther) {
  const std::string command = "$PLAIT run " + small() + " --prompt-file " + text() +
                              " -n 3 --seed 1 --threads 1 --quiet --store many --store-bytes 300kB > out";
  std::string all;
  for (int i = 0; i < 6; ++i) all += "(" + command + std::to_string(i) + ") & ";
  const Outcome outcome = shell(all + "wait");
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  for (int i = 1; i < 6; ++i) EXPECT_EQ(read(file("out" + std::to_string(i))), read(file("out0")));
}

}  // namespace
}  // namespace plait::testing
