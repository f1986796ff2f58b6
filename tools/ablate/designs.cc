#include "tools/ablate/designs.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "tools/ablate/draws.h"

namespace plait::ablate {
namespace {

// Places a design works on together.
struct Family {
  std::shared_ptr<const Pool> pool;
  std::string kind;  // empty: all
  std::vector<int> members;
};

class Expander {
 public:
  Expander(const Design& design, const Model& model, const Components& components, std::uint64_t seed)
      : design_(design), model_(model), components_(components), seed_(seed) {}

  Expansion run() {
    using Step = void (Expander::*)(const Family&);
    static const std::map<std::string, Step> steps = {{"single", &Expander::single},
                                                      {"group", &Expander::group},
                                                      {"third", &Expander::thirds},
                                                      {"window", &Expander::windows},
                                                      {"cumulative", &Expander::cumulative},
                                                      {"leave_in", &Expander::leave_in},
                                                      {"pair", &Expander::pairs},
                                                      {"shapley", &Expander::shapley},
                                                      {"dose", &Expander::dose}};
    const auto step = steps.find(design_.design);
    if (step == steps.end())
      fail("there is no design '", design_.design, "'; there are ", joined(design_names()));
    for (const Family& family : families()) (this->*step->second)(family);
    return std::move(result_);
  }

 private:
  std::shared_ptr<const Pool> pool(Grain grain, const Json& more = Json::object()) const {
    Operation operation{find_alias(design_.site), design_.options};
    operation.options.update(more);
    return std::make_shared<Pool>(pool_of(model_, components_, operation, grain));
  }

  std::vector<Family> families() const {
    const auto whole = pool(design_.kind.empty() ? Grain::whole : Grain::by_kind);
    if (!design_.kind.empty()) return {of_kind(whole, design_.kind)};
    const std::string& d = design_.design;
    const bool in_a_row = d == "window" || d == "cumulative";
    const bool only_kinds = d == "group" || d == "leave_in" || d == "dose" || (in_a_row && whole->crowded());
    std::vector<Family> all;
    if (!only_kinds) all.push_back({whole, "", places_of_kind(*whole, components_, "")});
    if (!only_kinds && d != "third") return all;
    const auto apart = pool(Grain::by_kind);
    for (const std::string& kind : kinds_of(*apart)) all.push_back(of_kind(apart, kind));
    return all;
  }

  Family of_kind(const std::shared_ptr<const Pool>& pool, const std::string& kind) const {
    Family family{pool, kind, places_of_kind(*pool, components_, kind)};
    if (family.members.empty())
      fail("'", design_.site, "' has no place of kind '", kind, "' in model '", model_.data().origin,
           "'; its kinds are ", joined(kinds_of(*pool)));
    return family;
  }

  // "single.mixer.zero" + detail; options other than none are told apart by a digest.
  std::string id(const Family& family, const std::string& detail) const {
    const std::string options =
        design_.options.empty() ? "" : cat(".", sha256(design_.options.dump()).substr(0, 8));
    const std::string kind = family.kind.empty() ? "" : cat(".", family.kind);
    return cat(design_.design, ".", family.pool->operation.alias.name, kind, options,
               detail.empty() ? "" : ".", detail);
  }

  int add(const Family& family, std::vector<int> members, const std::string& detail,
          const std::string& words) {
    std::sort(members.begin(), members.end());
    Planned planned{condition_at(*family.pool, members), family.pool, std::move(members)};
    planned.condition.id = id(family, detail);
    planned.condition.label = cat(family.pool->operation.alias.name, " ", words);
    planned.condition.design = design_.design;
    if (planned.condition.phase != "always") planned.condition.label += cat(", ", planned.condition.phase);
    result_.planned.push_back(std::move(planned));
    return static_cast<int>(result_.planned.size()) - 1;
  }

  static std::string named(const Family& family) { return family.kind.empty() ? "all" : family.kind; }
  static std::vector<int> slice(const Family& family, std::size_t begin, std::size_t end) {
    return {family.members.begin() + static_cast<std::ptrdiff_t>(begin),
            family.members.begin() + static_cast<std::ptrdiff_t>(end)};
  }

  void single(const Family& family) {
    for (const int i : family.members) {
      const std::string tag = family.pool->tag(i);
      add(family, {i}, tag,
          cat(tag, " (", joined(family.pool->places[static_cast<std::size_t>(i)].kinds, "+"), ")"));
    }
  }

  void group(const Family& family) { add(family, family.members, "", cat("all ", family.kind)); }

  void thirds(const Family& family) {
    constexpr const char* names[] = {"early", "middle", "late"};
    for (int third = 0; third < 3; ++third) {
      std::vector<int> members;
      for (const int i : family.members)
        if (third_of(family.pool->places[static_cast<std::size_t>(i)].block, components_.blocks) == third)
          members.push_back(i);
      if (!members.empty()) add(family, members, names[third], cat(names[third], " third, ", named(family)));
    }
  }

  void windows(const Family& family) {
    for (const Index size : design_.sizes) {
      const auto width = static_cast<std::size_t>(size);
      for (std::size_t begin = 0; begin + width <= family.members.size(); ++begin) {
        const std::vector<int> members = slice(family, begin, begin + width);
        const std::string tag = cat(family.pool->tag(members.front()), "-", family.pool->tag(members.back()));
        add(family, members, cat(size, ".", tag), cat(tag, ", ", size, " in a row"));
      }
    }
  }

  void cumulative(const Family& family) {
    const std::size_t all = family.members.size();
    for (std::size_t n = 1; n <= all; ++n) {
      const bool asked = design_.sizes.empty() || std::find(design_.sizes.begin(), design_.sizes.end(),
                                                            static_cast<Index>(n)) != design_.sizes.end();
      if (!asked) continue;
      add(family, slice(family, 0, n), cat("first.", n), cat("first ", n, ", ", named(family)));
      add(family, slice(family, all - n, all), cat("last.", n), cat("last ", n, ", ", named(family)));
    }
  }

  void leave_in(const Family& family) {
    if (family.members.size() < 2) return;  // there is nothing to leave in
    add(family, family.members, "none", cat("all ", named(family)));
    for (const int kept : family.members) {
      std::vector<int> members = family.members;
      std::erase(members, kept);
      const std::string tag = family.pool->tag(kept);
      add(family, members, tag, cat("all ", named(family), " but ", tag));
    }
  }

  void pairs(const Family& family) {
    std::vector<int> among;
    for (const std::string& name : design_.among) {
      const auto found = std::find_if(family.members.begin(), family.members.end(), [&](int i) {
        return family.pool->places[static_cast<std::size_t>(i)].name == name;
      });
      if (found == family.members.end())
        fail("design pair of '", design_.site, "': the model has no such place as '", name, "'");
      among.push_back(*found);
    }
    std::sort(among.begin(), among.end());
    among.erase(std::unique(among.begin(), among.end()), among.end());
    for (std::size_t i = 0; i < among.size(); ++i)
      for (std::size_t j = i + 1; j < among.size(); ++j) {
        const std::string tag = cat(family.pool->tag(among[i]), "+", family.pool->tag(among[j]));
        add(family, {among[i], among[j]}, tag, tag);
      }
  }

  // One order and its reverse; sets that several orders pass through are one condition.
  void shapley(const Family& family) {
    const int count = static_cast<int>(family.members.size());
    Shapley shapley{family.pool->operation.alias.name, family.kind, {}, {}, {}};
    for (const int i : family.members)
      shapley.places.push_back(family.pool->places[static_cast<std::size_t>(i)].name);
    for (Index p = 0; p < design_.permutations; p += 2) {
      Draws draws({seed_, count, count, Stream::permutation, p / 2});
      std::vector<int> order = draws.sample(count, count);
      shapley.orders.push_back(order);
      std::reverse(order.begin(), order.end());
      shapley.orders.push_back(order);
    }
    std::map<std::vector<int>, int> known;
    for (const auto& order : shapley.orders) shapley.at.push_back(walk(family, order, known));
    result_.shapley.push_back(std::move(shapley));
  }

  std::vector<int> walk(const Family& family, const std::vector<int>& order,
                        std::map<std::vector<int>, int>& known) {
    std::vector<int> at = {-1}, members;
    for (const int step : order) {
      const int place = family.members[static_cast<std::size_t>(step)];
      members.insert(std::lower_bound(members.begin(), members.end(), place), place);
      const auto [entry, fresh] = known.try_emplace(members, -1);
      if (fresh) entry->second = add_coalition(family, members);
      at.push_back(entry->second);
    }
    return at;
  }

  int add_coalition(const Family& family, const std::vector<int>& members) {
    std::string tags;
    for (const int i : members) tags += cat(tags.empty() ? "" : " ", family.pool->tag(i));
    return add(family, members, sha256(tags).substr(0, 16), tags);
  }

  void dose(const Family& family) {
    for (const double alpha : design_.alphas) {
      const Family at{pool(Grain::by_kind, {{"strength", alpha}}), family.kind, family.members};
      add(at, at.members, shortest(alpha), cat("all ", named(family), " at ", shortest(alpha)));
    }
  }

  const Design& design_;
  const Model& model_;
  const Components& components_;
  std::uint64_t seed_;
  Expansion result_;
};

}  // namespace

const std::vector<std::string>& design_names() {
  static const std::vector<std::string> names = {"single",   "group", "third",   "window", "cumulative",
                                                 "leave_in", "pair",  "shapley", "dose"};
  return names;
}

int third_of(int block, int blocks) { return block < 0 ? 2 : block * 3 / blocks; }

Expansion expand(const Design& design, const Model& model, const Components& components, std::uint64_t seed) {
  return Expander(design, model, components, seed).run();
}

void complete(Design& design) {
  if (design.design == "window" && design.sizes.empty()) design.sizes = {2, 3, 4};
  if (design.design == "pair" && design.among.empty() && design.top == 0) design.top = 10;
  if (design.design == "shapley" && design.permutations == 0) design.permutations = 100;
  if (design.design == "dose" && design.alphas.empty()) design.alphas = {0.25, 0.5, 0.75, 1};
}

std::vector<Design> parse_sweep(const std::string& text) {
  std::vector<Design> designs;
  for (const std::string& part : split(text, ';')) {
    const auto colon = part.find(':');
    Design design;
    design.design = colon == std::string::npos ? "single" : part.substr(0, colon);
    const auto& names = design_names();
    if (std::find(names.begin(), names.end(), design.design) == names.end())
      fail("there is no design '", design.design.substr(0, 60), "'; there are ", joined(names));
    complete(design);
    for (const std::string& site : split(part.substr(colon == std::string::npos ? 0 : colon + 1), ',')) {
      design.site = find_alias(site).name;
      designs.push_back(design);
    }
  }
  if (designs.empty())
    fail("a sweep names at least one site, such as mixer.zero; found '", text.substr(0, 60), "'");
  return designs;
}

}  // namespace plait::ablate
