// Lists of words as one text, and back.
#pragma once

#include <string>
#include <vector>

namespace plait {

// "a, b": the words with `between` between them.
std::string joined(const std::vector<std::string>& words, const char* between = ", ");
// "a;b" at ';': "a", "b". A separator at the end begins no further word.
std::vector<std::string> split(const std::string& text, char separator);

}  // namespace plait
