#include "tools/ablate/spec.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "runtime/base/error.h"
#include "tests/ablate/models.h"
#include "tools/ablate/plan.h"

namespace plait::ablate {
namespace {

// The example of ablation-and-streaming.md section 8.
constexpr const char* kExample = R"(model: qwen35-0.8b.h5
baseline: {mode: exact}
reference: {data: wikitext2-valid.txt, tokens: 65536}       # for mean / resample
conditions:
  - {id: lin_all,  site: mixer,  where: {kind: gated_delta_net},  op: zero}
  - {id: att_all,  site: mixer,  where: {kind: softmax_attention}, op: zero}
  - {id: noerase,  site: erase,  where: {kind: gated_delta_net, layers: 0-7}, op: off, phase: always}
  - {id: reset4k,  site: state,  where: {kind: gated_delta_net},  op: reset, at: 4096}
sweep:    {sites: [mixer.zero, mlp.zero, layer.skip], order: wavefront}   # paths above are relative to the spec
controls: {for: [lin_all, att_all], draws: 199, match: [count, params, depth]}
score:    {nll: [wikitext2-test.txt], tasks: [arc_challenge.jsonl, hellaswag.jsonl], lengths: [128, 2048, 32768]}
stats:    {cluster: document, boot: 10000, adjust: {confirmatory: holm, sweep: bh}}
)";

Study study_of(const std::string& yaml) { return parse_study(read_document(yaml, "s.yaml"), ""); }

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string spec_error(const std::string& yaml) {
  return error_of([&] { study_of(yaml); });
}

std::vector<std::string> nodes(const EditList& edits) {
  std::vector<std::string> names;
  for (const Edit& edit : edits) names.push_back(edit.node);
  return names;
}

EditList edits_in(const Model& model, const std::string& yaml) {
  return edits_of(parse_parts(read_document(yaml, "e.yaml")), model);
}

using Names = std::vector<std::string>;

TEST(Spec, TheExampleOfTheSpecification) {
  const Study s = parse_study(read_document(kExample, "study/s.yaml"), "study");
  EXPECT_EQ(s.model, "study/qwen35-0.8b.h5");
  EXPECT_EQ(s.baseline, "exact");
  EXPECT_EQ(s.reference, (Reference{"study/wikitext2-valid.txt", 65536}));
  ASSERT_EQ(s.conditions.size(), 4u);
  const Part& erase = s.conditions[2].parts.at(0);
  EXPECT_EQ(erase.alias, "erase.off");
  EXPECT_EQ(erase.kind, "gated_delta_net");
  EXPECT_EQ(erase.layers, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(erase.options, (Json{{"phase", "always"}}));
  EXPECT_EQ(s.conditions[3].parts.at(0).options["tokens"], (Json{4096, nullptr}));
  ASSERT_EQ(s.designs.size(), 3u);
  EXPECT_EQ(s.designs[1].design, "single");
  EXPECT_EQ(s.designs[1].site, "mlp.zero");
  EXPECT_EQ(s.controls.targets, (Names{"lin_all", "att_all"}));
  EXPECT_EQ(s.controls.draws, 199);
  EXPECT_EQ(s.controls.match, (std::vector<Match>{Match::count, Match::params, Match::depth}));
  EXPECT_EQ(s.score.tasks, (std::vector<Json>{"study/arc_challenge.jsonl", "study/hellaswag.jsonl"}));
  EXPECT_EQ(s.score.lengths, (std::vector<Index>{128, 2048, 32768}));
  EXPECT_EQ(s.stats.boot, 10000);
  EXPECT_EQ(s.stats.confirmatory, "holm");
}

TEST(Spec, TheExampleOnAModel) {
  const auto model = testing::sequential_model();
  const Plan plan = plan_of(study_of(kExample), *model);
  const Condition& linear = plan.conditions.at(1);
  EXPECT_EQ(linear.id, "lin_all");
  EXPECT_EQ(linear.layers, (std::vector<int>{0, 1, 2, 4, 5, 6, 8, 9, 10}));
  EXPECT_EQ(linear.component_type, "gated_delta_net");
  EXPECT_EQ(linear.n_layers_removed, 9);
  const Condition& erase = plan.conditions.at(3);
  EXPECT_EQ(nodes(erase.edits), (Names{"blocks.0.mixer", "blocks.1.mixer", "blocks.2.mixer", "blocks.4.mixer",
                                       "blocks.5.mixer", "blocks.6.mixer"}));
  EXPECT_EQ(erase.edits[0].site, Site::erase);
  EXPECT_EQ(erase.edits[0].op, Operator::off);
  EXPECT_EQ(erase.params_removed, 0);
  const Edit& reset = plan.conditions.at(4).edits.at(0);
  EXPECT_EQ(reset.op, Operator::reset);
  EXPECT_EQ(reset.begin, 4096);
  EXPECT_EQ(reset.end, -1);
  check_edits(plan, *model);
}

TEST(Spec, RoundTrip) {
  const std::string more = R"(
name: more
seed: 12345678901234
conditions:
  - id: forget
    label: forget everything before token 64
    edits:
      - {site: state, op: reset, at: 64, conv: reset}
      - {site: attn, op: sink_mask, value: 64}
      - {where: blocks.0.mixer/decay, operator: one, heads: [1]}
  - {id: half, site: mixer, op: zero, alpha: 0.5, where: {layers: [0, 2-3], tokens: [3, null]}}
designs:
  - {design: dose, site: mixer.zero, options: {phase: after_prefix, prefix_tokens: 8}}
  - {design: window, sites: [layer.skip, mlp], sizes: 2}
  - {design: shapley, site: layer, permutations: 8}
  - {design: pair, site: mixer.zero, among: [blocks.0.mixer, blocks.3.mixer]}
controls: {for: half, match: depth, tolerance: 0.1}
score: {nll: a.txt, scored: 0.05, documents: "jsonl:text"}
plan: {confirmatory: [half], stop_rule: anytime}
)";
  for (const std::string& text : {std::string(kExample), more}) {
    const Study study = study_of(text);
    const Json json = to_json(study);
    EXPECT_EQ(parse_study({"run.json", json, {}}, ""), study) << json.dump(1);
    EXPECT_EQ(parse_study(read_document(json.dump(), "run.json"), "folder/").conditions, study.conditions);
  }
  for (const char* name : {"hybrid2026", "full"}) {
    const Study study = study_named(name, *testing::parallel_model());
    EXPECT_EQ(parse_study({"run.json", to_json(study), {}}, ""), study);
  }
}

TEST(Spec, APhaseIsAFactor) {
  const Study study = study_of(
      "designs:\n"
      "  - {design: group, sites: [mixer.zero, mlp.zero], phases: [always, prefill, decode], options: "
      "{shadow: off}}\n"
      "  - {design: group, site: mixer.zero, options: {shadow: off}}\n");
  ASSERT_EQ(study.designs.size(), 7u);
  EXPECT_EQ(study.designs[0], study.designs[6]);
  EXPECT_EQ(study.designs[1].options, (Json{{"shadow", "off"}, {"phase", "prefill"}}));
  EXPECT_EQ(study.designs[2].site, "mixer.zero");
  EXPECT_EQ(study.designs[5].site, "mlp.zero");
  EXPECT_EQ(study.designs[5].options, (Json{{"shadow", "off"}, {"phase", "decode"}}));
}

TEST(Spec, ConditionsRoundTrip) {
  const Plan plan = plan_of(study_of(kExample), *testing::sequential_model());
  for (const Condition& condition : plan.conditions)
    EXPECT_EQ(parse_condition(Json::parse(to_json(condition).dump())), condition);
  EXPECT_THROW(parse_condition(Json{{"id", "x"}}), Error);
}

TEST(Spec, MistakesAreNamedWithTheirLine) {
  const std::string start = "conditions:\n  - {id: a, site: mixer, op: zero}\n";
  const std::vector<std::pair<std::string, Names>> cases = {
      {"conditoins: []\n", {"'s.yaml', line 1", "unknown key 'conditoins'", "conditions"}},
      {start + "seed: -1\n", {"line 3", "'seed'", "from 0", "-1"}},
      {start + "baseline: {mode: quick}\n", {"line 3", "'mode' of 'baseline'", "exact, fast", "quick"}},
      {start + "controls: {for: [a], draws: 5}\n", {"line 3", "'draws'", "199", "5"}},
      {start + "controls: {for: [a], match: [size]}\n", {"line 3", "count, params, depth", "size"}},
      {start + "controls: {for: [a], match: [count, count]}\n", {"line 3", "count", "second time"}},
      {start + "controls: {draws: 199}\n", {"line 3", "lacks the key 'for'"}},
      {start + "score: {lengths: [128, many]}\n", {"line 3", "entry 1 of 'lengths'", "many"}},
      {start + "score: {scored: 5}\n", {"line 3", "'scored'", "5"}},
      {start + "score: {documents: page}\n", {"line 3", "jsonl:FIELD", "page"}},
      {start + "stats: {boot: 10}\n", {"line 3", "'boot'", "100", "10"}},
      {start + "stats:\n  adjust: {sweep: bonferroni}\n", {"line 4", "holm, bh, none", "bonferroni"}},
      {start + "  - {id: a, site: mlp, op: zero}\n", {"line 3", "'a'", "twice"}},
      {start + "  - {id: baseline, site: mlp, op: zero}\n", {"line 3", "baseline", "twice"}},
      {start + "  - {id: 'b c', site: mlp, op: zero}\n", {"line 3", "'id'", "b c"}},
      {start + "  - {id: b, site: mixer, op: zap}\n", {"line 3", "mixer.zap", "mixer.zero"}},
      {start + "  - {id: b, site: mixre, op: zero}\n", {"line 3", "mixre.zero", "mixer, mlp, branch"}},
      {start + "  - {id: b, site: mixer, op: zero, at: 4.5}\n", {"line 3", "'at'", "4.5"}},
      {start + "  - {id: b, site: layer, op: skip, at: 4}\n", {"line 3", "layer.skip", "no 'at'"}},
      {start + "  - {id: b, site: state, op: reset}\n", {"line 3", "state.reset", "'at'"}},
      {start + "  - {id: b, site: attn, op: window}\n", {"line 3", "attn.window", "'value'"}},
      {start + "  - {id: b, site: mixer, op: zero, alpha: 2}\n", {"line 3", "'alpha'", "2"}},
      {start + "  - {id: b, site: mixer, op: zero, phase: late}\n",
       {"line 3", "phase 'late'", "after_prefix"}},
      {start + "  - {id: b, site: mixer, op: zero, strenth: 1}\n", {"line 3", "unknown key 'strenth'"}},
      {start + "  - {id: b, site: mixer, op: zero, where: {kinds: x}}\n",
       {"line 3", "unknown key 'kinds'", "kind, layers"}},
      {start + "  - {id: b, site: mixer, op: zero, where: {layers: 7-0}}\n", {"line 3", "'layers'", "7-0"}},
      {start + "  - {id: b, site: mixer, op: zero, where: {layers: 0-99999999}}\n", {"line 3", "0-99999999"}},
      {start + "  - {id: b, site: mixer, op: zero, where: {layers: []}}\n",
       {"line 3", "'layers'", "at least one"}},
      {start + "  - {id: b, site: mixer, op: zero, operator: one}\n", {"line 3", "no 'operator'"}},
      {start + "  - {id: b, site: mixer, op: zero, where: {heads: [0]}, heads: [1]}\n",
       {"line 3", "'heads'", "twice"}},
      {start + "  - {id: b, edits: []}\n", {"line 3", "'b'", "no edits"}},
      {start + "  - {id: b, edits: [{wher: x}]}\n", {"line 3", "neither 'operator'"}},
      {start + "  - {id: b, edits: [{where: x, operator: zap}]}\n", {"line 3", "operator 'zap'"}},
      {start + "designs: [{design: singel, site: mixer.zero}]\n", {"line 3", "single, group", "singel"}},
      {start + "designs: [{design: single}]\n", {"line 3", "names no site"}},
      {start + "designs: [{design: shapley, site: layer, permutations: 7}]\n", {"line 3", "even", "7"}},
      {start + "designs: [{design: dose, site: mixer, alphas: [0]}]\n", {"line 3", "'alphas'", "0"}},
      {start + "designs: [{design: group, site: mixer, options: {where: x}}]\n", {"line 3", "no 'where'"}},
      {start + "designs: [{design: group, site: mixer, phases: [prefil]}]\n", {"line 3", "phase", "prefil"}},
      {start + "designs: [{design: group, site: mixer, phases: []}]\n", {"line 3", "no phase"}},
      {start + "designs: [{design: group, site: mixer, phases: [decode], options: {phase: prefill}}]\n",
       {"line 3", "'phases'"}},
      {start + "sweep: {sites: [mixer.zero], order: random}\n", {"line 3", "wavefront", "random"}},
      {start + "sweep: {sites: [attn.window]}\n", {"line 3", "attn.window", "'value'"}},
      {"seed: 1\n", {"line 1", "'conditions', 'sweep', 'designs' or 'remembrance'"}},
      {"- 1\n", {"line 1", "must be an object"}},
  };
  for (const auto& [text, parts] : cases)
    for (const std::string& part : parts)
      EXPECT_NE(spec_error(text).find(part), std::string::npos)
          << text << "\n  " << spec_error(text) << "\n  lacks " << part;
}

TEST(Spec, WhatOnlyTheModelCanTell) {
  const auto model = testing::sequential_model();
  const auto error = [&](const std::string& entry) {
    return error_of([&] { plan_of(study_of("conditions: [" + entry + "]\n"), *model); });
  };
  EXPECT_NE(error("{id: b, site: mixer, op: zero, where: {kind: mamba2}}")
                .find("its kinds are gated_delta_net, softmax_attention"),
            std::string::npos);
  EXPECT_NE(error("{id: b, site: mixer, op: zero, where: {layers: 12}}")
                .find("layer 12, but the model has layers 0 to 11"),
            std::string::npos);
  EXPECT_NE(error("{id: b, site: skip_d, op: zero}").find("no layer has skip_d/zero"), std::string::npos);
  EXPECT_NE(error("{id: b, site: erase, op: off, where: {layers: 3}}").find("no place in layers 3 to 3"),
            std::string::npos);
  EXPECT_NE(error("{id: b, site: erase, op: off, where: {kind: softmax_attention}}").find("condition 'b'"),
            std::string::npos);
  const auto more = [&](const std::string& rest) {
    return error_of(
        [&] { plan_of(study_of("conditions: [{id: b, site: mixer, op: zero}]\n" + rest), *model); });
  };
  EXPECT_NE(more("controls: {for: [c]}").find("names 'c'"), std::string::npos);
  EXPECT_NE(more("plan: {confirmatory: [c]}").find("names 'c'"), std::string::npos);
}

TEST(Aliases, NameThingsOfTheVocabulary) {
  const Json needed = {{"value", 1}, {"keys", {0, 1}}, {"tokens", {0, 1}}, {"to", "bf16"}};
  std::set<std::string> names;
  for (const Alias& alias : aliases()) {
    EXPECT_TRUE(names.insert(alias.name).second) << alias.name;
    EXPECT_EQ(find_alias(alias.name).op, alias.op);
    EXPECT_NO_THROW(edit_at({alias, needed}, "x")) << alias.name;
  }
  for (const char* name : {"layer.skip",          "mixer.zero",         "mlp.zero",       "branch.zero",
                           "branch.zero_rescale", "mixer.mean",         "mlp.resample",   "branch.noise",
                           "mixer.scale",         "head.zero",          "attn.knockout",  "attn.window",
                           "attn.sink_mask",      "attn.nope",          "attn.pos_shift", "state.zero_read",
                           "state.reset",         "state.reset_every",  "state.freeze",   "state.no_write",
                           "state.no_read",       "state.delete_write", "state.swap",     "state.stale",
                           "state.rank",          "state.noise",        "state.cast",     "decay.one",
                           "decay.const",         "decay.zero",         "erase.off",      "write.const",
                           "conv.identity",       "conv.current_tap",   "gate.one",       "gate.mean",
                           "qk_norm.off",         "skip_d.zero",        "norm.freeze",    "patch.residual"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_EQ(find_alias("mixer").name, "mixer.zero");
  EXPECT_EQ(find_alias("layer").name, "layer.skip");
  EXPECT_EQ(find_alias("window.set").site, "window");
  EXPECT_THROW(find_alias("output.zero"), Error);
}

TEST(Aliases, TakeTheirNumbersFromARunWhereNoneAreGiven) {
  const auto reference = [](const char* name, const Json& options) {
    return edit_at({find_alias(name), options}, "x").reference;
  };
  for (const char* name : {"decay.const", "write.const", "gate.mean", "head.mean", "head.resample"}) {
    EXPECT_EQ(reference(name, Json::object()), kReference) << name;
    EXPECT_EQ(reference(name, {{"values", {1, 2}}}), "") << name;
  }
  EXPECT_EQ(reference("norm.freeze", Json::object()), kClean);
  EXPECT_EQ(reference("norm.freeze", {{"values", {1, 2}}}), "");
  EXPECT_EQ(reference("norm.freeze", {{"reference", "other"}}), "other");
  EXPECT_EQ(reference("head.noise", {{"value", 1}}), "");
}

TEST(Aliases, AtBecomesARange) {
  const auto model = testing::sequential_model();
  const auto range = [&](const std::string& site, const std::string& op) {
    const EditList edits = edits_in(*model, "- {site: " + site + ", op: " + op + ", at: 7}");
    return std::pair(edits.at(0).begin, edits.at(0).end);
  };
  EXPECT_EQ(range("state", "reset"), std::pair(Index{7}, Index{-1}));
  EXPECT_EQ(range("state", "freeze"), std::pair(Index{8}, Index{-1}));
  EXPECT_EQ(range("state", "delete_write"), std::pair(Index{7}, Index{8}));
  EXPECT_EQ(range("mixer", "zero"), std::pair(Index{7}, Index{8}));
}

TEST(Parts, PlacesOfAModel) {
  const auto sequential = testing::sequential_model(), parallel = testing::parallel_model();
  EXPECT_EQ(nodes(edits_in(*sequential, "- {site: layer, op: skip, where: {layers: [0, 10-11]}}")),
            (Names{"blocks.0", "blocks.10", "blocks.11"}));
  EXPECT_EQ(nodes(edits_in(*sequential, "- {site: layer, op: skip, where: {kind: softmax_attention}}")),
            (Names{"blocks.3", "blocks.7", "blocks.11"}));
  EXPECT_EQ(nodes(edits_in(*sequential, "- {site: mlp, op: zero, where: {kind: softmax_attention}}")),
            (Names{"blocks.3.mlp", "blocks.7.mlp", "blocks.11.mlp"}));
  // A mixer of one kind is a branch where blocks are parallel.
  EXPECT_EQ(nodes(edits_in(*parallel, "- {site: mixer, op: zero, where: {layers: 2}}")),
            (Names{"blocks.2.mixer"}));
  EXPECT_EQ(nodes(edits_in(*parallel, "- {site: mixer, op: zero, where: {kind: mamba2, layers: 2}}")),
            (Names{"blocks.2.mixer.ssm"}));
  EXPECT_EQ(nodes(edits_in(*parallel, "- {site: branch, op: zero, where: {layers: 1}}")),
            (Names{"blocks.1.mixer.attention", "blocks.1.mixer.ssm"}));
  // Behind a branch's factor, where that is a node; its inner sites stay on the layer.
  const auto scaled = testing::scaled_model();
  EXPECT_EQ(
      nodes(edits_in(*scaled, "- {site: mixer, op: scale, value: 0.5, where: {kind: mamba2, layers: 2}}")),
      (Names{"blocks.2.mixer.ssm_out"}));
  EXPECT_EQ(nodes(edits_in(*scaled, "- {site: decay, op: one, where: {layers: 2}}")),
            (Names{"blocks.2.mixer.ssm"}));
}

TEST(Parts, EditsWrittenOutNeedNoBlocks) {
  const EditList edits =
      edits_in(*testing::sequential_model(), "- {where: final_norm, operator: scale, value: 2}");
  EXPECT_EQ(edits.at(0).node, "final_norm");
  EXPECT_EQ(edits.at(0).value, 2);
}

TEST(Components, SizesAddUp) {
  for (const auto& model :
       {testing::sequential_model(), testing::parallel_model(), testing::scaled_model()}) {
    const Components all = components_of(*model);
    Index blocks = 0, outside = 0;
    for (const Component& layer : all.layers) blocks += layer.parameters;
    for (int node = 0; node < model->node_count(); ++node)
      if (node_component(*model, node).block < 0) outside += model->parameter_count(node);
    EXPECT_EQ(blocks + outside, model->parameter_count());
    for (int b = 0; b < all.blocks; ++b) {
      const auto at = static_cast<std::size_t>(b);
      EXPECT_EQ(all.layers[at].parameters, all.mixers[at].parameters + all.mlps[at].parameters);
      EXPECT_EQ(all.layers[at].kinds, all.mixers[at].kinds);
      EXPECT_EQ(all.layers[at].kv_bytes, all.mixers[at].kv_bytes);
    }
  }
}

TEST(Components, OfParallelBlocks) {
  for (const auto& model : {testing::parallel_model(), testing::scaled_model()}) {
    const Components all = components_of(*model);
    EXPECT_TRUE(all.parallel());
    ASSERT_EQ(all.branches.size(), 12u);
    const Component& attention = all.branches[0];
    const Component& ssm = all.branches[1];
    EXPECT_EQ(attention.kinds, (Names{"softmax_attention"}));
    EXPECT_EQ(ssm.kinds, (Names{"mamba2"}));
    EXPECT_EQ(attention.kv_bytes, 2 * 2 * 8 * 4);  // keys and values, 2 heads of 8, f32
    EXPECT_EQ(ssm.kv_bytes, 0);
    EXPECT_GE(ssm.state_bytes, 2 * 8 * 8 * 4);  // 2 heads of 8 x 8
    EXPECT_EQ(all.mixers[0].kinds, (Names{"mamba2", "softmax_attention"}));
  }
  EXPECT_EQ(components_of(*testing::parallel_model()).branches[1].multiplier, 0.25);
  EXPECT_EQ(components_of(*testing::scaled_model()).branches[1].multiplier, 1);
  EXPECT_FALSE(components_of(*testing::sequential_model()).parallel());
}

TEST(Yaml, PlainScalarsAreThoseOfTheCoreSchema) {
  const Json json =
      read_document(
          "{a: off, b: yes, c: 0-7, d: 0x1F, e: 0o17, f: -3, g: 1e3, h: .5, i: ~, j: true, k: '3',\n"
          " l: \"a\\tb\", m: +2, n: 1., o: 1-2, p: null, q: Null}",
          "x.yaml")
          .json;
  EXPECT_EQ(json, (Json{{"a", "off"},
                        {"b", "yes"},
                        {"c", "0-7"},
                        {"d", 31},
                        {"e", 15},
                        {"f", -3},
                        {"g", 1000.0},
                        {"h", 0.5},
                        {"i", nullptr},
                        {"j", true},
                        {"k", "3"},
                        {"l", "a\tb"},
                        {"m", 2},
                        {"n", 1.0},
                        {"o", "1-2"},
                        {"p", nullptr},
                        {"q", nullptr}}));
  EXPECT_TRUE(json["f"].is_number_integer());
}

TEST(Yaml, AliasesAreCopies) {
  EXPECT_EQ(read_document("- &a {x: [1, 2]}\n- *a\n- {y: *a}\n", "x.yaml").json,
            Json::parse(R"([{"x": [1, 2]}, {"x": [1, 2]}, {"y": {"x": [1, 2]}}])"));
}

TEST(Yaml, WhatIsRefused) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += cat("a", i, ": &a", i, " [");
    for (int j = 0; j < 10; ++j) bomb += cat(j ? ", " : "", "*a", i - 1);
    bomb += "]\n";
  }
  const std::vector<std::pair<std::string, Names>> cases = {
      {bomb, {"larger than 16 MiB"}},
      {"a: &a [1, *a]\n", {"line 1", "inside what it names"}},
      {"a: 1\nb: 2\na: 3\n", {"line 3", "'a' is given twice"}},
      {"a: 1\n---\nb: 2\n", {"second document"}},
      {"a: .inf\n", {"line 1", ".inf", "not finite"}},
      {"a: 99999999999999999999\n", {"line 1", "99999999999999999999", "64 bits"}},
      {"a: 1e999\n", {"line 1", "1e999"}},
      {"\na: !!python/object:x {}\n", {"line 2", "tag", "python"}},
      {"{[1, 2]: 3}\n", {"line 1", "key is a list"}},
      {"a: [1\nb: 2\n", {"not valid YAML", "line"}},
      {"a: *b\n", {"not valid YAML"}},
      {"", {"empty"}},
      {std::string("a: \0", 4), {"NUL"}},
      {"a: \"\\0\"\n", {"NUL"}},
      {"a: \xff\n", {"UTF-8"}},
      {std::string(100, '[') + std::string(100, ']'), {"nested more than 64"}},
      {std::string(100000, '['), {"line 1"}},
      {std::string((4 << 20) + 1, ' '), {"at most"}},
  };
  for (const auto& [text, parts] : cases)
    for (const std::string& part : parts) {
      const std::string error = error_of([&] { read_document(text, "x.yaml"); });
      EXPECT_NE(error.find(part), std::string::npos)
          << text.substr(0, 80) << "\n  " << error << "\n  lacks " << part;
    }
}

TEST(Documents, AreReadByTheirNames) {
  EXPECT_EQ(read_document(R"({"a": 1})", "x.json").json, (Json{{"a", 1}}));
  EXPECT_EQ(read_document("{a: 1}", "x.yml").json, (Json{{"a", 1}}));
  EXPECT_EQ(read_document(R"( [1])", "-").json, (Json{1}));
  EXPECT_EQ(read_document("a: 1", "-").json, (Json{{"a", 1}}));
  EXPECT_THROW(read_document("{a: 1}", "x.json"), Error);
  EXPECT_NE(error_of([] { read_document(R"({"a": 1, "a": 2})", "x.json"); }), "no error");
}

TEST(Csv, CellsAreQuotedWhereTheyNeedIt) {
  EXPECT_EQ(csv_line({"a", "b,c", "d\"e", "", "f\ng"}), "a,\"b,c\",\"d\"\"e\",,\"f\ng\"\n");
  EXPECT_EQ(shortest(0.1), "0.1");
  EXPECT_EQ(shortest(1), "1");
}

}  // namespace
}  // namespace plait::ablate
