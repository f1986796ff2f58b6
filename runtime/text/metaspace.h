// The settings pre-tokenizer and decoder Metaspace share: spaces are written as a visible character.
#pragma once

#include <string>

#include "runtime/text/json_object.h"

namespace plait {

struct MetaspaceOptions {
  enum class Prepend { always, first, never };
  std::string replacement;  // one character, UTF-8
  Prepend prepend;
  bool split;
};

// Throws Error naming the object for anything else.
MetaspaceOptions read_metaspace(JsonObject& object);

}  // namespace plait
