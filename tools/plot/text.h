// Numbers and words as a reader sees them, and escaping for the places they go to.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace plait::plot {

// For HTML text and attributes. Broken UTF-8 and control characters become U+FFFD.
std::string escape_html(std::string_view text);
// For LaTeX text (UTF-8 input encoding).
std::string escape_latex(std::string_view text);

std::string decimal(double value, int decimals);         // "−0.12": a true minus sign
std::string signed_decimal(double value, int decimals);  // "+0.12"
// Decimals that show two digits of `scale` (a half-width of an interval, or the value itself): 0 to 6.
int decimals_for(double scale);
std::string grouped(long long value);                           // "12,345"
std::string counted(long long count, const std::string& noun);  // "1 block", "3 blocks"
std::string listed(const std::vector<std::string>& words);      // "a, b and c"
std::string probability(double p);                              // "p = 0.013", "p < 0.001"
std::string spaced(std::string name);  // "softmax_attention+mlp" -> "softmax attention + mlp"
std::string capitalised(std::string text);

// Width of a text in pixels, estimated for a wide sans-serif face, and the text cut to a width.
double text_width(std::string_view text, double font_size);
std::string fitted(std::string_view text, double width, double font_size);

}  // namespace plait::plot
