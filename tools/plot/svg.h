// Drawing of one figure as inline SVG. Colours and fonts come from the page's style sheet, by class.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace plait::plot {

enum class Anchor { start, middle, end };
inline constexpr double kLabelSize = 12;  // px; class "label", and every other text of a figure

// Lengths in px. `name` is unique on the page; title and description are what a screen reader says.
class Svg {
 public:
  Svg(double width, double height, std::string_view name, std::string_view title,
      std::string_view description);

  double width() const { return width_; }
  double height() const { return height_; }
  void line(double x1, double y1, double x2, double y2, std::string_view style);
  // Rectangles, paths and markers may carry a tip, shown where a pointer rests on them.
  void rect(double x, double y, double w, double h, std::string_view style, std::string_view tip = {});
  void path(std::string_view data, std::string_view style, std::string_view tip = {});
  void text(double x, double y, Anchor anchor, std::string_view style, std::string_view text);
  // Shape and colour of one of kMarkers kinds, filled or hollow.
  enum class Fill { filled, hollow };
  void marker(int kind, double x, double y, double radius, Fill fill, std::string_view tip = {});
  void cross(double x, double y, double radius, std::string_view tip = {});
  std::string str() const;  // the whole element

 private:
  void element(const std::string& body, std::string_view name, std::string_view tip);
  double width_, height_;
  std::string head_, body_;
};

inline constexpr int kMarkers = 8;  // kinds told apart by colour (class k0..) and shape

std::string coordinate(double value);  // at most two decimals
// Path data: "M x y L x y ..".
class PathData {
 public:
  PathData& move(double x, double y) { return add('M', x, y); }
  PathData& to(double x, double y) { return add('L', x, y); }
  PathData& close();
  const std::string& str() const { return data_; }
  bool empty() const { return data_.empty(); }

 private:
  PathData& add(char command, double x, double y);
  std::string data_;
};

// From data to pixels, linear.
struct Scale {
  double from = 0, to = 1, start = 0, end = 1;
  double operator()(double value) const { return start + (value - from) / (to - from) * (end - start); }
};

// Round values (1, 2, 5 times a power of ten) in [low, high], about `count` of them, and their labels.
std::vector<double> ticks(double low, double high, int count);
std::string tick_label(double value, double step);

// Positions of labels of height `height` near `wanted`, in order, none over another, within [low, high] where
// they fit.
std::vector<double> spread(const std::vector<double>& wanted, double height, double low, double high);

// A range that shows most effects well: an outlier more than four times the rest is left beyond its end, to
// be drawn as such. Always holds zero.
struct Range {
  double low = 0, high = 1;
};
Range readable_range(std::vector<double> values);

}  // namespace plait::plot
