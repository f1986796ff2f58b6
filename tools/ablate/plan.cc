#include "tools/ablate/plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "runtime/run/batch.h"
#include "tools/ablate/remembrance.h"

namespace plait::ablate {
namespace {

constexpr std::size_t kMaxConditions = 200000, kMaxUses = 1000000;

class Planner {
 public:
  Planner(Plan& plan, const Study& study, const Model& model)
      : plan_(plan), study_(study), model_(model), components_(components_of(model)) {
    for (std::size_t i = 0; i < plan.conditions.size(); ++i)
      by_edits_[digest(plan.conditions[i].edits)] = static_cast<int>(i);
    for (const Use& use : plan.uses) by_id_[use.id] = use.condition;
  }

  void baseline() {
    Condition condition;
    condition.id = condition.label = condition.design = "baseline";
    add({std::move(condition), nullptr, {}});
  }

  void request(const Request& request) {
    try {
      add(planned(request));
    } catch (const Error& error) {
      fail("condition '", request.id, "': ", error.what());
    }
  }

  void remembrance(Index at) {
    Planned planned;
    Condition& condition = planned.condition;
    condition.edits = forget_before(model_, at);
    condition.id = cat("remembrance.", at);
    condition.label = cat("nothing remembered from before token ", at);
    condition.design = "spec";
    condition.site = "history";
    condition.op = "cut";
    add(std::move(planned));
  }

  void design(const Design& design) {
    if (design.design == "pair" && design.among.empty()) return plan_.deferred.push_back(design);
    Expansion expansion = expand(design, model_, components_, study_.seed);
    std::vector<int> conditions;
    for (Planned& planned : expansion.planned) conditions.push_back(add(std::move(planned)));
    for (Shapley& shapley : expansion.shapley) {
      for (auto& order : shapley.at)
        for (int& at : order) at = at < 0 ? 0 : conditions[static_cast<std::size_t>(at)];
      plan_.shapley.push_back(std::move(shapley));
    }
  }

  void controls() {
    std::set<int> done;
    for (const std::string& name : study_.controls.targets)
      for (const int target : targets(name)) {
        if (!done.insert(target).second) continue;
        for (const Match match : study_.controls.match) draw(target, match);
      }
  }

 private:
  // Adds a condition, or one more name for the one that has its edits.
  int add(Planned planned) {
    Condition& condition = planned.condition;
    const auto [same, fresh] =
        by_edits_.try_emplace(digest(condition.edits), static_cast<int>(plan_.conditions.size()));
    const int index = same->second;
    const auto [known, new_id] = by_id_.try_emplace(condition.id, index);
    if (!new_id) {
      if (known->second != index) fail("two conditions have the id '", condition.id, "'");
      return index;
    }
    if (plan_.uses.size() >= kMaxUses || plan_.conditions.size() >= kMaxConditions)
      fail("the study has more than ", kMaxConditions, " conditions or ", kMaxUses, " uses of them");
    plan_.uses.push_back({index, condition.id, condition.label, condition.design, condition.match_of,
                          condition.match_kind, condition.draw});
    if (planned.pool) sets_.try_emplace(index, planned.pool, planned.members);
    if (fresh) plan_.conditions.push_back(std::move(condition));
    return index;
  }

  Planned planned(const Request& request) const {
    std::vector<Resolved> parts;
    for (const Part& part : request.parts) parts.push_back(resolve(part, model_, components_));
    Planned planned;
    if (parts.size() == 1 && parts[0].pool) {
      planned = {condition_at(*parts[0].pool, parts[0].members), parts[0].pool, parts[0].members};
    } else {
      for (const Resolved& part : parts) merge(part, planned.condition);
    }
    planned.condition.id = request.id;
    planned.condition.label = request.label;
    planned.condition.design = "spec";
    return planned;
  }

  // Parts that act together: names joined, blocks united, sizes added.
  static void merge(const Resolved& part, Condition& whole) {
    Condition one;
    if (part.pool) {
      one = condition_at(*part.pool, part.members);
    } else {
      const Edit& edit = part.edits[0];
      one.edits = part.edits;
      one.site = name_of(edit.site), one.op = name_of(edit.op);
      one.heads = edit.heads, one.phase = name_of(edit.phase), one.alpha = edit.strength;
    }
    const bool first = whole.edits.empty();
    const auto join = [&](std::string& to, const std::string& word) {
      if (first || to.empty())
        to = word;
      else if (!word.empty() && to != word)
        to += cat("+", word);
    };
    join(whole.site, one.site);
    join(whole.op, one.op);
    join(whole.component_type, one.component_type);
    whole.phase = first || whole.phase == one.phase ? one.phase : "several";
    whole.alpha = first ? one.alpha : std::max(whole.alpha, one.alpha);
    whole.heads = first || whole.heads == one.heads ? one.heads : std::vector<Index>{};
    std::vector<int> layers;
    std::set_union(whole.layers.begin(), whole.layers.end(), one.layers.begin(), one.layers.end(),
                   std::back_inserter(layers));
    whole.layers = std::move(layers);
    whole.edits.insert(whole.edits.end(), one.edits.begin(), one.edits.end());
    whole.n_layers_removed = std::max(whole.n_layers_removed, one.n_layers_removed);
    whole.params_removed += one.params_removed;
    whole.state_bytes_removed += one.state_bytes_removed;
    whole.kv_bytes_removed += one.kv_bytes_removed;
  }

  // Conditions a name of `controls.for` stands for.
  std::vector<int> targets(const std::string& name) const {
    std::vector<int> found;
    if (const auto id = by_id_.find(name); id != by_id_.end()) found.push_back(id->second);
    for (const Use& use : plan_.uses)
      if (use.design == name && sets_.contains(use.condition)) found.push_back(use.condition);
    if (found.empty())
      fail("controls: 'for' names '", name, "', which is neither a condition nor a design of the study");
    for (const int target : found)
      if (!sets_.contains(target))
        fail("controls: condition '", name,
             "' is no set of places of one site, so there is nothing to draw from");
    return found;
  }

  void draw(int target, Match match) {
    const auto [pool, members] = sets_.at(target);
    const std::string target_id = plan_.conditions[static_cast<std::size_t>(target)].id;
    const ControlSets sets =
        draw_controls(match, pool->places, members, pool->blocks, study_.controls, study_.seed);
    std::set<int> distinct;
    for (std::size_t i = 0; i < sets.sets.size(); ++i) {
      Planned planned{condition_at(*pool, sets.sets[i]), pool, sets.sets[i]};
      Condition& c = planned.condition;
      c.id = cat("random.", target_id, ".", name_of(match), ".", i);
      c.label = cat("random, ", name_of(match), " as ", target_id, ", ", i);
      c.design = "random";
      c.match_of = target_id, c.match_kind = name_of(match), c.draw = static_cast<int>(i);
      distinct.insert(add(std::move(planned)));
    }
    distinct.erase(target);
    plan_.controls.push_back({target_id, name_of(match), study_.controls.draws,
                              static_cast<Index>(sets.sets.size()), static_cast<Index>(distinct.size()),
                              sets.exhaustive, sets.possible, study_.controls.tolerance, sets.deviation,
                              sets.outside, sets.note});
  }

  Plan& plan_;
  const Study& study_;
  const Model& model_;
  Components components_;
  std::map<std::string, int> by_edits_, by_id_;
  std::map<int, std::pair<std::shared_ptr<const Pool>, std::vector<int>>> sets_;  // of conditions
};

// Cannot be resolved before there is a recording.
bool needs_recording(const Edit& edit) {
  return reads_reference(edit) || edit.op == Operator::swap || !edit.reference.empty();
}

Design design(const char* name, const std::string& site, const std::string& kind = "",
              std::vector<Index> sizes = {}) {
  Design d;
  d.design = name;
  d.site = site;
  d.kind = kind;
  d.sizes = std::move(sizes);
  complete(d);
  return d;
}

// Sites whose contributions can be told apart in this model, the paper's first.
std::vector<std::string> sites_of_study(const Components& components) {
  std::vector<std::string> sites;
  if (components.parallel()) sites.push_back("branch.zero");
  sites.push_back("layer.skip");
  if (!components.mixers.empty()) sites.push_back("mixer.zero");
  if (!components.mlps.empty()) sites.push_back("mlp.zero");
  return sites;
}

std::set<std::string> mixer_kinds(const Components& components) {
  std::set<std::string> kinds;
  for (const Component& branch : components.branches) kinds.insert(branch.kinds.begin(), branch.kinds.end());
  return kinds;
}

Study hybrid_study(const Components& components) {
  Study study;
  for (const std::string& site : sites_of_study(components)) {
    study.designs.push_back(design("single", site));
    study.designs.push_back(design("group", site));
    study.designs.push_back(design("third", site));
  }
  const std::string site = sites_of_study(components)[0];
  for (const std::string& kind : mixer_kinds(components))
    study.designs.push_back(design("cumulative", site, kind, {1, 2, 4, 6, 8, 12, 18}));
  return study;
}

Study full_study(const Components& components) {
  Study study;
  for (const std::string& site : sites_of_study(components)) {
    for (const char* name : {"single", "group", "third", "window", "cumulative", "leave_in", "pair"})
      study.designs.push_back(design(name, site));
    if (site != "layer.skip") study.designs.push_back(design("dose", site));
  }
  study.designs.push_back(design("shapley", "layer.skip"));
  if (components.parallel()) study.designs.push_back(design("shapley", "branch.zero"));
  return study;
}

}  // namespace

int Plan::find(const std::string& id) const {
  for (const Use& use : uses)
    if (use.id == id) return use.condition;
  return -1;
}

Plan plan_of(const Study& study, const Model& model) {
  Plan plan;
  Planner planner(plan, study, model);
  planner.baseline();
  for (const Request& request : study.conditions) planner.request(request);
  for (const Index at : study.score.remembrance) planner.remembrance(at);
  for (const Design& design : study.designs) planner.design(design);
  planner.controls();
  for (const std::string& id : study.plan.confirmatory)
    if (plan.find(id) < 0) fail("plan: 'confirmatory' names '", id, "', which is no condition of the study");
  return plan;
}

void add_pairs(Plan& plan, const Study& study, const Model& model, const Design& deferred,
               const std::vector<std::string>& strongest) {
  Design design = deferred;
  for (const std::string& id : strongest) {
    if (static_cast<Index>(design.among.size()) == deferred.top) break;
    const int condition = plan.find(id);
    const EditList edits =
        condition < 0 ? EditList{} : plan.conditions[static_cast<std::size_t>(condition)].edits;
    if (edits.size() != 1) fail("pairs: '", id, "' is no condition of a single place");
    design.among.push_back(edits[0].node);
  }
  if (!design.among.empty()) Planner(plan, study, model).design(design);
}

void check_edits(const Plan& plan, const Model& model) {
  std::set<std::string> checked;
  for (const Condition& condition : plan.conditions)
    for (const Edit& edit : condition.edits) {
      if (needs_recording(edit) || !checked.insert(plait::to_json(edit).dump()).second) continue;
      try {
        EditPlan(model, {edit});
      } catch (const Error& error) {
        fail("condition '", condition.id, "': ", error.what());
      }
    }
}

Json to_json(const Plan& plan) {
  const auto id = [&](int condition) { return plan.conditions[static_cast<std::size_t>(condition)].id; };
  Json json = {{"uses", Json::array()}, {"controls", Json::array()}, {"shapley", Json::array()}};
  for (const Use& use : plan.uses)
    if (use.design != "random")
      json["uses"].push_back(
          {{"id", use.id}, {"label", use.label}, {"design", use.design}, {"condition", id(use.condition)}});
  for (const ControlReport& c : plan.controls)
    json["controls"].push_back({{"target", c.target},
                                {"match", c.match},
                                {"asked", c.asked},
                                {"drawn", c.drawn},
                                {"distinct", c.distinct},
                                {"exhaustive", c.exhaustive},
                                {"possible", c.possible},
                                {"tolerance", c.tolerance},
                                {"deviation", c.deviation},
                                {"outside", c.outside},
                                {"note", c.note}});
  for (const Shapley& s : plan.shapley) {
    Json at = Json::array();
    for (const auto& order : s.at) {
      at.push_back(Json::array());
      for (const int condition : order) at.back().push_back(id(condition));
    }
    json["shapley"].push_back({{"site", s.site},
                               {"kind", s.kind},
                               {"places", s.places},
                               {"orders", s.orders},
                               {"conditions", std::move(at)}});
  }
  return json;
}

std::string controls_csv(const Plan& plan) {
  std::string csv = "target_id,match_kind,draw,condition_id\n";
  for (const Use& use : plan.uses)
    if (use.design == "random")
      csv += csv_line({use.match_of, use.match_kind, cat(use.draw),
                       plan.conditions[static_cast<std::size_t>(use.condition)].id});
  return csv;
}

std::string conditions_csv(const Plan& plan) {
  std::string csv = condition_header();
  for (const Condition& condition : plan.conditions) csv += csv_row(condition);
  return csv;
}

const std::vector<std::string>& study_names() {
  static const std::vector<std::string> names = {"hybrid2026", "full"};
  return names;
}

Study study_named(const std::string& name, const Model& model) {
  if (name != "hybrid2026" && name != "full")
    fail("there is no study '", name.substr(0, 60), "'; there are ", joined(study_names()));
  const Components components = components_of(model);
  Study study = name == "full" ? full_study(components) : hybrid_study(components);
  study.name = name;
  study.controls.targets = {"group"};
  if (name == "full") study.score.remembrance = {64, 256, 1024};
  return study;
}

}  // namespace plait::ablate
