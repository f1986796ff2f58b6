// The wavefront: every variant equals its own run, bit for bit, whatever shares its walk, and the work is
// shared.
#include "runtime/run/wavefront.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::all_logits;
using testing::Numbers;
using testing::same_bits;

Json card() {
  return Json::parse(R"({
    "plait_format": 1, "name": "small", "vocab": 97, "width": 64,
    "numerics": {"chunk": 16, "key_block": 64, "key_span": 64},
    "pattern": ["wide", "deep", "deep", "wide", "deep"],
    "blocks": {
      "wide": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "branches": {
        "attention": {"kind": "softmax_attention", "num_heads": 2, "head_dim": 24, "rope": {"theta": 10000}, "window": 30},
        "delta": {"kind": "gated_delta_net", "num_heads": 2, "head_dim": 24, "value_head_dim": 16}}, "scales": [0.5, 1.25]},
        {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}],
      "deep": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "softmax_attention", "num_heads": 2, "head_dim": 24},
               {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}]
    },
    "final_norm": {"kind": "rms_norm"}, "head": {"tied": "embed"}})");
}

Edit edit(const std::string& where, const std::string& op, const Json& more = Json::object()) {
  Json json = {{"where", where}, {"operator", op}};
  json.update(more);
  return parse_edit(json);
}

class Waves : public ::testing::Test {
 protected:
  std::shared_ptr<const Model> model_ = testing::random_model(card(), 3);
  std::vector<std::vector<Token>> documents_ = {Numbers(5).tokens(90, 97), Numbers(6).tokens(133, 97),
                                                Numbers(7).tokens(1, 97), Numbers(8).tokens(64, 97)};
  References references_ = {{"ref", std::make_shared<const Recording>(reference())}};

  Recording reference() const {
    RecordRequest request;
    request.rows = true;
    request.state_at = 40;
    request.inner_rows = {Site::head};
    const std::vector<std::vector<Token>> texts = {Numbers(11).tokens(150, 97)};
    return record(*model_, texts, request, {});
  }

  // Every kind of edit the executor knows, and some of the layers'.
  std::vector<EditList> variants() const {
    std::vector<EditList> all = {{}};
    for (int block = 0; block < 5; ++block) {
      const std::string name = "blocks." + std::to_string(block);
      all.push_back({edit(name, "skip")});
      all.push_back({edit(name + ".mixer", "zero", {{"shadow", "off"}})});
      all.push_back({edit(name + ".mixer", "zero")});
      all.push_back({edit(name + ".mlp", "zero", {{"shadow", "off"}})});
    }
    all.push_back({edit("blocks.0", "skip"), edit("blocks.1", "skip")});
    all.push_back({edit("blocks.0", "skip"), edit("blocks.3", "skip")});
    all.push_back({edit("blocks.0.mixer.delta", "zero", {{"tokens", {33, 40}}})});
    all.push_back({edit("blocks.0.mixer.delta", "zero", {{"shadow", "off"}, {"tokens", {33, 70}}})});
    all.push_back({edit("blocks.0.mixer.delta/decay", "one")});
    all.push_back({edit("blocks.3.mixer.delta/state", "reset", {{"tokens", {50, nullptr}}})});
    all.push_back({edit("blocks.3.mixer.delta/state", "reset_every", {{"value", 16}})});
    all.push_back(
        {edit("blocks.0.mixer.delta/state", "swap", {{"tokens", {40, nullptr}}, {"reference", "ref"}})});
    all.push_back({edit("blocks.3.mixer.delta/state", "stale", {{"value", 21}, {"tokens", {50, 70}}})});
    all.push_back({edit("blocks.3.mixer.delta/state", "stale",
                        {{"value", 40}, {"phase", "after_prefix"}, {"prefix_tokens", 60}}),
                   edit("blocks.3.mixer.delta/state", "reset", {{"tokens", {75, nullptr}}})});
    all.push_back({edit("blocks.0.mixer.delta", "zero_rescale", {{"reference", "ref"}})});
    all.push_back({edit("blocks.2.mixer", "mean", {{"reference", "ref"}})});
    all.push_back({edit("blocks.2.mixer", "mean", {{"reference", "ref"}, {"strength", 0.5}})});
    all.push_back({edit("blocks.2.mixer", "resample", {{"reference", "ref"}, {"seed", 3}})});
    all.push_back({edit("blocks.2.mixer/head", "resample", {{"reference", "ref"}, {"seed", 4}})});
    all.push_back({edit("blocks.3.mixer.delta/head", "resample",
                        {{"reference", "ref"}, {"heads", {1}}, {"tokens", {20, 70}}})});
    all.push_back({edit("blocks.2.mixer", "noise", {{"value", 0.5}, {"seed", 3}, {"channels", {1, 5, 9}}})});
    all.push_back({edit("blocks.2/residual", "patch", {{"reference", "ref"}, {"tokens", {20, 30}}})});
    all.push_back({edit("blocks.4.mixer", "scale",
                        {{"value", 0.25}, {"phase", "after_prefix"}, {"prefix_tokens", 60}})});
    all.push_back({edit("blocks.4.mixer", "zero", {{"phase", "decode"}})});  // never: scored text is given
    return all;
  }

  std::vector<std::shared_ptr<const EditPlan>> plans(const std::vector<EditList>& variants) const {
    std::vector<std::shared_ptr<const EditPlan>> all;
    for (const EditList& edits : variants)
      all.push_back(edits.empty() ? nullptr : std::make_shared<const EditPlan>(*model_, edits, references_));
    return all;
  }

  std::vector<float> solo(const EditList& edits, const std::vector<Token>& tokens) const {
    StreamOptions options;
    options.edits = edits;
    options.references = references_;
    Stream stream(model_, options);
    return all_logits(stream, tokens, {static_cast<Index>(tokens.size())});
  }

  std::vector<Index> all_of(const std::vector<Token>& tokens) const {
    std::vector<Index> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  }

  // What a stream has in place of the run without edits that stands beside it in a wavefront.
  std::vector<float> solo_beside_clean(const EditList& edits, const std::vector<Token>& tokens) const {
    RecordRequest request;
    request.inner_rows = {Site::norm};
    const std::vector<std::vector<Token>> texts = {tokens};
    StreamOptions options;
    options.edits = edits;
    options.references = {{kClean, std::make_shared<const Recording>(record(*model_, texts, request, {}))}};
    Stream stream(model_, options);
    return all_logits(stream, tokens, {static_cast<Index>(tokens.size())});
  }

  // Runs the wavefront and holds every row it gives against the solo runs. Returns what it cost.
  WavefrontCost expect_solo(const std::vector<EditList>& edits, std::size_t memory) const {
    return expect_alone(edits, memory,
                        [&](const EditList& own, const auto& tokens) { return solo(own, tokens); });
  }

  template <class Alone>
  WavefrontCost expect_alone(const std::vector<EditList>& edits, std::size_t memory, Alone&& alone) const {
    Wavefront wavefront(model_, plans(edits), {{}, memory});
    std::vector<VariantDocument> documents;
    std::vector<std::vector<Index>> scored;
    for (const auto& tokens : documents_) scored.push_back(all_of(tokens));
    for (std::size_t d = 0; d < documents_.size(); ++d)
      documents.push_back({documents_[d], scored[d], nullptr});
    std::map<std::pair<std::size_t, int>, std::vector<float>> got;
    wavefront.run(documents, [&](const VariantLogits& at) {
      EXPECT_EQ(at.variants[0][0], 0) << "the baseline comes first";
      for (std::size_t r = 0; r < at.variants.size(); ++r)
        for (const int v : at.variants[r]) {
          auto& rows = got[{at.document, v}];
          if (v == 0 && static_cast<Index>(rows.size()) > at.position * 97)
            continue;  // again, beside other variants
          EXPECT_EQ(static_cast<Index>(rows.size()), at.position * 97) << "positions ascend";
          const float* row = at.logits.row(static_cast<Index>(r));
          rows.insert(rows.end(), row, row + 97);
        }
    });
    for (std::size_t d = 0; d < documents_.size(); ++d)
      for (std::size_t v = 0; v < edits.size(); ++v)
        EXPECT_TRUE(same_bits(got[{d, static_cast<int>(v)}], alone(edits[v], documents_[d])))
            << "document " << d << ", variant " << v;
    return wavefront.cost();
  }
};

TEST_F(Waves, EveryVariantEqualsItsOwnRunWhateverTheTiles) {
  const WavefrontCost roomy = expect_solo(variants(), std::size_t{1} << 30);
  const WavefrontCost tight = expect_solo(variants(), std::size_t{3} << 20);
  const WavefrontCost tightest = expect_solo(variants(), std::size_t{5} << 17);
  EXPECT_LT(roomy.tiles, tight.tiles);
  EXPECT_LT(tight.tiles, tightest.tiles);
  EXPECT_LT(roomy.forwards_equiv(), tightest.forwards_equiv()) << "variant tiles repeat the baseline";
}

TEST_F(Waves, AFrozenNormTakesTheScalesOfTheRunWithoutEdits) {
  const Edit freeze = edit("final_norm/norm", "freeze", {{"reference", kClean}}),
             within = edit("blocks.3/norm", "freeze", {{"reference", kClean}, {"tokens", {21, 64}}}),
             skip = edit("blocks.1", "skip");
  const std::vector<EditList> all = {{}, {freeze}, {skip}, {skip, freeze}, {skip, within}};
  for (const std::size_t memory : {std::size_t{1} << 30, std::size_t{3} << 20, std::size_t{5} << 17})
    expect_alone(all, memory,
                 [&](const EditList& own, const auto& tokens) { return solo_beside_clean(own, tokens); });
  const auto& tokens = documents_[0];
  EXPECT_TRUE(same_bits(solo_beside_clean({freeze}, tokens), solo({}, tokens))) << "its own scales";
  EXPECT_FALSE(same_bits(solo_beside_clean({skip, freeze}, tokens), solo({skip}, tokens)));
  EXPECT_FALSE(same_bits(solo_beside_clean({skip, within}, tokens), solo({skip}, tokens)));
  // Nothing runs beside a stream, and a baseline with edits is none.
  EXPECT_THROW(solo({freeze}, tokens), Error);
  Wavefront edited(model_, plans({{skip}, {freeze}}), {{}, std::size_t{1} << 30});
  const VariantDocument document{tokens, {}, nullptr};
  EXPECT_THROW(edited.run({&document, 1}, {}), Error);
  // A recording that kept no scales.
  EXPECT_THROW(solo({edit("final_norm/norm", "freeze", {{"reference", "ref"}})}, tokens), Error);
}

TEST_F(Waves, HeadsAreDrawnFromTheReferenceAsRowsAre) {
  // Every token's heads come from one row, which the seed and the position draw.
  const Edit drawn = edit("blocks.2.mixer/head", "resample", {{"reference", "ref"}, {"seed", 4}});
  const Recorded& held = *references_.at("ref")->nodes.at("blocks.2.mixer");
  const std::vector<float>& rows = held.inner_rows.at(Site::head);
  constexpr std::size_t kWidth = 2 * 24;
  ASSERT_EQ(rows.size(), 150 * kWidth);
  Edit given = drawn;
  given.reference.clear();
  for (std::size_t p = 0; p < documents_[0].size(); ++p) {
    const auto row = static_cast<std::size_t>(uniform_draw(4, 0, p) * 150);
    given.values.insert(given.values.end(), rows.begin() + static_cast<std::ptrdiff_t>(row * kWidth),
                        rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * kWidth));
  }
  EXPECT_TRUE(same_bits(solo({drawn}, documents_[0]), solo({given}, documents_[0])));
  EXPECT_FALSE(same_bits(solo({drawn}, documents_[0]), solo({}, documents_[0])));
  EXPECT_THROW(solo({edit("blocks.0.mixer.attention/head", "resample")}, documents_[0]), Error);
}

TEST_F(Waves, TheBaselineAloneCostsOneForward) {
  EXPECT_DOUBLE_EQ(expect_solo({{}}, std::size_t{1} << 30).forwards_equiv(), 1);
}

// Blocks of equal cost: zeroing step k of L leaves L - k - 1 steps of its own. Of a sweep over all steps that
// is (L - 1) / 2 forwards, and the clean one.
TEST_F(Waves, ASweepCostsWhatLiesBehindEachSite) {
  Json plain = card();
  plain["blocks"].erase("wide");
  plain["pattern"] = Json::array({"deep", "deep", "deep", "deep"});
  model_ = testing::random_model(plain, 3);
  std::vector<EditList> sweep = {{}};
  for (int b = 0; b < 4; ++b) sweep.push_back({edit("blocks." + std::to_string(b), "skip")});
  EXPECT_NEAR(expect_solo(sweep, std::size_t{1} << 30).forwards_equiv(), 1 + (3 + 2 + 1 + 0) / 4.0, 0.05);
}

TEST_F(Waves, AnEditThatBeginsLateSharesWhatLiesBefore) {
  documents_ = {Numbers(5).tokens(100, 97)};
  const auto cost =
      expect_solo({{}, {edit("blocks.0", "skip", {{"tokens", {75, nullptr}}})}}, std::size_t{1} << 30);
  EXPECT_NEAR(cost.forwards_equiv(), 1 + 0.25 * 0.8, 0.05);  // a quarter of the rows, four blocks of five
}

TEST_F(Waves, EqualVariantsShareEverything) {
  const EditList same = {edit("blocks.1", "skip")};
  const auto cost = expect_solo({{}, same, same, same}, std::size_t{1} << 30);
  EXPECT_LT(cost.forwards_equiv(), 2);
}

TEST_F(Waves, StatesGoOnForkAndBecomeSequences) {
  const std::vector<EditList> edits = variants();
  Wavefront wavefront(model_, plans(edits), {{}, std::size_t{1} << 30});
  const std::vector<Token> prefix = Numbers(21).tokens(70, 97);
  VariantStates states;
  const VariantDocument first{prefix, {}, &states};
  wavefront.run({&first, 1}, {});
  EXPECT_EQ(states.position(), 70);
  for (int question = 0; question < 3; ++question) {
    VariantStates fork = states;
    std::vector<Token> tokens = Numbers(30 + static_cast<std::uint64_t>(question)).tokens(11, 97);
    const std::vector<Index> scored = {3, 10};
    const VariantDocument more{tokens, scored, &fork};
    std::vector<Token> whole = prefix;
    whole.insert(whole.end(), tokens.begin(), tokens.end());
    std::vector<std::vector<float>> expected;
    for (const EditList& e : edits) expected.push_back(solo(e, whole));
    std::size_t calls = 0;
    wavefront.run({&more, 1}, [&](const VariantLogits& at) {
      ++calls;
      for (std::size_t r = 0; r < at.variants.size(); ++r)
        for (const int v : at.variants[r])
          EXPECT_TRUE(same_bits({at.logits.row(static_cast<Index>(r)), 97},
                                std::span(expected[static_cast<std::size_t>(v)])
                                    .subspan(static_cast<std::size_t>(at.position) * 97, 97)))
              << "variant " << v << " at " << at.position;
    });
    EXPECT_EQ(calls, 2u);
  }
  for (const int v : {0, 4, 9, 24}) {
    Sequence alone = wavefront.sequence(states, v);
    const std::vector<Token> next = {5};
    const Item item{&alone, next, Want::last};
    std::vector<Token> whole = prefix;
    whole.push_back(5);
    const std::vector<float> expected = solo(edits[static_cast<std::size_t>(v)], whole);
    run_batch(*model_, {&item, 1}, {}, [&](std::size_t, Index, std::span<const float> row) {
      EXPECT_TRUE(same_bits(row, std::span(expected).subspan(70 * 97, 97))) << v;
    });
  }
}

TEST_F(Waves, BadInputIsRefused) {
  Wavefront wavefront(model_, plans({{}}), {{}, std::size_t{1} << 30});
  const std::vector<Token> wrong = {1, 97};
  const VariantDocument document{wrong, {}, nullptr};
  EXPECT_THROW(wavefront.run({&document, 1}, {}), Error);
  Wavefront small(model_, plans({{}, {edit("blocks.1", "skip")}}), {{}, 1000});
  const VariantDocument fine{documents_[0], {}, nullptr};
  EXPECT_THROW(small.run({&fine, 1}, {}), Error);
}

// Operators of the executor against what they are defined as.

TEST_F(Waves, ShadowOnAndOffAgreeWhenNobodyElseReadsTheState) {  // C7
  EXPECT_TRUE(same_bits(solo({edit("blocks.0.mixer", "zero")}, documents_[1]),
                        solo({edit("blocks.0.mixer", "zero", {{"shadow", "off"}})}, documents_[1])));
  EXPECT_TRUE(same_bits(solo({edit("blocks.3.mixer.delta", "zero")}, documents_[1]),
                        solo({edit("blocks.3.mixer.delta", "zero", {{"shadow", "off"}})}, documents_[1])));
}

TEST_F(Waves, StrengthZeroIsNoEdit) {  // C2
  for (const char* op : {"zero", "mean", "resample", "patch", "noise", "skip"})
    EXPECT_TRUE(same_bits(solo({edit("blocks.2.mixer", op, {{"strength", 0}})}, documents_[0]),
                          solo({}, documents_[0])))
        << op;
}

TEST_F(Waves, TheMeanOfAConstantSiteChangesNothing) {  // C8
  // Over one text of one token every site is constant.
  const std::vector<std::vector<Token>> texts = {documents_[2]};
  references_["one"] = std::make_shared<const Recording>(record(*model_, texts, {}, {}));
  for (const char* node : {"blocks.2.mixer", "blocks.1.mlp", "blocks.0.mixer"})
    EXPECT_TRUE(
        same_bits(solo({edit(node, "mean", {{"reference", "one"}})}, documents_[2]), solo({}, documents_[2])))
        << node;
}

TEST_F(Waves, PatchingTheRunsOwnRowsChangesNothingAndAnotherRunsRowsTakeOver) {
  RecordRequest request;
  request.rows = true;
  const std::vector<std::vector<Token>> own = {documents_[0]};
  references_["own"] = std::make_shared<const Recording>(record(*model_, own, request, {}));
  const auto plain = solo({}, documents_[0]);
  EXPECT_TRUE(same_bits(
      solo({edit("blocks.2/residual", "patch", {{"reference", "own"}, {"tokens", {0, 90}}})}, documents_[0]),
      plain));
  // The whole residual stream of another text after the last block: the logits are that text's.
  std::vector<Token> other = Numbers(77).tokens(90, 97);
  const std::vector<std::vector<Token>> others = {other};
  references_["other"] = std::make_shared<const Recording>(record(*model_, others, request, {}));
  EXPECT_TRUE(
      same_bits(solo({edit("blocks.4/residual", "patch", {{"reference", "other"}, {"tokens", {0, 90}}})},
                     documents_[0]),
                solo({}, other)));
}

TEST_F(Waves, SwappedStatesAreTheOtherStreams) {
  RecordRequest request;
  request.state_at = 40;
  const std::vector<std::vector<Token>> other = {documents_[1]};
  references_["other"] = std::make_shared<const Recording>(record(*model_, other, request, {}));
  EditList all;
  for (const char* node :
       {"blocks.0.mixer.attention", "blocks.0.mixer.delta", "blocks.1.mixer", "blocks.2.mixer",
        "blocks.3.mixer.attention", "blocks.3.mixer.delta", "blocks.4.mixer"})
    all.push_back(
        edit(std::string(node) + "/state", "swap", {{"reference", "other"}, {"tokens", {40, nullptr}}}));
  std::vector<Token> grafted(documents_[1].begin(), documents_[1].begin() + 40);
  grafted.insert(grafted.end(), documents_[0].begin() + 40, documents_[0].end());
  const auto swapped = solo(all, documents_[0]), expected = solo({}, grafted);
  EXPECT_TRUE(same_bits(std::span(swapped).subspan(40 * 97), std::span(expected).subspan(40 * 97)));
}

TEST_F(Waves, ZeroRescaleKeepsTheMeanNorm) {
  // With one branch zeroed the other's mean norm, as it enters the stream, is that of both together.
  const Recorded& rest = *references_["ref"]->nodes.at("blocks.0.mixer.attention");
  Edit scale = edit("blocks.0.mixer.attention", "scale", {{"value", rest.step_norm / rest.norm}});
  EXPECT_GT(rest.step_norm, rest.norm * 0.5);
  EXPECT_TRUE(
      same_bits(solo({edit("blocks.0.mixer.delta", "zero_rescale", {{"reference", "ref"}})}, documents_[0]),
                solo({edit("blocks.0.mixer.delta", "zero"), scale}, documents_[0])));
}

TEST_F(Waves, NoiseHasTheSizeItWasGivenAndDependsOnItsSeedOnly) {
  const auto noisy = [&](Index seed) {
    return solo({edit("blocks.4/residual", "noise", {{"value", 0.1}, {"seed", seed}})}, documents_[0]);
  };
  EXPECT_TRUE(same_bits(noisy(1), noisy(1)));
  EXPECT_FALSE(same_bits(noisy(1), noisy(2)));
  EXPECT_FALSE(same_bits(noisy(1), solo({}, documents_[0])));
}

TEST_F(Waves, EditsWithoutTheirReferenceAreRefused) {
  const auto refused = [&](const Edit& e) {
    try {
      EditPlan plan(*model_, {e}, references_);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refused(edit("blocks.2.mixer", "mean")).find("needs a 'reference'"), std::string::npos);
  EXPECT_NE(refused(edit("blocks.2.mixer", "mean", {{"reference", "x"}})).find("no reference 'x'"),
            std::string::npos);
  EXPECT_NE(
      refused(edit("blocks.2.mixer", "patch", {{"reference", "ref"}, {"tokens", {0, 999}}})).find("150 rows"),
      std::string::npos);
  EXPECT_NE(refused(edit("blocks.2.mixer/state", "swap", {{"reference", "ref"}, {"tokens", {41, nullptr}}}))
                .find("40"),
            std::string::npos);
  EXPECT_NE(refused(edit("blocks.2.mixer", "zero_rescale", {{"reference", "ref"}})).find("several branches"),
            std::string::npos);
  EXPECT_NE(refused(edit("blocks.2.mixer", "zero", {{"channels", {64}}})).find("64 channels"),
            std::string::npos);
}

}  // namespace
}  // namespace plait
