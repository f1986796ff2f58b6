// Text as Python's str sees it: a sequence of code points with Unicode's properties (Python 3.11's are those
// of Unicode 14; characters assigned since then count as assigned here). Text is well-formed UTF-8
// throughout.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace plait::python {

std::u32string wide(std::string_view text);
std::string narrow(std::u32string_view text);
void append(std::string& text, char32_t character);

std::size_t length(std::string_view text);  // code points
// Code points first, first + step, ..: `count` of them, all inside the text.
std::string pick(std::string_view text, std::ptrdiff_t first, std::ptrdiff_t step, std::size_t count);

bool is_space(char32_t c);      // str.isspace, what strip() takes away and \s matches
bool is_word(char32_t c);       // \w
bool is_printable(char32_t c);  // what repr leaves as it is
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_title(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swapcase(std::string_view text);

// True if there is at least one character and all are of the class; upper, lower and title look at cased
// characters only, as Python does.
bool all(std::string_view text, bool (*of_class)(char32_t));
bool all_upper(std::string_view text);
bool all_lower(std::string_view text);

enum class Side { left, right, both };
std::string_view strip(std::string_view text, Side side);                          // white space
std::string_view strip(std::string_view text, Side side, std::string_view chars);  // any of these characters

// `limit` splits at most, negative for all. Without a separator: at runs of white space, no empty pieces.
std::vector<std::string> split(std::string_view text, std::ptrdiff_t limit, Side from);
// The separator is not empty.
std::vector<std::string> split(std::string_view text, std::string_view separator, std::ptrdiff_t limit,
                               Side from);
enum class LineEnds { drop, keep };
std::vector<std::string> split_lines(std::string_view text, LineEnds ends);

std::string replace(std::string_view text, std::string_view from, std::string_view to, std::ptrdiff_t limit);
std::string repr(std::string_view text);
std::string repr_escape(char32_t c);  // \xe9, \u20ac, \U0001f408
std::string repr(double value);       // shortest digits that read back, as Python writes floats

}  // namespace plait::python
