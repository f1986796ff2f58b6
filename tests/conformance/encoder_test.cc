// Every kind an encoder may have, in its example settings there: equal bits for any packing and thread count,
// in exact mode any instruction set, after a save and a load of the model; rows that see the whole sequence;
// and a sentence for everything that goes along a stream.
#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/encoder.h"
#include "runtime/run/recording.h"
#include "runtime/run/wavefront.h"
#include "tests/testing.h"
#include "tests/typical_edit.h"
#include "weights/model_file.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

using testing::Numbers;
using testing::same_bits;

// Past the key block (64) and the test's key span (128).
constexpr Index kTokens = 150;

struct Case {
  std::string kind, settings;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [key, kind] : Registry::builtin().kinds()) {
    if (kind.graphs == Kind::Graphs::causal) continue;
    for (const std::string& settings : kind.encoder_examples.empty() ? kind.examples : kind.encoder_examples)
      all.push_back({key, settings});
  }
  return all;
}

std::string name_of_case(const ::testing::TestParamInfo<std::tuple<Case, Numerics>>& info) {
  return std::get<0>(info.param).kind + "_" + std::to_string(info.index) + "_" +
         name_of(std::get<1>(info.param));
}

Json encoder_card(const Case& example) {
  Json card = testing::card_of_kind(example.kind, Json::parse(example.settings));
  card["causal"] = false;
  return card;
}

class EncoderConformance : public ::testing::TestWithParam<std::tuple<Case, Numerics>> {
 protected:
  void SetUp() override {
    const auto& [example, numerics] = GetParam();
    data_ =
        testing::random_data(encoder_card(example), 7, numerics == Numerics::fast ? DType::bf16 : DType::f32);
    model_ = std::make_shared<const Model>(data_);
    compute_ = {numerics, Isa::automatic, 1};
    tokens_ = Numbers(11).tokens(kTokens, model_->card().vocab);
    whole_ = encode(*model_, tokens_, compute_);
    ASSERT_EQ(whole_.size(), tokens_.size() * static_cast<std::size_t>(model_->card().vocab));
    for (float x : whole_) ASSERT_TRUE(x == x) << "not a number in the outputs";
  }

  ModelData data_;
  std::shared_ptr<const Model> model_;
  Compute compute_;
  std::vector<Token> tokens_;
  std::vector<float> whole_;
};

class ExactEncoderConformance : public EncoderConformance {};

TEST_P(EncoderConformance, AnyPacking) {
  const std::vector<Token> other = Numbers(12).tokens(kTokens, model_->card().vocab);
  const std::span<const Token> all(other);
  const std::vector<std::span<const Token>> sequences = {all.first(90), tokens_, {},
                                                         all.first(1),  tokens_, all.first(33)};
  std::vector<std::vector<float>> solo;
  for (const auto& sequence : sequences) solo.push_back(encode(*model_, sequence, compute_));
  for (const Index row_block : {1, 160, 400, 2000}) {
    RunOptions options;
    options.compute = compute_;
    options.row_block = row_block;
    std::size_t next = 0;
    encode_batch(*model_, sequences, options, [&](std::size_t i, View<const float> output) {
      EXPECT_EQ(i, next++);
      EXPECT_TRUE(same_bits({output.data, static_cast<std::size_t>(output.rows * output.cols)}, solo[i]))
          << "sequence " << i << ", " << row_block << " rows a walk";
    });
    EXPECT_EQ(next, sequences.size());
  }
  EXPECT_TRUE(same_bits(solo[1], whole_));
}

TEST_P(EncoderConformance, AnyThreadCount) {
  for (const int threads : {2, 3}) {
    Compute compute = compute_;
    compute.threads = threads;
    EXPECT_TRUE(same_bits(encode(*model_, tokens_, compute), whole_)) << threads << " threads";
  }
}

// Every operator of every site: it does something, and the same in any company and on any number of threads.
TEST_P(ExactEncoderConformance, Edits) {
  const std::string node = "blocks.0.mixer";
  const std::vector<Token> other = Numbers(12).tokens(33, model_->card().vocab);
  const std::vector<std::span<const Token>> sequences = {other, tokens_};
  for (Edit edit : testing::typical_edits(node, model_->layer(model_->graph().find(node)), 0, kTokens)) {
    SCOPED_TRACE(testing::describe(edit));
    edit.end = -1;
    const std::vector<float> alone = encode(*model_, tokens_, compute_, {edit});
    for (float x : alone) ASSERT_TRUE(x == x) << "not a number in the outputs";
    EXPECT_FALSE(same_bits(alone, whole_));
    const EditPlan plan(*model_, {edit});
    RunOptions options;
    options.compute = compute_;
    options.compute.threads = 3;
    encode_batch(
        *model_, sequences, options,
        [&](std::size_t i, View<const float> output) {
          if (i == 0) return;
          EXPECT_TRUE(same_bits({output.data, static_cast<std::size_t>(output.rows * output.cols)}, alone));
        },
        &plan);
    edit.strength = 0;
    EXPECT_TRUE(same_bits(encode(*model_, tokens_, compute_, {edit}), whole_));
  }
}

TEST_P(ExactEncoderConformance, AnyInstructionSet) {
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (!machine_has(isa)) continue;
    Compute compute = compute_;
    compute.isa = isa;
    EXPECT_TRUE(same_bits(encode(*model_, tokens_, compute), whole_)) << name_of(isa);
  }
}

TEST_P(EncoderConformance, ModelSavedAndLoaded) {
  const TemporaryFile file(::testing::TempDir() + "plait_encoder_conformance.h5");
  ModelWriter writer(file.path(), data_.card, "a test");
  for (const auto& [node, tensors] : data_.tensors)
    for (const auto& [name, tensor] : tensors) writer.add(node, name, tensor);
  writer.finish();
  EXPECT_TRUE(same_bits(encode(*load(file.path()), tokens_, compute_), whole_));
}

// The first row of a layer that mixes rows changes with a later token, that of another does not. (In bf16 a
// small change may be rounded away.)
TEST_P(ExactEncoderConformance, RowsSeeAhead) {
  bool mixes = false;
  for (int n = 0; n < model_->node_count(); ++n) mixes = mixes || model_->mixes_rows(n);
  std::vector<Token> changed = tokens_;
  changed[20] = (changed[20] + 1) % static_cast<Token>(model_->card().vocab);
  const std::vector<float> outputs = encode(*model_, changed, compute_);
  const auto row = static_cast<std::size_t>(model_->card().vocab);
  EXPECT_EQ(same_bits(std::span(outputs).first(row), std::span(whole_).first(row)), !mixes);
}

// What a recording keeps are the rows of the run over the whole sequence, whatever texts stand beside it.
TEST_P(ExactEncoderConformance, IsRecordedWhole) {
  const std::string name = "final_norm";
  std::vector<float> seen;
  RunOptions options;
  options.compute = compute_;
  options.observer = [&](int node, const Ports& ports, std::span<const Segment>) {
    if (model_->graph().nodes[static_cast<std::size_t>(node)].name != name) return;
    for (Index r = 0; r < ports.output.rows; ++r)
      seen.insert(seen.end(), ports.output.row(r), ports.output.row(r) + ports.output.cols);
  };
  const std::span<const Token> sequence = tokens_;
  encode_batch(*model_, {&sequence, 1}, options, [](std::size_t, View<const float>) {});
  ASSERT_EQ(seen.size(), static_cast<std::size_t>(kTokens * model_->card().width));
  const std::vector<Token> other = Numbers(12).tokens(33, model_->card().vocab);
  RecordRequest request;
  request.nodes = {name};
  request.rows = true;
  const auto recorded = record(*model_, std::vector{other, tokens_}, request, compute_).nodes.at(name);
  EXPECT_EQ(recorded->count, 33 + kTokens);
  EXPECT_TRUE(same_bits(std::span(recorded->rows).last(seen.size()), seen));
  request.state_at = 5;
  EXPECT_THROW(record(*model_, std::vector<std::vector<Token>>{tokens_}, request, compute_), Error);
}

TEST_P(ExactEncoderConformance, HasNoStream) {
  const auto refused = [](auto&& f) {
    try {
      f();
    } catch (const Error& error) {
      return std::string(error.what()).find("is an encoder") != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(refused([&] { Stream stream(model_); }));
  EXPECT_TRUE(refused([&] { Wavefront wavefront(model_, {nullptr}, {}); }));
}

INSTANTIATE_TEST_SUITE_P(Kinds, EncoderConformance,
                         ::testing::Combine(::testing::ValuesIn(cases()),
                                            ::testing::Values(Numerics::exact, Numerics::fast)),
                         name_of_case);

INSTANTIATE_TEST_SUITE_P(Kinds, ExactEncoderConformance,
                         ::testing::Combine(::testing::ValuesIn(cases()), ::testing::Values(Numerics::exact)),
                         name_of_case);

// Every kind is refused in the graph that it has no place in, with and without weights.
TEST(Graphs, KindsAreRefusedWhereTheyHaveNoPlace) {
  int refused = 0;
  for (const auto& [key, kind] : Registry::builtin().kinds()) {
    if (kind.graphs == Kind::Graphs::both) continue;
    const bool encoder_only = kind.graphs == Kind::Graphs::encoder;
    Json card = testing::card_of_kind(key, Json::parse(kind.examples[0]));
    card["causal"] = encoder_only;
    const char* reason = encoder_only ? "graph is causal" : "no place in an encoder";
    for (const bool with_weights : {false, true}) {
      try {
        if (with_weights) {
          Json good = card;
          good["causal"] = !encoder_only;
          ModelData data = testing::random_data(good, 1);
          data.card = card;
          Model model(std::move(data));
        } else {
          Model::wanted(expand_card(card, "card"));
        }
        ADD_FAILURE() << key << " was accepted";
      } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find(reason), std::string::npos) << message;
        EXPECT_NE(message.find("blocks.0.mixer"), std::string::npos) << message;
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(Graphs, ACausalModelHasNoEncoder) {
  const auto model = testing::random_model(testing::card_of_kind("gated_mlp", {{"hidden", 8}}), 1);
  EXPECT_THROW(encode(*model, std::vector<Token>{1, 2}), Error);
}

// Rows of an encoder are computed together: no edit of some of them, none of a state.
TEST(Graphs, AnEncodersEditsCoverWholeSequences) {
  const auto model =
      testing::random_model(encoder_card({"softmax_attention", R"({"num_heads": 2, "head_dim": 8})"}), 1);
  const auto refusal = [&](auto change) {
    Edit edit;
    edit.node = "blocks.0.mixer";
    change(edit);
    try {
      encode(*model, std::vector<Token>{1, 2}, {}, {edit});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal([](Edit&) {}), "");
  const auto part = [](const std::string& message) {
    return message.find("reads a sequence whole") != message.npos;
  };
  EXPECT_TRUE(part(refusal([](Edit& e) { e.begin = 1; })));
  EXPECT_TRUE(part(refusal([](Edit& e) { e.end = 5; })));
  EXPECT_TRUE(part(refusal([](Edit& e) { e.phase = Phase::prefill; })));
  const std::string state = refusal([](Edit& e) { e.site = Site::state, e.op = Operator::reset; });
  EXPECT_NE(state.find("keeps no state"), std::string::npos) << state;
}

TEST(Graphs, AnEncodersTokensAreChecked) {
  const auto model = testing::random_model(encoder_card({"gated_mlp", R"({"hidden": 8})"}), 1);
  EXPECT_THROW(encode(*model, std::vector<Token>{1, 97}), Error);
}

}  // namespace
}  // namespace plait
