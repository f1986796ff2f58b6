// C1 to C8: what must be equal, bit for bit.
#include <algorithm>
#include <array>
#include <set>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "runtime/run/wavefront.h"
#include "tools/ablate/checking.h"
#include "tools/ablate/reduced_model.h"
#include "tools/ablate/sites.h"
#include "tools/equalities.h"

namespace plait::ablate {
namespace {

using Plan = std::shared_ptr<const EditPlan>;
// SHA-256 of the logits after each of some tokens: rows of a large vocabulary need not be held to be
// compared.
using RowDigests = std::vector<std::string>;

constexpr Index kFewTokens = 16;        // of checks with a variant per node
constexpr Index kMostTokens = 4200;     // of C5
constexpr std::size_t kConditions = 7;  // sampled by C4, besides the largest

std::string digest_of(const float* row, Index vocab) {
  Digest digest;
  digest.add(row, static_cast<std::size_t>(vocab) * sizeof(float));
  return digest.hex();
}

Finding finding_of(const EqualityCheck& check, const std::string& detail) {
  return check.passed ? pass(detail) : refute(cat(check.name, ": ", check.detail));
}

Edit edit_of(const std::string& node, Site site, Operator op) {
  Edit edit;
  edit.node = node;
  edit.site = site;
  edit.op = op;
  return edit;
}

StreamOptions plain(const Subject& subject) {
  StreamOptions options;
  options.compute = subject.compute;
  return options;
}

// Why a list of edits cannot be placed in the model; empty if it can.
std::string refusal(const Model& model, const Edit& edit) {
  try {
    const EditPlan plan(model, {edit});
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

std::vector<Index> spread(Index tokens) {
  std::set<Index> rows = {0, tokens / 2, tokens - 1};
  return {rows.begin(), rows.end()};
}

// A sequence alone, under a plan (null = none).
RowDigests solo(const Model& model, const Compute& compute, const Plan& plan, std::span<const Token> text,
                const std::vector<Index>& scored) {
  Sequence sequence(model);
  sequence.plan = plan;
  const Item item{&sequence, text, Want::all};
  RunOptions options;
  options.compute = compute;
  RowDigests rows;
  run_batch(model, {&item, 1}, options, [&](std::size_t, Index position, std::span<const float> row) {
    if (std::binary_search(scored.begin(), scored.end(), position))
      rows.push_back(digest_of(row.data(), static_cast<Index>(row.size())));
  });
  return rows;
}

// All plans in one walk; plans[0] is the baseline.
std::vector<RowDigests> together(const Subject& subject, const std::vector<Plan>& plans,
                                 std::span<const Token> text, const std::vector<Index>& scored) {
  Wavefront wavefront(subject.model, plans, {subject.compute, subject.memory});
  std::vector<RowDigests> all(plans.size(), RowDigests(scored.size()));
  const VariantDocument document{text, scored, nullptr};
  wavefront.run({&document, 1}, [&](const VariantLogits& at) {
    const auto which = std::lower_bound(scored.begin(), scored.end(), at.position) - scored.begin();
    for (std::size_t r = 0; r < at.variants.size(); ++r) {
      const std::string digest = digest_of(at.logits.row(static_cast<Index>(r)), at.logits.cols);
      for (const int v : at.variants[r])
        all[static_cast<std::size_t>(v)][static_cast<std::size_t>(which)] = digest;
    }
  });
  return all;
}

// Where two runs part: "after token 12"; empty if they do not.
std::string difference(const RowDigests& a, const RowDigests& b, const std::vector<Index>& scored) {
  for (std::size_t r = 0; r < scored.size(); ++r)
    if (r >= a.size() || r >= b.size() || a[r] != b[r]) return cat("after token ", scored[r]);
  return {};
}

}  // namespace

Check check_empty_intervention(const Subject& subject) {
  return timed("C1", "an empty intervention changes nothing", [&] {
    const auto text = text_of(subject, short_length(*subject.model));
    Stream edited(subject.model, plain(subject));
    edited.sequence().plan = std::make_shared<const EditPlan>(*subject.model, EditList{});
    return finding_of(Equalities(subject.model, text, plain(subject)).same("empty plan", std::move(edited)),
                      cat("a plan without edits leaves ", text.size(),
                          " rows of logits and the final state as they are, bit for bit"));
  });
}

namespace {

// Every operator of the executor on every group and node, and every inner site of every layer.
EditList edits_of_strength_zero(const Model& model) {
  EditList edits;
  const auto add = [&](const std::string& node, Site site, Operator op) {
    edits.push_back(edit_of(node, site, op));
    edits.back().strength = 0;
  };
  constexpr std::array rows = {Operator::zero,     Operator::scale, Operator::mean,
                               Operator::resample, Operator::noise, Operator::patch};
  for (const Group& group : model.graph().groups) {
    for (const Operator op : {Operator::skip, Operator::zero_rescale}) add(group.name, Site::output, op);
    for (const Operator op : rows) {
      add(group.name, Site::output, op);
      add(group.name, Site::residual, op);
    }
  }
  for (int n = 0; n < model.node_count(); ++n) {
    const std::string& name = model.graph().nodes[static_cast<std::size_t>(n)].name;
    for (const Operator op : rows) add(name, Site::output, op);
    for (const SiteSpec& spec : model.layer(n).sites())
      for (const Operator op : spec.operators) add(name, spec.site, op);
    if (model.layer(n).fields().empty()) continue;
    for (const Operator op : {Operator::reset, Operator::reset_every, Operator::swap})
      add(name, Site::state, op);
  }
  return edits;
}

}  // namespace

Check check_strength_zero(const Subject& subject) {
  return timed("C2", "an intervention of strength 0 changes nothing", [&] {
    const auto text = text_of(subject, short_length(*subject.model));
    StreamOptions options = plain(subject);
    options.edits = edits_of_strength_zero(*subject.model);
    const std::size_t count = options.edits.size();
    return finding_of(Equalities(subject.model, text, plain(subject))
                          .same("edits of strength 0", Stream(subject.model, options)),
                      cat(count, " edits of strength 0, every operator at every site, leave ", text.size(),
                          " rows of logits and the final state as they are, bit for bit"));
  });
}

namespace {

// The blocks that can be skipped and the models without them. A block must be refused by both or by none.
struct Skips {
  std::vector<std::string> blocks, refused;
  std::vector<Plan> plans = {nullptr};
  std::vector<std::shared_ptr<const Model>> models;
  std::string contradiction;
};

Skips skips_of(const Model& model) {
  Skips skips;
  for (const std::string& block : blocks_of(model.graph())) {
    const Edit edit = edit_of(block, Site::output, Operator::skip);
    const std::string no_skip = refusal(model, edit);
    std::string no_model;
    std::shared_ptr<const Model> without;
    try {
      without = without_blocks(model, {&block, 1});
    } catch (const Error& error) {
      no_model = error.what();
    }
    if (no_skip.empty() != no_model.empty()) {
      skips.contradiction = no_skip.empty()
                                ? cat("block '", block, "' can be skipped, but not left out: ", no_model)
                                : cat("block '", block, "' can be left out, but not skipped: ", no_skip);
      return skips;
    }
    if (!no_skip.empty()) {
      skips.refused.push_back(block);
      continue;
    }
    skips.blocks.push_back(block);
    skips.plans.push_back(std::make_shared<const EditPlan>(model, EditList{edit}));
    skips.models.push_back(std::move(without));
  }
  return skips;
}

}  // namespace

Check check_skip(const Subject& subject) {
  return timed("C3", "layer.skip is the model built without the block", [&]() -> Finding {
    const Skips skips = skips_of(*subject.model);
    if (!skips.contradiction.empty()) return refute(skips.contradiction);
    if (skips.blocks.empty()) return inapplicable("the model has no block that can be skipped");
    const auto text = text_of(subject, short_length(*subject.model));
    const auto scored = spread(static_cast<Index>(text.size()));
    const auto skipped = together(subject, skips.plans, text, scored);
    for (std::size_t b = 0; b < skips.blocks.size(); ++b) {
      const auto built = solo(*skips.models[b], subject.compute, nullptr, text, scored);
      const std::string where = difference(skipped[b + 1], built, scored);
      if (!where.empty())
        return refute(
            cat("skipping block '", skips.blocks[b], "' and building the model without it differ ", where));
    }
    return pass(cat("each of ", skips.blocks.size(), " blocks skipped equals the model built without it, ",
                    scored.size(), " rows of logits of ", text.size(), " tokens, bit for bit; ",
                    skips.refused.size(), " blocks refuse to be skipped"));
  });
}

namespace {

std::vector<std::size_t> sample_of(std::span<const EditList> conditions) {
  std::set<std::size_t> chosen;
  for (std::size_t i = 0; i < kConditions; ++i)
    chosen.insert(i * (conditions.size() - 1) / (kConditions - 1));
  const auto largest = std::max_element(conditions.begin(), conditions.end(),
                                        [](const auto& a, const auto& b) { return a.size() < b.size(); });
  chosen.insert(static_cast<std::size_t>(largest - conditions.begin()));
  return {chosen.begin(), chosen.end()};
}

// The plan of a condition that runs without the baseline beside it: what it reads there is recorded before.
Plan plan_alone(const Subject& subject, const EditList& edits, References references,
                const std::vector<Token>& text) {
  if (std::any_of(edits.begin(), edits.end(), reads_baseline)) {
    RecordRequest request;
    request.inner_rows = {Site::norm};
    references[kClean] =
        std::make_shared<const Recording>(record(*subject.model, {&text, 1}, request, subject.compute));
  }
  return std::make_shared<const EditPlan>(*subject.model, edits, references);
}

}  // namespace

Check check_wavefront(const Subject& subject, std::span<const EditList> conditions,
                      const References& references) {
  return timed("C4", "a row of the wavefront is the condition's own run", [&]() -> Finding {
    if (conditions.empty()) return inapplicable("the study has no conditions");
    const auto text = text_of(subject, short_length(*subject.model));
    const auto scored = spread(static_cast<Index>(text.size()));
    const auto chosen = sample_of(conditions);
    std::vector<Plan> plans = {nullptr};
    for (const std::size_t c : chosen)
      plans.push_back(std::make_shared<const EditPlan>(*subject.model, conditions[c], references));
    const auto rows = together(subject, plans, text, scored);
    Index effective = 0;
    for (std::size_t v = 0; v < plans.size(); ++v) {
      const Plan own = v == 0 ? nullptr : plan_alone(subject, conditions[chosen[v - 1]], references, text);
      const std::string where =
          difference(rows[v], solo(*subject.model, subject.compute, own, text, scored), scored);
      if (!where.empty())
        return refute(cat(v == 0 ? "the baseline" : cat("condition ", chosen[v - 1]),
                          " in the wavefront and alone differ ", where));
      effective += rows[v] != rows[0];
    }
    return pass(cat(chosen.size(), " of ", conditions.size(), " conditions (", effective,
                    " of them change these logits) and the baseline equal their own runs, ", scored.size(),
                    " rows of logits of ", text.size(), " tokens, bit for bit"));
  });
}

namespace {

// The furthest position at which some window, grid or span of the model ends.
Index reach_of(const Model& model) {
  const Grids& grids = model.card().grids;
  Index reach = std::max(grids.chunk, grids.key_span);
  for (int n = 0; n < model.node_count(); ++n)
    for (const Field& field : model.layer(n).fields())
      reach = std::max(reach, field.window + field.sinks + field.grid);
  return reach;
}

Finding check_split(const Model& model, const Equalities& equal, Index tokens, const char* pattern) {
  const EqualityCheck check = equal.split(pattern);
  return check.passed
             ? pass({})
             : refute(cat(model.card().name, ", ", tokens, " tokens, ", check.name, ": ", check.detail));
}

}  // namespace

Check check_splits(const Subject& subject) {
  return timed("C5", "no split of the text changes a bit", [&]() -> Finding {
    const Affordable part = affordable(subject.model);
    Index checked = 0;
    if (part.model != subject.model) {
      const auto text = text_of(subject, short_length(*subject.model));
      const Equalities equal(subject.model, text, plain(subject));
      checked = static_cast<Index>(text.size());
      for (const char* pattern : {"1", "7"})
        if (Finding f = check_split(*subject.model, equal, checked, pattern);
            f.verdict != Check::Verdict::passed)
          return f;
    }
    const Index reach = reach_of(*part.model), length = std::min(reach + 66, kMostTokens);
    std::vector<Token> text = text_of(subject, length);
    for (Token& token : text) token = static_cast<Token>(token % part.model->card().vocab);
    const Equalities equal(part.model, text, plain(subject));
    for (const char* pattern : {"1", "7", "64", "65", "4096"})
      if (Finding f = check_split(*part.model, equal, length, pattern); f.verdict != Check::Verdict::passed)
        return f;
    return pass(
        cat("feeds of 1, 7, 64, 65, 4096 and one piece give the same bits, logits and final state, over ",
            length, " tokens of ", part.description, reach < length ? ", past" : ", NOT past",
            " its furthest window, grid or span (", reach, ")",
            checked > 0 ? cat("; feeds of 1, 7 and one piece over ", checked, " tokens of the whole model")
                        : ""));
  });
}

namespace {

// A reset on a grid of its own in the first layer with state; a hole in the states of the last block.
EditList edits_with_memory(const Model& model) {
  EditList edits;
  for (int n = 0; n < model.node_count() && edits.empty(); ++n)
    if (!model.layer(n).fields().empty()) {
      edits.push_back(
          edit_of(model.graph().nodes[static_cast<std::size_t>(n)].name, Site::state, Operator::reset_every));
      edits.back().value = 13;
    }
  const auto blocks = blocks_of(model.graph());
  if (blocks.empty()) return edits;
  Edit skip = edit_of(blocks.back(), Site::output, Operator::skip);
  skip.begin = 5;
  skip.end = 11;
  if (refusal(model, skip).empty()) edits.push_back(skip);
  return edits;
}

}  // namespace

Check check_resumption(const Subject& subject) {
  return timed("C6", "save and load, and rollback, under edits", [&]() -> Finding {
    const auto text = text_of(subject, short_length(*subject.model));
    StreamOptions options = plain(subject);
    options.edits = edits_with_memory(*subject.model);
    std::string edited, details;
    for (const Edit& edit : options.edits)
      edited += cat(edited.empty() ? "" : " and ", edit.node, "/", name_of(edit.site), " ", name_of(edit.op));
    const Equalities equal(subject.model, text, options);
    for (const EqualityCheck& check : {equal.save_and_load(), equal.rollback(Equalities::Depth::declared),
                                       equal.rollback(Equalities::Depth::none)}) {
      if (!check.passed) return refute(cat(check.name, ": ", check.detail));
      details += cat(details.empty() ? "" : ", ", check.name, " (", check.detail, ")");
    }
    return pass(cat("under ", edited.empty() ? "no edits" : edited, ": ", details,
                    " go on as if nothing had happened, ", text.size(),
                    " tokens, logits and final state, bit for bit"));
  });
}

Check check_shadow(const Subject& subject) {
  return timed("C7", "zero with shadow on and off agree", [&]() -> Finding {
    const Model& model = *subject.model;
    std::set<int> mixers;  // contributions with a state
    for (const Group& group : model.graph().groups)
      for (const int n : group.contributions)
        if (!model.layer(n).fields().empty()) mixers.insert(n);
    if (mixers.empty()) return inapplicable("no residual contribution of the model has a state");
    std::vector<Plan> plans = {nullptr};
    for (const int n : mixers)
      for (const Shadow shadow : {Shadow::on, Shadow::off}) {
        Edit zero =
            edit_of(model.graph().nodes[static_cast<std::size_t>(n)].name, Site::output, Operator::zero);
        zero.shadow = shadow;
        plans.push_back(std::make_shared<const EditPlan>(model, EditList{zero}));
      }
    const auto text = text_of(subject, kFewTokens);
    const auto scored = spread(kFewTokens);
    const auto rows = together(subject, plans, text, scored);
    for (std::size_t v = 1; v < plans.size(); v += 2)
      if (const std::string where = difference(rows[v], rows[v + 1], scored); !where.empty())
        return refute(cat("'", plans[v]->edits()[0].node,
                          "' zeroed with its state kept up and without differ ", where));
    return pass(cat("zeroing each of ", mixers.size(), " mixers gives the same ", scored.size(),
                    " rows of logits of ", kFewTokens, " tokens with shadow on and off, bit for bit"));
  });
}

namespace {

// Records a text and puts its mean wherever every row of it is the same; at inner sites where it has one row.
Finding mean_in_place(const Subject& subject, const std::vector<Token>& text, Index& sites) {
  RecordRequest request;
  request.rows = true;
  if (text.size() == 1) request.inner = {Site::decay, Site::write, Site::gate, Site::head};
  const std::vector<std::vector<Token>> texts = {text};
  const auto recording =
      std::make_shared<const Recording>(record(*subject.model, texts, request, subject.compute));
  EditList edits;
  for (const auto& [name, node] : recording->nodes) {
    for (const auto& [site, mean] : node->inner) {
      const bool strength = site == Site::decay || site == Site::write;
      edits.push_back(edit_of(name, site, strength ? Operator::constant : Operator::mean));
      edits.back().reference = "itself";
    }
    const std::size_t width = node->mean.size();
    bool constant = true;
    for (std::size_t i = width; i < node->rows.size(); ++i)
      constant = constant && node->rows[i] == node->rows[i - width];
    if (!constant) continue;
    edits.push_back(edit_of(name, Site::output, Operator::mean));
    edits.back().reference = "itself";
  }
  sites = static_cast<Index>(edits.size());
  const auto plan =
      std::make_shared<const EditPlan>(*subject.model, edits, References{{"itself", recording}});
  const auto scored = spread(static_cast<Index>(text.size()));
  const std::string where = difference(solo(*subject.model, subject.compute, plan, text, scored),
                                       solo(*subject.model, subject.compute, nullptr, text, scored), scored);
  return where.empty() ? pass({})
                       : refute(cat("the means of ", sites, " sites, constant over ", text.size(),
                                    " tokens, change the logits ", where));
}

}  // namespace

Check check_mean_of_constant(const Subject& subject) {
  return timed("C8", "the mean of a constant site changes nothing", [&]() -> Finding {
    Index of_one = 0, of_many = 0;
    const std::vector<Token> one = text_of(subject, 1), many(5, one[0]);
    if (Finding f = mean_in_place(subject, one, of_one); f.verdict != Check::Verdict::passed) return f;
    if (Finding f = mean_in_place(subject, many, of_many); f.verdict != Check::Verdict::passed) return f;
    return pass(cat("the means over one token at all ", of_one,
                    " nodes and inner sites, and over a token five times at the ", of_many,
                    " nodes where it is constant, leave the logits as they are, bit for bit"));
  });
}

}  // namespace plait::ablate
