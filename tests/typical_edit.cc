#include "tests/typical_edit.h"

#include <algorithm>

#include "tests/testing.h"

namespace plait::testing {
namespace {

double typical_value(Site site, Operator op) {
  switch (op) {
    case Operator::constant:
      return site == Site::decay ? -0.25 : 0.375;
    case Operator::rank:
      return 2;
    case Operator::noise:
      return site == Site::state ? 0.1 : 0.5;
    case Operator::set:
      return 5;
    case Operator::mask:
      return 13;
    case Operator::shift:
      return 3;
    case Operator::stale:
      return 37;
    default:
      return 0.375;
  }
}

void fill_values(Edit& edit, const SiteSpec& spec) {
  Numbers numbers(31);
  Index count = 0;
  if (edit.op == Operator::mean) count = spec.heads * spec.channels;
  if (edit.op == Operator::resample) count = (edit.end - edit.begin) * spec.heads * spec.channels;
  for (Index i = 0; i < count; ++i)
    edit.values.push_back(static_cast<double>(static_cast<float>(numbers.normal())));
  if (edit.site == Site::norm)
    for (Index i = edit.begin; i < edit.end; ++i) edit.values.push_back(numbers.uniform(0.5, 2));
}

}  // namespace

std::vector<Edit> typical_edits(const std::string& node, const SiteSpec& spec, Operator op, Index begin,
                                Index end) {
  Edit edit;
  edit.node = node;
  edit.site = spec.site;
  edit.op = op;
  edit.begin = begin;
  edit.end = end;
  edit.value = typical_value(spec.site, op);
  fill_values(edit, spec);
  // Without it the state of some delta rules grows without bound: a few tokens only.
  if (spec.site == Site::qk_norm) edit.end = std::min(end, begin + 3);
  if (spec.site == Site::score) edit.key_begin = 3, edit.key_end = 40;
  if (op == Operator::set) edit.sinks = 1;
  if (op == Operator::noise) edit.seed = 17;
  if (op == Operator::cast) edit.to = Storage::int8;
  std::vector<Edit> all = {edit};
  if (spec.site == Site::state && (op == Operator::rank || op == Operator::noise || op == Operator::cast)) {
    all[0].every = Every::chunk;
    if (spec.finest == Every::token) all.push_back(all[0]), all[1].every = Every::token;
  }
  if (spec.site == Site::conv && op == Operator::identity) all.push_back(edit), all[1].drop_activation = true;
  if (spec.site == Site::erase) all.push_back(edit), all[1].norm_match = true;
  return all;
}

std::vector<Edit> typical_edits(const std::string& node, const Layer& layer, Index begin, Index end) {
  std::vector<Edit> all;
  for (const SiteSpec& spec : layer.sites())
    for (const Operator op : spec.operators)
      for (Edit& edit : typical_edits(node, spec, op, begin, end)) all.push_back(std::move(edit));
  return all;
}

std::string describe(const Edit& edit) {
  std::string text = std::string(name_of(edit.site)) + "/" + name_of(edit.op);
  if (edit.every != Every::unset) text += std::string(" every ") + name_of(edit.every);
  if (edit.drop_activation) text += " without activation";
  if (edit.norm_match) text += " norm_match";
  return text;
}

}  // namespace plait::testing
