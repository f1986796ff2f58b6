#include "runtime/text/metaspace.h"

#include "runtime/base/error.h"
#include "runtime/text/utf8.h"

namespace plait {

MetaspaceOptions read_metaspace(JsonObject& object) {
  using Prepend = MetaspaceOptions::Prepend;
  MetaspaceOptions options{object.text("replacement"), Prepend::always, object.flag_or("split", true)};
  const Utf8Prefix character = first_character(options.replacement);
  if (character.state != Utf8Prefix::State::character || character.bytes != options.replacement.size())
    fail(object.where(), ": 'replacement' must be one character, found '", options.replacement.substr(0, 64),
         "'");
  const std::string scheme = object.text_or("prepend_scheme", "always");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    fail(object.where(), ": this plait does not know the prepend_scheme '", scheme.substr(0, 64), "'");
  options.prepend = scheme == "always"  ? Prepend::always
                    : scheme == "first" ? Prepend::first
                                        : Prepend::never;
  object.has("str_rep");  // older files repeat the replacement here
  if (!object.flag_or("add_prefix_space", true) && options.prepend != Prepend::never)
    fail(object.where(), ": add_prefix_space false contradicts prepend_scheme '", scheme, "'");
  return options;
}

}  // namespace plait
