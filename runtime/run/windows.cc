#include "runtime/run/windows.h"

#include <algorithm>

#include "runtime/base/error.h"

namespace plait {
namespace {

bool takes_window(const Layer& layer) {
  const auto sites = layer.sites();
  return std::any_of(sites.begin(), sites.end(), [](const SiteSpec& spec) {
    return spec.site == Site::window &&
           std::find(spec.operators.begin(), spec.operators.end(), Operator::set) != spec.operators.end();
  });
}

bool grows(const Layer& layer) {
  const auto fields = layer.fields();
  return std::any_of(fields.begin(), fields.end(),
                     [](const Field& field) { return field.kind == Field::Kind::log && field.window == 0; });
}

}  // namespace

EditList window_edits(const Model& model, Index window, Index sinks) {
  if (window < 1)
    fail("a window of ", window, " keys shows a token nothing, not even itself; it takes 1 or more");
  if (sinks < 0) fail("a window cannot have ", sinks, " sinks");
  EditList edits;
  for (int n = 0; n < model.node_count(); ++n) {
    const std::string& name = model.graph().nodes[static_cast<std::size_t>(n)].name;
    if (!takes_window(model.layer(n))) {
      if (grows(model.layer(n)))
        fail("the state of '", name, "' (", model.graph().nodes[static_cast<std::size_t>(n)].kind,
             ") grows with the text and takes no window");
      continue;
    }
    Edit edit;
    edit.node = name;
    edit.site = Site::window;
    edit.op = Operator::set;
    edit.value = static_cast<double>(window);
    edit.sinks = sinks;
    edits.push_back(edit);
  }
  return edits;
}

}  // namespace plait
