// Lists of words: as one text, and back; the one that was meant.
#pragma once

#include <string>
#include <vector>

namespace plait {

// "a, b": the words with `between` between them.
std::string joined(const std::vector<std::string>& words, const char* between = ", ");
// "a;b" at ';': "a", "b". A separator at the end begins no further word.
std::vector<std::string> split(const std::string& text, char separator);
// The word that was most likely meant: the first that begins with what was typed (3 bytes or more), else the
// first of those at the least edit distance from its first 64 bytes. Empty if there are no words.
std::string nearest(const std::string& mistyped, const std::vector<std::string>& words);

}  // namespace plait
