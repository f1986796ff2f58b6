#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/ablate/report/chart.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr double kNarrow = 500;  // px; below it a label stands above its dot
constexpr double kAxis = 34;
constexpr double kRadius = 4.5;
constexpr int kReference = 6;  // a grey circle

class Drawing {
 public:
  Drawing(const ForestChart& chart, double width)
      : chart_(chart),
        narrow_(width < kNarrow),
        row_(narrow_ ? 38 : 25),
        left_(narrow_ ? 6 : 4 + std::min(0.36 * width, widest_label())),
        right_(narrow_ ? width - 10 : width - widest_value() - 14),
        svg_(width, row_ * static_cast<double>(chart.rows.size()) + kAxis, chart.caption.name,
             chart.caption.title, chart.caption.description) {
    set_scale();
  }

  Svg run() {
    const double bottom = row_ * static_cast<double>(chart_.rows.size());
    axis(bottom);
    for (std::size_t i = 0; i < chart_.rows.size(); ++i) row(chart_.rows[i], row_ * static_cast<double>(i));
    return svg_;
  }

 private:
  double widest_label() const {
    double widest = 0;
    for (const auto& r : chart_.rows) widest = std::max(widest, text_width(r.label, kLabelSize));
    return widest + 10;
  }

  double widest_value() const {
    double widest = 0;
    for (const auto& r : chart_.rows) widest = std::max(widest, text_width(value_of(r), kLabelSize));
    return widest;
  }

  static std::string value_of(const ForestChart::Row& r) {
    if (r.certainty == Certainty::collapsed) return "collapsed";
    return short_amount(r.effect) +
           (r.effect.has_interval() ? cat("  [", short_interval(r.effect), "]") : "");
  }

  void set_scale() {
    std::vector<double> values;
    double reach = -1e300, depth = 0;
    for (const auto& r : chart_.rows) {
      if (r.certainty == Certainty::collapsed) continue;
      values.push_back(r.effect.value);
      if (std::isfinite(r.reference)) values.push_back(r.reference);
      reach = std::max(reach, std::isfinite(r.effect.high) ? r.effect.high : r.effect.value);
      depth = std::min(depth, std::isfinite(r.effect.low) ? r.effect.low : r.effect.value);
    }
    const Range range = readable_range(values);
    const double span = range.high - range.low;
    x_ = {std::max(std::min(range.low, depth), range.low - 0.3 * span),
          std::max(range.high, std::min(reach, range.high + 0.3 * span)), left_ + kRadius, right_ - kRadius};
  }

  void axis(double bottom) {
    const auto values = ticks(x_.from, x_.to, static_cast<int>((right_ - left_) / 70));
    const double step = values.size() > 1 ? values[1] - values[0] : 1;
    for (const double value : values) {
      svg_.line(x_(value), 2, x_(value), bottom, std::abs(value) < step / 2 ? "zero" : "grid");
      const std::string label = tick_label(value, step);
      const double half = text_width(label, kLabelSize) / 2;
      svg_.text(std::clamp(x_(value), half, svg_.width() - half), bottom + 14, Anchor::middle, "muted",
                label);
    }
    svg_.text(right_, bottom + 30, Anchor::end, "muted", chart_.unit);
  }

  void row(const ForestChart::Row& r, double top) {
    const double label_y = narrow_ ? top + 13 : top + row_ / 2 + 4;
    const double y = narrow_ ? top + 25 : top + row_ / 2;
    const bool collapsed = r.certainty == Certainty::collapsed;
    const std::string value = value_of(r);
    const double room = narrow_ ? svg_.width() - text_width(value, kLabelSize) - 14 : left_ - 8;
    svg_.text(0, label_y, Anchor::start, "label halo", fitted(r.label, room, kLabelSize));
    svg_.text(svg_.width(), label_y, Anchor::end, collapsed ? "muted number halo" : "label number halo",
              value);
    if (collapsed)
      svg_.cross(right_ - kRadius, y, kRadius, r.tip);
    else
      effect(r, y);
  }

  double at(double value) const { return x_(std::clamp(value, x_.from, x_.to)); }

  void effect(const ForestChart::Row& r, double y) {
    if (chart_.style == ForestChart::Style::bars) {
      const double zero = x_(0), end = at(r.effect.value);
      svg_.rect(std::min(zero, end), y - 5.5, std::abs(end - zero), 11, cat("fill soft k", r.kind % kMarkers),
                r.tip);
    }
    if (std::isfinite(r.reference)) {
      svg_.line(at(r.reference), y, at(r.effect.value), y, "link");
      svg_.marker(kReference, at(r.reference), y, kRadius - 0.5, Svg::Fill::hollow, r.tip);
    }
    if (r.effect.has_interval())
      svg_.line(at(r.effect.low), y, at(r.effect.high), y, cat("interval k", r.kind % kMarkers));
    if (r.effect.value > x_.to) {
      const double x = right_ + 1;
      svg_.path(PathData().move(x, y - 4.5).to(x + 7, y).to(x, y + 4.5).close().str(), "arrow", r.tip);
      return;
    }
    const auto fill = r.certainty == Certainty::clear ? Svg::Fill::filled : Svg::Fill::hollow;
    if (chart_.style == ForestChart::Style::dots)
      svg_.marker(r.kind, at(r.effect.value), y, kRadius, fill, r.tip);
  }

  const ForestChart& chart_;
  bool narrow_;
  double row_, left_, right_;
  Svg svg_;
  Scale x_;
};

}  // namespace

Svg draw(const ForestChart& chart, double width) { return Drawing(chart, width).run(); }

}  // namespace plait::ablate::report
