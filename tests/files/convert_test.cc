// Published checkpoints in and out: every byte in its place, every key understood or refused.
#include "weights/convert.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/base/half.h"
#include "tests/checkpoint.h"
#include "tests/files.h"
#include "tests/testing.h"
#include "weights/families/family.h"
#include "weights/model_file.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

using namespace testing;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::pair<const char*, Checkpoint>> all_checkpoints() {
  return {{"qwen3_5", tiny_qwen3_5(Tie::tied)},    {"qwen3_5 untied", tiny_qwen3_5(Tie::own)},
          {"falcon_h1", tiny_falcon_h1(Tie::own)}, {"falcon_h1 tied", tiny_falcon_h1(Tie::tied)},
          {"qwen2", tiny_qwen2(Tie::tied)},        {"qwen2 untied", tiny_qwen2(Tie::own)}};
}

class Convert : public ::testing::Test {
 protected:
  Conversion convert(const Checkpoint& c, const ConvertOptions& options = {},
                     const std::string& to = "m.h5") {
    std::filesystem::remove_all(folder_ / "source");
    c.write(folder_ / "source");
    return convert_checkpoint(folder_ / "source", folder_ / to, options);
  }
  // The sentence of a refusal, which leaves nothing.
  std::string refusal(const Checkpoint& c, const ConvertOptions& options = {}) {
    std::filesystem::remove(folder_ / "bad.h5");
    const std::string text = sentence([&] { convert(c, options, "bad.h5"); });
    for (const std::string& name : folder_.names())
      EXPECT_TRUE(name.find("bad.h5") == std::string::npos) << name << " was left behind";
    return text;
  }
  std::shared_ptr<const Model> model(const std::string& name = "m.h5") const { return load(folder_ / name); }
  std::vector<float> values(const std::string& node, const std::string& tensor) const {
    return to_float(model()->data().tensors.at(node).at(tensor));
  }
  // Rows [first, first + count) of a published bf16 or f32 tensor.
  static std::vector<float> published(const Checkpoint& c, const std::string& name, Index first,
                                      Index count) {
    const PublishedTensor& tensor = c.tensors.at(name);
    const std::size_t size = tensor.type == "F32" ? 4 : 2;
    const std::size_t cols = tensor.bytes.size() / size / static_cast<std::size_t>(tensor.shape[0]);
    std::vector<float> all;
    for (std::size_t i = static_cast<std::size_t>(first) * cols;
         i < static_cast<std::size_t>(first + count) * cols; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(reinterpret_cast<char*>(&bits) + (4 - size), tensor.bytes.data() + i * size, size);
      all.push_back(std::bit_cast<float>(bits));
    }
    return all;
  }
  std::vector<float> logits(const std::string& name) const {
    Stream stream(model(name));
    return all_logits(stream, Numbers(3).tokens(40, 90), {40});
  }

  const Folder folder_;
};

TEST_F(Convert, EveryFamilyLoadsAndRuns) {
  for (const auto& [name, c] : all_checkpoints()) {
    SCOPED_TRACE(name);
    double last = 0;
    ConvertOptions options;
    options.progress = [&](double fraction) {
      EXPECT_GT(fraction, last);
      last = fraction;
    };
    const Conversion result = convert(c, options);
    EXPECT_EQ(last, 1);
    EXPECT_TRUE(std::string(name).starts_with(result.family));
    const auto loaded = model();
    EXPECT_EQ(loaded->digest(), result.digest);
    EXPECT_EQ(loaded->parameter_count(), result.parameters);
    EXPECT_EQ(loaded->card().family, result.family);
    EXPECT_EQ(loaded->card().name, "source");
    EXPECT_NO_THROW(check_digest(folder_ / "m.h5"));
    int nodes = 0;
    for (const auto& [kind, count] : result.nodes_by_kind) nodes += static_cast<int>(count);
    EXPECT_EQ(nodes, loaded->node_count());
    for (const float v : logits("m.h5")) EXPECT_TRUE(std::isfinite(v));
  }
}

TEST_F(Convert, SlicesOfFusedTensorsLieWhereTheyBelong) {
  const Checkpoint q = tiny_qwen3_5(Tie::tied);
  convert(q);
  const std::string at = "model.language_model.layers.2.linear_attn.", node = "blocks.2.mixer";
  EXPECT_EQ(values(node, "q"), published(q, at + "in_proj_qkv.weight", 0, 48));
  EXPECT_EQ(values(node, "k"), published(q, at + "in_proj_qkv.weight", 48, 48));
  EXPECT_EQ(values(node, "v"), published(q, at + "in_proj_qkv.weight", 96, 160));
  EXPECT_EQ(values(node, "q_conv"), published(q, at + "conv1d.weight", 0, 48));
  EXPECT_EQ(values(node, "k_conv"), published(q, at + "conv1d.weight", 48, 48));
  EXPECT_EQ(values(node, "v_conv"), published(q, at + "conv1d.weight", 96, 160));
  EXPECT_EQ(values(node, "gate"), published(q, at + "in_proj_z.weight", 0, 160));
  EXPECT_EQ(values(node, "beta"), published(q, at + "in_proj_b.weight", 0, 4));
  EXPECT_EQ(values(node, "a"), published(q, at + "in_proj_a.weight", 0, 4));
  EXPECT_EQ(values("blocks.1.mixer", "q"),
            published(q, "model.language_model.layers.1.self_attn.q_proj.weight", 0, 192));
  EXPECT_EQ(values("mtp.fc", "weight"), published(q, "mtp.fc.weight", 0, 40));
  const Checkpoint f = tiny_falcon_h1(Tie::own);
  convert(f);
  EXPECT_EQ(values("blocks.1.mixer.ssm", "in"), published(f, "model.layers.1.mamba.in_proj.weight", 0, 166));
  EXPECT_EQ(values("blocks.1.mixer.ssm", "conv_weight"),
            published(f, "model.layers.1.mamba.conv1d.weight", 0, 112));
  EXPECT_EQ(values("blocks.1.mixer.attention", "k_bias"),
            published(f, "model.layers.1.self_attn.k_proj.bias", 0, 48));
}

TEST_F(Convert, RoundTripChangesNoByte) {
  for (auto& [name, c] : all_checkpoints())
    for (const char* type : {"as it is", "F32", "BF16"}) {
      SCOPED_TRACE(cat(name, " in ", type));
      Checkpoint typed = c;
      if (*type != 'a') typed.retype(type);
      const Conversion result = convert(typed);
      std::filesystem::remove_all(folder_ / "back");
      export_checkpoint(folder_ / "m.h5", folder_ / "back");
      const auto back = parse_safetensors(read_bytes(folder_ / "back/model.safetensors"));
      for (const auto& [tensor, original] : typed.tensors) {
        if (tensor.starts_with("model.visual.")) continue;
        ASSERT_TRUE(back.contains(tensor)) << tensor;
        EXPECT_EQ(back.at(tensor).type, original.type) << tensor;
        EXPECT_EQ(back.at(tensor).shape, original.shape) << tensor;
        EXPECT_EQ(back.at(tensor).bytes, original.bytes) << tensor;
      }
      for (const auto& [tensor, entry] : back) EXPECT_TRUE(typed.tensors.contains(tensor)) << tensor;
      EXPECT_EQ(read_bytes(folder_ / "back/config.json"), read_bytes(folder_ / "source/config.json"));
      EXPECT_EQ(convert_checkpoint(folder_ / "back", folder_ / "again.h5", {}).digest, result.digest);
    }
}

// Not only numbers: what a float register would change survives too.
TEST_F(Convert, OddBitsSurvive) {
  Checkpoint c = tiny_qwen2(Tie::tied);
  std::string& bytes = c.tensors["model.layers.0.mlp.up_proj.weight"].bytes;
  const std::uint16_t odd[] = {0x7f81, 0xff81, 0x7fc1, 0x7f80, 0xff80, 0x8000, 0x0001, 0x8001};
  std::memcpy(bytes.data() + 64, odd, sizeof odd);
  convert(c);
  export_checkpoint(folder_ / "m.h5", folder_ / "back");
  EXPECT_EQ(parse_safetensors(read_bytes(folder_ / "back/model.safetensors"))
                .at("model.layers.0.mlp.up_proj.weight")
                .bytes,
            bytes);
}

TEST_F(Convert, ChangedDtypesRoundTripToo) {
  for (auto& [name, c] : all_checkpoints())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const char* type : {"F32", "BF16", "F16"}) {
        SCOPED_TRACE(cat(name, " from ", type, " to ", name_of(dtype)));
        Checkpoint typed = c;
        typed.retype(type);
        ConvertOptions options;
        options.dtype = dtype;
        const Conversion result = convert(typed, options);
        const auto loaded = model();
        for (const auto& [node, tensors] : loaded->data().tensors)
          for (const auto& [tensor, t] : tensors)
            EXPECT_EQ(t.dtype, t.layout == Layout::panels ? dtype : DType::f32) << node << "." << tensor;
        std::filesystem::remove_all(folder_ / "back");
        export_checkpoint(folder_ / "m.h5", folder_ / "back");
        EXPECT_EQ(convert_checkpoint(folder_ / "back", folder_ / "again.h5", {}).digest, result.digest);
      }
}

TEST_F(Convert, F16NeedsAChoiceAndIsExactInF32) {
  Checkpoint c = tiny_qwen2(Tie::tied);
  c.retype("F16");
  EXPECT_TRUE(has(refusal(c), "F16"));
  ConvertOptions options;
  options.dtype = DType::f32;
  const std::string narrow = convert(c, options).digest;
  c.retype("F32");
  EXPECT_EQ(convert(c).digest, narrow);
  options.dtype = DType::q8;
  EXPECT_TRUE(has(refusal(c, options), "q8"));
  c.tensors["model.norm.weight"] = {"I64", {48}, std::string(48 * 8, '\0')};
  EXPECT_TRUE(has(refusal(c), "I64"));
}

TEST_F(Convert, ShardsAndPrefixesAndNestingMakeNoDifference) {
  Checkpoint c = tiny_qwen3_5(Tie::tied);
  const std::string digest = convert(c).digest;
  c.write_shards(folder_ / "shards", 3);
  EXPECT_EQ(convert_checkpoint(folder_ / "shards", folder_ / "m.h5", {}).digest, digest);
  c.rename_prefix("model.language_model.", "model.");
  EXPECT_EQ(convert(c).digest, digest);
  std::erase_if(c.tensors, [](const auto& t) { return t.first.starts_with("model.visual."); });
  const Json flat = c.config["text_config"];
  c.config = flat;
  c.config["tie_word_embeddings"] = true;
  EXPECT_EQ(convert(c).digest, digest);
  c.tensors["model.language_model.embed_tokens.weight"] = c.tensors["model.embed_tokens.weight"];
  EXPECT_TRUE(has(refusal(c), "both"));
  c.tensors.erase("model.language_model.embed_tokens.weight");
  c.tensors.erase("model.embed_tokens.weight");
  EXPECT_TRUE(has(refusal(c), "neither"));
}

TEST_F(Convert, TyingIsTheTensorsChoiceAndTheFlagMustAgree) {
  for (const Tie tie : {Tie::own, Tie::tied})
    for (Checkpoint c : {tiny_qwen3_5(tie), tiny_falcon_h1(tie), tiny_qwen2(tie)}) {
      SCOPED_TRACE(c.config["model_type"].get<std::string>());
      convert(c);
      EXPECT_EQ(model()->parameter_count(model()->graph().find("head")) > 0, tie == Tie::own);
      c.config["tie_word_embeddings"] = tie == Tie::own;
      EXPECT_TRUE(has(refusal(c), "tie_word_embeddings"));
      c.config.erase("tie_word_embeddings");
      convert(c);
      EXPECT_EQ(model()->parameter_count(model()->graph().find("head")) > 0, tie == Tie::own);
      c.config["tie_word_embeddings"] = "yes";
      EXPECT_TRUE(has(refusal(c), "yes"));
    }
}

TEST_F(Convert, TheDraftHeadIsKeptAside) {
  Checkpoint c = tiny_qwen3_5(Tie::tied);
  const Conversion whole = convert(c);
  EXPECT_TRUE(model()->data().tensors.at("mtp.blocks.0.mixer").contains("q_norm"));
  EXPECT_TRUE(model()->graph().find("mtp.fc") < 0);
  Index kept = 0;
  for (const auto& [name, tensor] : c.tensors)
    if (name.starts_with("mtp.")) kept += element_count(tensor.shape);
  bool told = false;
  for (const std::string& text : whole.notes)
    told = told || (has(text, "mtp") && has(text, std::to_string(kept)));
  EXPECT_TRUE(told);
  const std::vector<float> with = logits("m.h5");
  std::erase_if(c.tensors,
                [](const auto& t) { return t.first.starts_with("mtp.") && t.first != "mtp.norm.weight"; });
  EXPECT_TRUE(has(refusal(c), "mtp."));
  c.tensors.erase("mtp.norm.weight");
  const Conversion without = convert(c);
  EXPECT_EQ(without.parameters, whole.parameters);
  EXPECT_TRUE(same_bits(logits("m.h5"), with));
}

TEST_F(Convert, FoldedMultipliersAreTheSameFunction) {
  for (const Tie tie : {Tie::own, Tie::tied}) {
    const Checkpoint c = tiny_falcon_h1(tie);
    convert(c, {}, "settings.h5");
    ConvertOptions options;
    options.multipliers = Multipliers::folded;
    const Conversion result = convert(c, options, "folded.h5");
    const std::vector<float> a = logits("settings.h5"), b = logits("folded.h5");
    // Products of 40 to 97 terms in three layers, every weight rounded once more: some hundred eps.
    EXPECT_LT(
        relative_error(std::vector<double>(b.begin(), b.end()), std::vector<double>(a.begin(), a.end())),
        300 * 0x1p-24);
    const Json card = model("folded.h5")->card().json;
    EXPECT_EQ(card["notes"]["multipliers"], "folded into the weights");
    EXPECT_EQ(card["blocks"]["hybrid"][0]["branches"]["attention"]["key_multiplier"], 1);
    EXPECT_EQ(card["embed"]["multiplier"] == 1, tie == Tie::own) << "a tied matrix cannot take two factors";
    std::filesystem::remove_all(folder_ / "back");
    export_checkpoint(folder_ / "folded.h5", folder_ / "back");
    EXPECT_EQ(convert_checkpoint(folder_ / "back", folder_ / "again.h5", {}).digest, result.digest);
    EXPECT_TRUE(same_bits(logits("again.h5"), b));
  }
  ConvertOptions options;
  options.multipliers = Multipliers::folded;
  EXPECT_TRUE(has(refusal(tiny_qwen2(Tie::own), options), "no multipliers"));
}

TEST_F(Convert, MissingTokenizersAreRecordedAndFilesKept) {
  const Checkpoint c = tiny_qwen2(Tie::tied);
  convert(c);
  EXPECT_EQ(model()->data().tokenizer.at("plait_tokenizer.json"), R"({"kind": "none"})");
  write_bytes(folder_ / "source/tokenizer.json", "{\"model\": 1}\n");
  write_bytes(folder_ / "source/chat_template.jinja", std::string("{{ a }}\0b", 9));
  write_bytes(folder_ / "source/README.md", "not kept");
  convert_checkpoint(folder_ / "source", folder_ / "m.h5", {});
  const auto files = model()->data().tokenizer;
  EXPECT_EQ(files.size(), 2u);
  EXPECT_EQ(files.at("chat_template.jinja"), std::string("{{ a }}\0b", 9));
  export_checkpoint(folder_ / "m.h5", folder_ / "back");
  EXPECT_EQ(read_bytes(folder_ / "back/tokenizer.json"), "{\"model\": 1}\n");
  EXPECT_EQ(read_bytes(folder_ / "back/chat_template.jinja"), files.at("chat_template.jinja"));
}

TEST_F(Convert, AnyModelLeavesUnderItsOwnNamesAndComesBack) {
  const Json mamba = {{"num_heads", 4}, {"head_dim", 16}, {"state_dim", 16}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    ModelData data = random_data(card_of_kind("mamba2", mamba), 5, dtype);
    const std::string digest = write_model(folder_ / "m.h5", data);
    std::filesystem::remove_all(folder_ / "back");
    export_checkpoint(folder_ / "m.h5", folder_ / "back");
    const auto back = parse_safetensors(read_bytes(folder_ / "back/model.safetensors"));
    EXPECT_EQ(back.at("blocks.0.mixer.in").type, dtype == DType::f32 ? "F32" : "BF16");
    EXPECT_EQ(back.at("blocks.0.mixer.a_log").type, "F32");
    const Conversion result = convert_checkpoint(folder_ / "back", folder_ / "again.h5", {});
    EXPECT_EQ(result.digest, digest);
    EXPECT_EQ(model("again.h5")->card().json, model("m.h5")->card().json)
        << "name and family included, bar none";
    EXPECT_TRUE(has(model("again.h5")->data().tokenizer.at("plait_tokenizer.json"), "bytes"));
  }
}

// A card that was changed by hand is no longer what the published configuration says.
TEST_F(Convert, AChangedCardLeavesInThePlainForm) {
  convert(tiny_qwen2(Tie::tied));
  ModelData data = model()->data();
  data.card["blocks"]["full"][0]["window"] = 7;
  ModelWriter writer(folder_ / "changed.h5", data.card, "");
  for (const auto& [node, tensors] : data.tensors)
    for (const auto& [name, tensor] : tensors) writer.add(node, name, tensor);
  for (const auto& [name, bytes] : data.published) writer.add_published_file(name, bytes);
  writer.finish();
  export_checkpoint(folder_ / "changed.h5", folder_ / "back");
  convert_checkpoint(folder_ / "back", folder_ / "again.h5", {});
  EXPECT_EQ(model("again.h5")->card().json["blocks"]["full"][0]["window"], 7);
}

// ---- Parameter totals of the published sizes, without weights

struct Totals {
  Index graph = 0, aside = 0, published = 0;
};

Totals totals(const Json& config, const std::set<std::string>& names) {
  std::vector<std::string> notes;
  SourceConfig source(config, "test", notes);
  Reading reading = find_family(config, "test").read(source, names);
  reading.card["name"] = "test";
  const Graph graph = expand_card(reading.card, "test");
  Totals t;
  for (const auto& [node, specs] : Model::wanted(graph))
    for (const TensorSpec& spec : specs)
      (graph.aside.contains(node) ? t.aside : t.graph) += element_count(spec.shape);
  for (const auto& [name, shape] : reading.map.published) t.published += element_count(shape);
  return t;
}

TEST(Families, ParameterTotalsOfPublishedModels) {
  const Json qwen3_5 = Json::parse(R"({"model_type": "qwen3_5", "tie_word_embeddings": true, "text_config": {
      "model_type": "qwen3_5_text", "vocab_size": 248320, "hidden_size": 1024, "intermediate_size": 3584,
      "num_hidden_layers": 24, "full_attention_interval": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
      "head_dim": 256, "attn_output_gate": true, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
      "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6,
      "hidden_act": "silu", "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}}})");
  Totals t = totals(qwen3_5, {"model.language_model.embed_tokens.weight", "mtp.fc.weight"});
  EXPECT_EQ(t.graph, 752393024);
  EXPECT_EQ(t.aside, 20452864);
  EXPECT_EQ(t.published, 752393024 + 20452864);
  EXPECT_EQ(totals(qwen3_5, {"model.language_model.embed_tokens.weight"}).published, 752393024);

  const Json falcon = Json::parse(R"({"model_type": "falcon_h1", "vocab_size": 32784, "hidden_size": 1024,
      "intermediate_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 8, "num_key_value_heads": 2,
      "head_dim": 64, "rope_theta": 1e11, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "mamba_d_ssm": 1536,
      "mamba_n_heads": 24, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4,
      "mamba_norm_before_gate": false, "hidden_act": "silu"})");
  t = totals(falcon, {"lm_head.weight"});
  EXPECT_EQ(t.graph, 521411104);
  EXPECT_EQ(t.published, 521411104);

  const Json qwen2 = Json::parse(R"({"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896,
      "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
      "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "hidden_act": "silu"})");
  t = totals(qwen2, {});
  EXPECT_EQ(t.graph, 494032768);
  EXPECT_EQ(t.published, 494032768);
}

// ---- Configurations

TEST_F(Convert, MissingKeysTakeOnlyStatedDefaultsAndSaySo) {
  struct Case {
    Checkpoint checkpoint;
    std::vector<const char*> defaulted, required;
  };
  const std::vector<Case> cases = {
      {tiny_qwen3_5(Tie::own), {"attention_bias", "rms_norm_eps"}, {"head_dim", "linear_key_head_dim"}},
      {tiny_falcon_h1(Tie::own),
       {"key_multiplier", "mlp_multipliers", "mamba_norm_before_gate", "time_step_limit"},
       {"head_dim", "rope_theta", "rms_norm_eps", "mamba_n_groups"}},
      {tiny_qwen2(Tie::own), {"use_sliding_window"}, {"rope_theta", "vocab_size", "num_hidden_layers"}}};
  for (const Case& one : cases) {
    const auto without = [&](const char* key) {
      Checkpoint c = one.checkpoint;
      (c.config.contains("text_config") ? c.config["text_config"] : c.config).erase(key);
      return c;
    };
    for (const char* key : one.defaulted) {
      SCOPED_TRACE(key);
      bool told = false;
      for (const std::string& text : convert(without(key)).notes)
        told = told || has(text, cat("'", key, "'"));
      EXPECT_TRUE(told);
    }
    for (const char* key : one.required) {
      SCOPED_TRACE(key);
      EXPECT_TRUE(has(refusal(without(key)), cat("'", key, "'")));
    }
  }
  Checkpoint c = tiny_qwen3_5(Tie::own);
  Json& text = c.config["text_config"];
  text["rope_parameters"].erase("partial_rotary_factor");
  bool told = false;
  for (const std::string& note : convert(c).notes) told = told || has(note, "partial_rotary_factor");
  EXPECT_TRUE(told);
  text["rope_parameters"].erase("rope_theta");
  EXPECT_TRUE(has(refusal(c), "rope_theta"));
  text["rope_theta"] = 1e7;
  convert(c);
  text.erase("layer_types");
  EXPECT_TRUE(has(refusal(c), "layer_types"));
}

TEST_F(Convert, LayerListsAreDerivedOrAliased) {
  Checkpoint c = tiny_qwen3_5(Tie::own);
  const std::string digest = convert(c).digest;
  Json& text = c.config["text_config"];
  text["layer_types"] = {"mamba", "attention", "mamba", "linear_attention"};
  EXPECT_EQ(convert(c).digest, digest);
  text["layer_types"] = {"mamba", "indexed_attention", "mamba", "mamba"};
  EXPECT_TRUE(has(refusal(c), "indexed_attention"));
  text["layer_types"] = {"mamba", "attention", "mamba"};
  EXPECT_TRUE(has(refusal(c), "3 layers"));
  text.erase("layer_types");
  text["full_attention_interval"] = 2;  // full at 1 and 3: the tensors of layer 3 are of the other kind
  EXPECT_TRUE(has(refusal(c), "layers.3"));
  text["full_attention_interval"] = 0;
  EXPECT_TRUE(has(refusal(c), "full_attention_interval"));
}

TEST_F(Convert, SlidingWindowsFollowTheRuleOrTheList) {
  Checkpoint c = tiny_qwen2(Tie::own);
  c.config["use_sliding_window"] = true;
  c.config["sliding_window"] = 9;
  convert(c);
  const auto window = [&](const char* node) {
    const Graph graph = model()->graph();
    return graph.nodes[static_cast<std::size_t>(graph.find(node))].settings.value("window", 0);
  };
  EXPECT_EQ(window("blocks.1.mixer"), 0);
  EXPECT_EQ(window("blocks.2.mixer"), 9);  // max_window_layers is 2
  c.config["layer_types"] = {"sliding_attention", "full_attention", "full_attention"};
  convert(c);
  EXPECT_EQ(window("blocks.0.mixer"), 9);
  EXPECT_EQ(window("blocks.2.mixer"), 0);
  c.config["use_sliding_window"] = false;
  EXPECT_TRUE(has(refusal(c), "sliding_attention"));
  c.config["use_sliding_window"] = true;
  c.config.erase("sliding_window");
  EXPECT_TRUE(has(refusal(c), "'sliding_window'"));
}

struct Bad {
  const char* key;  // of the configuration, or of text_config
  Json value;
  const char* part;
};

TEST_F(Convert, KeysThatAreUnknownOrOfAnotherModelAreErrors) {
  const auto refuse = [&](const Checkpoint& good, const std::vector<Bad>& cases) {
    for (const Bad& bad : cases) {
      SCOPED_TRACE(cat(bad.key, " = ", bad.value.dump().substr(0, 60)));
      Checkpoint c = good;
      (c.config.contains("text_config") ? c.config["text_config"] : c.config)[bad.key] = bad.value;
      const std::string text = refusal(c);
      EXPECT_TRUE(has(text, bad.part) && has(text, "config.json")) << text;
    }
  };
  refuse(tiny_qwen3_5(Tie::own),
         {{"attn_output_gate", false, "attn_output_gate"},
          {"mamba_ssm_dtype", "bfloat16", "mamba_ssm_dtype"},
          {"mtp_num_hidden_layers", 2, "mtp_num_hidden_layers"},
          {"quantization_config", {{"bits", 4}}, "quantization_config"},
          {"hidden_act", "gelu", "gelu"},
          {"rope_scaling", {{"rope_type", "yarn"}, {"rope_theta", 1e7}}, "yarn"},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e7}, {"factor", 2}}, "factor"},
          {"rope_parameters", 7, "rope_parameters"},
          {"rope_theta", 5, "rope_theta"},  // rope_parameters says 1e7
          {"rope_parameters", {{"rope_theta", 1e7}, {"partial_rotary_factor", 0.3}}, "7 rotary"},
          {"model_type", "qwen3_5_moe_text", "qwen3_5_moe_text"},
          {"num_experts", 8, "num_experts"}});
  refuse(tiny_falcon_h1(Tie::own),
         {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}, "linear"},
          {"mamba_use_mlp", false, "mamba_use_mlp"},
          {"attn_layer_indices", {1}, "attn_layer_indices"},
          {"time_step_limit", {0}, "time_step_limit"},
          {"time_step_limit", {"a", 1}, "time_step_limit"},
          {"ssm_multipliers", {1, 2}, "ssm_multipliers"},
          {"ssm_multipliers", {1, 2, 3, 4, "x"}, "ssm_multipliers"},
          {"mamba_d_head", 7, "mamba_d_ssm"},
          {"layers_block_type", {"hybrid", "mamba", "hybrid"}, "layers_block_type"}});
  refuse(tiny_qwen2(Tie::own), {{"rope_theta", "big", "rope_theta"},
                                {"rope_theta", 0, "rope_theta"},
                                {"layer_types", {"full_attention"}, "layer_types"},
                                {"num_attention_heads", 5, "num_attention_heads"},
                                {"is_encoder_decoder", true, "is_encoder_decoder"},
                                {"logit_softcapping", 30, "logit_softcapping"},
                                {"use_sliding_window", 1, "use_sliding_window"},
                                {"model_type", "llama", "llama"},
                                {"model_type", nullptr, "model_type"},
                                {"model_type", 7, "7"}});
}

TEST_F(Convert, HugeAndSillySizesAreErrorsWithoutMemory) {
  for (const Checkpoint& good : {tiny_qwen3_5(Tie::own), tiny_falcon_h1(Tie::own), tiny_qwen2(Tie::own)})
    for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "head_dim"})
      for (const Json& value : {Json(0), Json(-1), Json(1 << 24), Json(1ll << 40), Json(~0ull), Json(1e300),
                                Json(1.5), Json("4"), Json(true), Json::array(), Json::object()}) {
        Checkpoint c = good;
        (c.config.contains("text_config") ? c.config["text_config"] : c.config)[key] = value;
        SCOPED_TRACE(cat(key, " = ", value.dump()));
        EXPECT_FALSE(refusal(c).empty());
      }
}

TEST_F(Convert, ConfigurationsThatAreNone) {
  const Checkpoint c = tiny_qwen2(Tie::own);
  c.write(folder_ / "source");
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("7"), std::string("{\"model_type\":"),
        std::string(100000, '['), std::string(R"({"model_type":"qwen2","model_type":"qwen2"})"),
        std::string("{\"\xff\":1}")}) {
    write_bytes(folder_ / "source/config.json", text);
    EXPECT_TRUE(
        has(sentence([&] { convert_checkpoint(folder_ / "source", folder_ / "m.h5", {}); }), "config.json"))
        << text.substr(0, 40);
  }
  std::filesystem::remove(folder_ / "source/config.json");
  EXPECT_TRUE(
      has(sentence([&] { convert_checkpoint(folder_ / "source", folder_ / "m.h5", {}); }), "config.json"));
  EXPECT_FALSE(sentence([&] { convert_checkpoint(folder_ / "nowhere", folder_ / "m.h5", {}); }).empty());
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"source"});
}

TEST_F(Convert, PythonsInfinityIsRead) {
  Checkpoint c = tiny_falcon_h1(Tie::own);
  const std::string digest = convert(c).digest;
  c.config["time_step_limit"] = "LIMIT";
  std::string text = c.config.dump();
  text.replace(text.find("\"LIMIT\""), 7, "[0.0, Infinity]");
  write_bytes(folder_ / "source/config.json", text);
  EXPECT_EQ(convert_checkpoint(folder_ / "source", folder_ / "m.h5", {}).digest, digest);
  c.config["time_step_limit"] = {0.01, 0.5};
  convert(c);
  EXPECT_EQ(model()->card().json["blocks"]["hybrid"][0]["branches"]["ssm"]["dt_max"], 0.5);
}

TEST_F(Convert, TensorsMissingSurplusOrMisshapen) {
  for (const auto& [name, good] : all_checkpoints()) {
    SCOPED_TRACE(name);
    std::size_t n = 0;
    for (const auto& [tensor, entry] : good.tensors) {
      if (n++ % 5 != 0 || tensor.starts_with("model.visual.") || tensor.ends_with("embed_tokens.weight") ||
          tensor == "lm_head.weight")
        continue;
      SCOPED_TRACE(tensor);
      Checkpoint c = good;
      c.tensors.erase(tensor);
      EXPECT_TRUE(has(refusal(c), tensor));
      c.add(tensor, {entry.shape[0] + 1, 3}, "F32");
      const std::string text = refusal(c);
      EXPECT_TRUE(has(text, tensor) && has(text, to_string(entry.shape))) << text;
    }
    Checkpoint c = good;
    c.add("model.layers.0.mystery.weight", {3}, "F32");
    EXPECT_TRUE(has(refusal(c), "model.layers.0.mystery.weight"));
  }
}

TEST_F(Convert, DamagedModelFilesDoNotLeave) {
  convert(tiny_qwen2(Tie::own));
  ModelData data = model()->data();
  const auto write = [&](const std::string& config, const std::string& types) {
    ModelWriter writer(folder_ / "bad.h5", data.card, "");
    for (const auto& [node, tensors] : data.tensors)
      for (const auto& [name, tensor] : tensors) writer.add(node, name, tensor);
    writer.add_published_file("config.json", config);
    writer.add_published_file("tensors.json", types);
    writer.finish();
  };
  const std::string config = data.published.at("config.json"), types = data.published.at("tensors.json");
  for (const auto& [bad_config, bad_types] : {std::pair(std::string("{"), types),
                                              {config, "["},
                                              {config, "[]"},
                                              {R"({"model_type":"qwen9"})", types}}) {
    write(bad_config, bad_types);
    EXPECT_TRUE(has(sentence([&] { export_checkpoint(folder_ / "bad.h5", folder_ / "back"); }), "bad.h5"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "back"));
  }
}

// ---- Writing

TEST_F(Convert, ExportNeedsAnAbsentOrEmptyFolder) {
  convert(tiny_qwen2(Tie::own));
  std::filesystem::create_directory(folder_ / "empty");
  export_checkpoint(folder_ / "m.h5", folder_ / "empty/");
  EXPECT_TRUE(std::filesystem::exists(folder_ / "empty/model.safetensors"));
  EXPECT_TRUE(has(sentence([&] { export_checkpoint(folder_ / "m.h5", folder_ / "empty"); }), "not empty"));
  EXPECT_TRUE(has(sentence([&] { export_checkpoint(folder_ / "m.h5", folder_ / "m.h5"); }), "is a file"));
  EXPECT_FALSE(sentence([&] { export_checkpoint(folder_ / "m.h5", folder_ / "no/where"); }).empty());
  EXPECT_EQ(folder_.names(), (std::vector<std::string>{"empty", "m.h5", "source"}));
}

TEST_F(Convert, AFullDiskLeavesNothing) {
  convert(tiny_falcon_h1(Tie::own));
  const auto names = folder_.names();
  for (const rlim_t limit : {rlim_t{1} << 14, rlim_t{1} << 18}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit bytes{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &bytes);
      const bool in = sentence([&] { convert_checkpoint(folder_ / "source", folder_ / "new.h5", {}); }) != "";
      const bool out = sentence([&] { export_checkpoint(folder_ / "m.h5", folder_ / "back"); }) != "";
      std::_Exit(in && out ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_EQ(folder_.names(), names);
  }
}

TEST(TemporaryFolder, GoesAwayUnlessCommitted) {
  const Folder folder;
  {
    TemporaryFolder temporary(folder / "x");
    write_bytes(temporary.add("a"), "1");
    EXPECT_NE(sentence([&] { temporary.add("a"); }), "");
  }
  EXPECT_TRUE(folder.names().empty());
  TemporaryFolder temporary(folder / "x");
  write_bytes(temporary.add("a"), "1");
  temporary.commit();
  EXPECT_EQ(read_bytes(folder / "x/a"), "1");
}

}  // namespace
}  // namespace plait
