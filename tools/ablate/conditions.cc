#include "tools/ablate/conditions.h"

#include <charconv>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

template <class Number>
std::string spaced(const std::vector<Number>& numbers) {
  std::string text;
  for (const Number n : numbers) text += cat(text.empty() ? "" : " ", n);
  return text;
}

}  // namespace

Json to_json(const EditList& edits) {
  Json list = Json::array();
  for (const Edit& edit : edits) list.push_back(plait::to_json(edit));
  return list;
}

Json to_json(const Condition& c) {
  return {{"id", c.id},
          {"label", c.label},
          {"edits", to_json(c.edits)},
          {"design", c.design},
          {"component_type", c.component_type},
          {"site", c.site},
          {"op", c.op},
          {"layers", c.layers},
          {"heads", c.heads},
          {"phase", c.phase},
          {"alpha", c.alpha},
          {"n_layers_removed", c.n_layers_removed},
          {"params_removed", c.params_removed},
          {"state_bytes_removed", c.state_bytes_removed},
          {"kv_bytes_removed", c.kv_bytes_removed},
          {"match_of", c.match_of},
          {"match_kind", c.match_kind},
          {"draw", c.draw}};
}

Condition parse_condition(const Json& json) {
  Condition c;
  try {
    json.at("id").get_to(c.id);
    json.at("label").get_to(c.label);
    c.edits = parse_edits(json.at("edits"));
    json.at("design").get_to(c.design);
    json.at("component_type").get_to(c.component_type);
    json.at("site").get_to(c.site);
    json.at("op").get_to(c.op);
    json.at("layers").get_to(c.layers);
    json.at("heads").get_to(c.heads);
    json.at("phase").get_to(c.phase);
    json.at("alpha").get_to(c.alpha);
    json.at("n_layers_removed").get_to(c.n_layers_removed);
    json.at("params_removed").get_to(c.params_removed);
    json.at("state_bytes_removed").get_to(c.state_bytes_removed);
    json.at("kv_bytes_removed").get_to(c.kv_bytes_removed);
    json.at("match_of").get_to(c.match_of);
    json.at("match_kind").get_to(c.match_kind);
    json.at("draw").get_to(c.draw);
  } catch (const Json::exception& error) {
    fail("a stored condition cannot be read back: ", error.what());
  }
  return c;
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) line += ',';
    if (cells[i].find_first_of(",\"\r\n") == std::string::npos) {
      line += cells[i];
      continue;
    }
    line += '"';
    for (const char c : cells[i]) line += c == '"' ? std::string("\"\"") : std::string(1, c);
    line += '"';
  }
  return line + '\n';
}

std::string shortest(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

std::string condition_header() {
  return "condition_id,label,spec_json,spec_sha256,design,component_type,site,layers,heads,phase,operator,"
         "alpha,"
         "n_layers_removed,params_removed,state_bytes_removed,kv_bytes_removed,match_of,match_kind,draw\n";
}

std::string csv_row(const Condition& c) {
  return csv_line({c.id, c.label, to_json(c.edits).dump(), digest(c.edits), c.design, c.component_type,
                   c.site, spaced(c.layers), spaced(c.heads), c.phase, c.op, shortest(c.alpha),
                   cat(c.n_layers_removed), cat(c.params_removed), cat(c.state_bytes_removed),
                   cat(c.kv_bytes_removed), c.match_of, c.match_kind, c.draw < 0 ? "" : cat(c.draw)});
}

}  // namespace plait::ablate
