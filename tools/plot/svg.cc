#include "tools/plot/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "runtime/base/error.h"
#include "tools/plot/text.h"

namespace plait::plot {
namespace {

constexpr double kOutlier = 4;   // times what the others reach
constexpr std::size_t kFew = 6;  // values, of which none is an outlier

const char* name_of(Anchor anchor) {
  return anchor == Anchor::start ? "start" : anchor == Anchor::middle ? "middle" : "end";
}

std::string polygon(double x, double y, double radius, int corners, double turn) {
  PathData data;
  for (int i = 0; i < corners; ++i) {
    const double angle = 2 * M_PI * (i + turn) / corners - M_PI / 2;
    const double px = x + radius * std::cos(angle), py = y + radius * std::sin(angle);
    i == 0 ? data.move(px, py) : data.to(px, py);
  }
  return data.close().str();
}

std::string circle(double x, double y, double r) {
  const auto arc = [&](double dx) {
    return cat("a", coordinate(r), " ", coordinate(r), " 0 1 0 ", coordinate(dx), " 0");
  };
  return cat("M", coordinate(x - r), " ", coordinate(y), arc(2 * r), arc(-2 * r), "Z");
}

// Areas are about equal.
std::string shape(int kind, double x, double y, double r) {
  switch (kind % kMarkers) {
    case 0:
      return circle(x, y, r);
    case 1:
      return polygon(x, y, 1.25 * r, 4, 0.5);
    case 2:
      return polygon(x, y + 0.2 * r, 1.4 * r, 3, 0);
    case 3:
      return polygon(x, y, 1.3 * r, 4, 0);
    case 4:
      return polygon(x, y - 0.2 * r, 1.4 * r, 3, 0.5);
    case 5:
      return polygon(x, y, 1.15 * r, 5, 0);
    case 6:
      return circle(x, y, 0.85 * r);
    default:
      return polygon(x, y, 1.1 * r, 8, 0.5);
  }
}

}  // namespace

std::string coordinate(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  std::string s = text;
  s.erase(s.find_last_not_of('0') + 1);
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

PathData& PathData::add(char command, double x, double y) {
  data_ += command + coordinate(x) + " " + coordinate(y);
  return *this;
}

PathData& PathData::close() {
  data_ += 'Z';
  return *this;
}

Svg::Svg(double width, double height, std::string_view name, std::string_view title,
         std::string_view description)
    : width_(width), height_(height) {
  const std::string id = escape_html(name);
  head_ = cat("<svg viewBox=\"0 0 ", coordinate(width), " ", coordinate(height), "\" width=\"",
              coordinate(width), "\" height=\"", coordinate(height), "\" role=\"img\" aria-labelledby=\"", id,
              "-t ", id, "-d\">", "<title id=\"", id, "-t\">", escape_html(title), "</title><desc id=\"", id,
              "-d\">", escape_html(description), "</desc>\n");
}

void Svg::element(const std::string& attributes, std::string_view name, std::string_view tip) {
  body_ += cat("<", name, " ", attributes);
  body_ += tip.empty() ? "/>\n" : cat("><title>", escape_html(tip), "</title></", name, ">\n");
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view style) {
  path(PathData().move(x1, y1).to(x2, y2).str(), style);
}

void Svg::rect(double x, double y, double w, double h, std::string_view style, std::string_view tip) {
  element(cat("class=\"", style, "\" x=\"", coordinate(x), "\" y=\"", coordinate(y), "\" width=\"",
              coordinate(std::max(0.0, w)), "\" height=\"", coordinate(std::max(0.0, h)), "\""),
          "rect", tip);
}

void Svg::path(std::string_view data, std::string_view style, std::string_view tip) {
  element(cat("class=\"", style, "\" d=\"", data, "\""), "path", tip);
}

void Svg::text(double x, double y, Anchor anchor, std::string_view style, std::string_view text) {
  body_ += cat("<text class=\"", style, "\" x=\"", coordinate(x), "\" y=\"", coordinate(y),
               "\" text-anchor=\"", name_of(anchor), "\">", escape_html(text), "</text>\n");
}

void Svg::marker(int kind, double x, double y, double radius, Fill fill, std::string_view tip) {
  path(shape(kind, x, y, radius), cat(fill == Fill::filled ? "mark k" : "mark hollow k", kind % kMarkers),
       tip);
}

void Svg::cross(double x, double y, double r, std::string_view tip) {
  path(PathData().move(x - r, y - r).to(x + r, y + r).move(x - r, y + r).to(x + r, y - r).str(), "cross",
       tip);
}

std::string Svg::str() const { return head_ + body_ + "</svg>\n"; }

std::vector<double> ticks(double low, double high, int count) {
  const double rough = (high - low) / std::max(1, count);
  if (!(rough > 0) || !std::isfinite(rough)) return {low};
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double lead = rough / power;
  const double step = power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
  std::vector<double> values;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k)
    values.push_back(k * step);
  return values;
}

std::string tick_label(double value, double step) {
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  return decimal(value, std::min(decimals, 8));
}

std::vector<double> spread(const std::vector<double>& wanted, double height, double low, double high) {
  std::vector<std::size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return wanted[a] < wanted[b]; });
  std::vector<double> placed(wanted.size());
  double next = low;
  for (const std::size_t i : order) {
    placed[i] = std::max(wanted[i], next);
    next = placed[i] + height;
  }
  double limit = high;
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    placed[*i] = std::min(placed[*i], limit);
    limit = placed[*i] - height;
  }
  return placed;
}

Range readable_range(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return {0, 1};
  std::sort(values.begin(), values.end());
  double high = std::max(0.0, values.back());
  if (values.size() >= kFew) {
    // What the values below the widest gap in their upper tenth (one at least) reach.
    const std::size_t tail = std::max<std::size_t>(1, values.size() / 10);
    for (std::size_t i = values.size() - tail; i < values.size(); ++i)
      if (values[i - 1] > 0 && values[i] > kOutlier * values[i - 1]) {
        high = values[i - 1];
        break;
      }
  }
  double low = std::min(0.0, values.front());
  if (high == low) high = low + 1;
  const double margin = 0.06 * (high - low);
  return {low < 0 ? low - margin : 0, high + margin};
}

}  // namespace plait::plot
