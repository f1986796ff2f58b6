// What the checks share.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tools/ablate/checks.h"

namespace plait::ablate {

struct Finding {
  Check::Verdict verdict;
  std::string detail;
};
Finding pass(std::string detail);
Finding refute(std::string detail);  // failed
Finding inapplicable(std::string reason);
Check timed(const char* id, const char* name, const std::function<Finding()>& find);

// The first `count` tokens of the subject's text, repeated from the start as often as needed. Throws Error on
// no text and on a token outside the model's vocabulary.
std::vector<Token> text_of(const Subject& subject, Index count);
// Tokens that cross a common boundary of the model's grids (or 64, if that lies further), and eight more.
Index short_length(const Model& model);
// The model itself, or an excerpt of a large one; `description` of it for a detail sentence.
struct Affordable {
  std::shared_ptr<const Model> model;
  std::string description;
};
Affordable affordable(const std::shared_ptr<const Model>& model);

}  // namespace plait::ablate
