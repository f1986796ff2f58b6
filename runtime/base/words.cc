#include "runtime/base/words.h"

#include <algorithm>
#include <sstream>

namespace plait {
namespace {

// Insertions, deletions and replacements from one to the other.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) text.append(i == 0 ? "" : between).append(words[i]);
  return text;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, separator);) words.push_back(word);
  return words;
}

std::string nearest(const std::string& mistyped, const std::vector<std::string>& words) {
  constexpr std::size_t kLongest = 64, kTelling = 3;
  const std::string word = mistyped.substr(0, kLongest);
  auto found = words.end();
  if (word.size() >= kTelling)
    found = std::find_if(words.begin(), words.end(), [&](const auto& w) { return w.starts_with(word); });
  if (found == words.end())
    found = std::min_element(words.begin(), words.end(), [&](const auto& a, const auto& b) {
      return edit_distance(word, a) < edit_distance(word, b);
    });
  return found == words.end() ? "" : *found;
}

}  // namespace plait
