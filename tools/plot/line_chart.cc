#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/plot/text.h"

namespace plait::plot {
namespace {

constexpr double kLeft = 44, kHead = 46, kPanel = 128, kGap = 34, kStrip = 8, kFoot = 38;
constexpr double kCollapsedBand = 16;  // above the scale: where collapsed conditions stand
constexpr double kLine = 14, kRadius = 3.4;
constexpr double kMostPowers = 5;                // of ten, on a tenfold scale
constexpr double kBoldSize = 1.18 * kLabelSize;  // bold faces are wider
constexpr const char* kCollapsed = "\u00d7 collapsed";

class Drawing {
 public:
  Drawing(const LineChart& chart, double width)
      : chart_(chart),
        band_(any_collapsed() ? kCollapsedBand : 0),
        pitch_(kHead + band_ + kPanel + kGap),
        right_(width - name_space(width)),
        svg_(width,
             static_cast<double>(chart.panels.size()) * pitch_ - kGap + kFoot +
                 (chart.strip.empty() ? 0 : kStrip + 4),
             chart.caption.name, chart.caption.title, chart.caption.description) {
    set_scales();
  }

  Svg run() {
    for (std::size_t p = 0; p < chart_.panels.size(); ++p) panel(chart_.panels[p], top_of(p));
    axis(top_of(chart_.panels.size() - 1) + kPanel);
    return svg_;
  }

 private:
  double top_of(std::size_t p) const { return kHead + band_ + static_cast<double>(p) * pitch_; }

  template <class F>
  void for_each_point(F&& f) const {
    for (const auto& p : chart_.panels)
      for (const auto& s : p.series)
        for (const auto& point : s.points) f(point);
  }

  bool any_collapsed() const {
    bool any = false;
    for_each_point([&](const auto& p) { any = any || p.certainty == Certainty::collapsed; });
    return any;
  }

  // Room for the names at the ends of the lines.
  double name_space(double width) const {
    double widest = 0;
    for (const auto& p : chart_.panels)
      for (const auto& s : p.series) widest = std::max(widest, text_width(s.name, kBoldSize));
    return widest == 0 ? 8 : std::min(widest + 12, 0.34 * width);
  }

  double position(double x) const {
    return chart_.axis == LineChart::Axis::doubling  ? std::log2(x)
           : chart_.axis == LineChart::Axis::tenfold ? std::log10(x)
                                                     : x;
  }

  double height(double value) const {
    if (chart_.scale == LineChart::Scale::linear) return value;
    return value > 0 ? std::log10(value) : -HUGE_VAL;
  }

  // Powers of ten from the least value to the largest end of an interval.
  Scale tenfold_scale() const {
    double low = HUGE_VAL, high = -HUGE_VAL;
    for_each_point([&](const auto& p) {
      if (!(p.effect.value > 0)) return;
      low = std::min(low, height(p.effect.value));
      high = std::max(high, height(p.effect.has_interval() ? p.effect.high : p.effect.value));
    });
    if (low > high) low = high = 0;
    low = std::max(low, high - kMostPowers);
    const double pad = std::max(0.06 * (high - low), 0.05);
    return {low - pad, high + pad, kPanel, 0};
  }

  void set_scales() {
    std::vector<double> values;
    double low = 1e300, high = -1e300, extreme = 0;
    for_each_point([&](const auto& p) {
      low = std::min(low, position(p.x)), high = std::max(high, position(p.x));
      if (p.certainty == Certainty::collapsed) return;
      values.push_back(p.effect.value);
      extreme = std::min(extreme, std::isfinite(p.effect.low) ? p.effect.low : p.effect.value);
    });
    const Range range = readable_range(values);
    const double pad = chart_.strip.empty() ? 0.04 * (high - low) : 0.5;
    x_ = {low - pad, high + std::max(pad, low == high ? 0.5 : 0), kLeft, right_};
    if (chart_.scale == LineChart::Scale::tenfold) {
      y_ = tenfold_scale();
      return;
    }
    // Intervals may reach below what the estimates do, but not squeeze them.
    y_ = {std::max(extreme, range.low - 0.3 * (range.high - range.low)), range.high, kPanel, 0};
    if (y_.from < 0 && y_.from > range.low) y_.from = range.low;
  }

  double y_at(double value, double top) const { return top + y_(std::clamp(height(value), y_.from, y_.to)); }

  void panel(const LineChart::Panel& panel, double top) {
    svg_.text(0, top - band_ - 30, Anchor::start, "strong",
              fitted(panel.title, svg_.width(), 1.08 * kBoldSize));
    svg_.text(0, top - band_ - 14, Anchor::start, "muted", chart_.unit);
    grid(top);
    if (band_ > 0) svg_.text(svg_.width(), top - band_ - 14, Anchor::end, "muted", kCollapsed);
    for (const auto& series : panel.series) curve(series, top);
    for (const auto& series : panel.series) marks(series, top);
    names(panel, top);
  }

  void grid(double top) {
    if (chart_.scale == LineChart::Scale::tenfold) return tenfold_grid(top);
    const auto values = ticks(y_.from, y_.to, 4);
    const double step = values.size() > 1 ? values[1] - values[0] : 1;
    for (const double value : values) {
      const double y = top + y_(value);
      svg_.line(kLeft, y, right_, y, std::abs(value) < step / 2 ? "zero" : "grid");
      svg_.text(kLeft - 6, y + 4, Anchor::end, "muted", tick_label(value, step));
    }
  }

  // Lines at powers of ten; where fewer than two fit, also at twice and five times each.
  void tenfold_grid(double top) {
    const bool wide = std::floor(y_.to) - std::ceil(y_.from) >= 1;
    for (double power = std::floor(y_.from); power <= y_.to; power += 1)
      for (const int lead : {1, 2, 5}) {
        const double at = power + std::log10(lead);
        if ((wide && lead > 1) || at < y_.from || at > y_.to) continue;
        svg_.line(kLeft, top + y_(at), right_, top + y_(at), "grid");
        svg_.text(kLeft - 6, top + y_(at) + 4, Anchor::end, "muted",
                  power < -3 ? short_power(lead, static_cast<int>(power))
                             : tick_label(lead * std::pow(10.0, power), std::pow(10.0, power)));
      }
  }

  // "2e\u22124": of what has no room for its zeros.
  static std::string short_power(int lead, int power) { return cat(lead, "e\u2212", -power); }

  // The line breaks where a condition collapsed: nothing leads there.
  void curve(const LineChart::Series& series, double top) {
    std::vector<const LineChart::Point*> piece;
    for (const auto& p : series.points) {
      if (p.certainty != Certainty::collapsed) {
        piece.push_back(&p);
        continue;
      }
      draw_piece(piece, series.colour, top);
      piece.clear();
    }
    draw_piece(piece, series.colour, top);
  }

  void draw_piece(const std::vector<const LineChart::Point*>& piece, int colour, double top) {
    if (piece.empty()) return;
    PathData line, band;
    for (const auto* p : piece) {
      const double x = x_(position(p->x)), y = y_at(p->effect.value, top);
      line.empty() ? line.move(x, y) : line.to(x, y);
    }
    const bool intervals =
        std::all_of(piece.begin(), piece.end(), [](auto* p) { return p->effect.has_interval(); });
    if (intervals && piece.size() > 1) {
      for (const auto* p : piece) {
        const double x = x_(position(p->x)), y = y_at(p->effect.high, top);
        band.empty() ? band.move(x, y) : band.to(x, y);
      }
      for (auto p = piece.rbegin(); p != piece.rend(); ++p)
        band.to(x_(position((*p)->x)), y_at((*p)->effect.low, top));
      svg_.path(band.close().str(), cat("band s", colour));
    }
    svg_.path(line.str(), cat("curve s", colour));
  }

  void marks(const LineChart::Series& series, double top) {
    // Many points stand close: smaller marks.
    const double room = (right_ - kLeft) / std::max<double>(1, static_cast<double>(series.points.size()));
    const double radius = std::clamp(room / 2.4, 1.6, kRadius);
    for (const auto& p : series.points) {
      const double x = x_(position(p.x));
      if (p.certainty == Certainty::collapsed) {
        svg_.cross(x, top - band_ / 2 - 2, radius, p.tip);
        continue;
      }
      const auto fill = p.certainty == Certainty::clear ? Svg::Fill::filled : Svg::Fill::hollow;
      svg_.marker(p.kind, x, y_at(p.effect.value, top), radius, fill, p.tip);
      if (height(p.effect.value) > y_.to) beyond(x, top, p);
    }
  }

  // A value past the end of the scale is written out, below those whose place it would take; once where two
  // points say the same.
  void beyond(double x, double top, const LineChart::Point& p) {
    svg_.path(PathData().move(x - 3.5, top - 5).to(x + 3.5, top - 5).to(x, top - 11).close().str(), "arrow");
    const bool left = x > (kLeft + right_) / 2;
    Written own{x + 8, top + 3, short_amount(p.effect)};
    if (left) own.x = x - 8 - text_width(own.text, kLabelSize);
    for (const Written& other : written_) {
      const bool apart = own.x > other.x + text_width(other.text, kLabelSize) ||
                         other.x > own.x + text_width(own.text, kLabelSize);
      if (apart || own.y != other.y) continue;
      if (own.text == other.text) return;
      own.y += kLine;
    }
    svg_.text(left ? x - 8 : x + 8, own.y, left ? Anchor::end : Anchor::start, "label halo", own.text);
    const auto below = [](const Written& a, const Written& b) { return a.y < b.y; };
    written_.insert(std::upper_bound(written_.begin(), written_.end(), own, below), own);
  }

  void names(const LineChart::Panel& panel, double top) {
    std::vector<double> wanted;
    bool broken = false;
    for (const auto& s : panel.series) {
      wanted.push_back(end_of(s, top));
      broken = broken || text_width(s.name, kBoldSize) > svg_.width() - right_ - 8;
    }
    const auto placed = spread(wanted, broken ? 2 * kLine : kLine, top - band_, top + kPanel);
    for (std::size_t i = 0; i < wanted.size(); ++i) name(panel.series[i], placed[i] + 4);
  }

  // On two lines where it is too long for one and has a space to break at.
  void name(const LineChart::Series& s, double y) {
    const double room = svg_.width() - right_ - 8;
    const std::string style = cat("bold t", s.colour);
    std::size_t space = s.name.rfind(' ');
    while (space != std::string::npos && text_width(s.name.substr(0, space), kBoldSize) > room && space > 0)
      space = s.name.rfind(' ', space - 1);
    const bool whole = text_width(s.name, kBoldSize) <= room || space == std::string::npos;
    svg_.text(right_ + 8, y, Anchor::start, style,
              fitted(whole ? s.name : s.name.substr(0, space), room, kBoldSize));
    if (!whole)
      svg_.text(right_ + 8, y + kLine, Anchor::start, style,
                fitted(s.name.substr(space + 1), room, kBoldSize));
  }

  double end_of(const LineChart::Series& s, double top) const {
    const auto last = std::find_if(s.points.rbegin(), s.points.rend(),
                                   [](const auto& p) { return p.certainty != Certainty::collapsed; });
    return last == s.points.rend() || last != s.points.rbegin() ? top - band_ / 2
                                                                : y_at(last->effect.value, top);
  }

  void axis(double y) {
    if (!chart_.strip.empty()) {
      strip(y + 4);
      y += kStrip + 4;
    }
    for (const double value : x_values()) {
      const double at = position(value);
      svg_.line(x_(at), y + 1, x_(at), y + 5, "tick");
      svg_.text(x_(at), y + 17, Anchor::middle, "muted", tick_text(value));
    }
    svg_.text(right_, y + 33, Anchor::end, "muted", chart_.x_label);
  }

  std::vector<double> x_values() const {
    if (chart_.axis == LineChart::Axis::linear) {
      const double room = (right_ - kLeft) / (chart_.strip.empty() ? 50 : 34);
      auto values = ticks(x_.from, x_.to, static_cast<int>(room));
      // Blocks and counts have no halves.
      if (!chart_.strip.empty() || x_.to - x_.from > 3)
        std::erase_if(values, [](double v) { return v != std::round(v); });
      return values;
    }
    std::vector<double> values;
    for (double e = std::ceil(x_.from); e <= x_.to; e += 1)
      values.push_back(chart_.axis == LineChart::Axis::doubling ? std::exp2(e) : std::pow(10.0, e));
    while (static_cast<double>(values.size()) * 52 > right_ - kLeft && values.size() > 2) {
      std::vector<double> half;
      for (std::size_t i = 0; i < values.size(); i += 2) half.push_back(values[i]);
      values = half;
    }
    return values;
  }

  std::string tick_text(double value) const {
    if (value == std::round(value)) return grouped(static_cast<long long>(value));
    if (chart_.axis == LineChart::Axis::doubling && value < 1) return cat("1/", std::lround(1 / value));
    return tick_label(value, std::min(value, 0.1));
  }

  void strip(double y) {
    for (std::size_t i = 0; i < chart_.strip.size(); ++i) {
      const double left = x_(static_cast<double>(i) - 0.5), right = x_(static_cast<double>(i) + 0.5);
      if (left < kLeft - 1 || right > right_ + 1) continue;
      const double gap = right - left > 6 ? 1 : 0;
      svg_.rect(left, y, right - left - gap, kStrip, cat("fill k", chart_.strip[i] % kMarkers));
    }
  }

  struct Written {
    double x, y;  // of its first letter
    std::string text;
  };
  const LineChart& chart_;
  double band_, pitch_, right_;
  Svg svg_;
  std::vector<Written> written_;  // past the end of the scale, from the top down
  Scale x_, y_;
};

}  // namespace

Svg draw(const LineChart& chart, double width) { return Drawing(chart, width).run(); }

}  // namespace plait::plot
