#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/ablate/report/chart.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr double kPanel = 62, kHead = 48, kFoot = 36,
                 kCollapsed = 84;  // px; the last: room for the column of collapsed draws
constexpr int kBins = 48, kNarrowBins = 32;

class Drawing {
 public:
  Drawing(const ControlChart& chart, double width)
      : chart_(chart),
        bins_(width < 500 ? kNarrowBins : kBins),
        right_(width - (any_collapsed() ? kCollapsed : 4)),
        svg_(width, static_cast<double>(chart.panels.size()) * (kPanel + kHead) + kFoot, chart.caption.name,
             chart.caption.title, chart.caption.description) {
    set_scale();
  }

  Svg run() {
    double y = 0;
    for (const auto& p : chart_.panels) {
      panel(p, y + kHead);
      y += kPanel + kHead;
    }
    axis(y);
    return svg_;
  }

 private:
  bool any_collapsed() const {
    return std::any_of(chart_.panels.begin(), chart_.panels.end(), [](const auto& p) {
      return p.target_collapsed ||
             std::any_of(p.draws.begin(), p.draws.end(), [](const auto& d) { return d.collapsed; });
    });
  }

  void set_scale() {
    double low = 0, high = 0;
    for (const auto& p : chart_.panels) {
      for (const auto& d : p.draws)
        if (!d.collapsed) low = std::min(low, d.harm), high = std::max(high, d.harm);
      if (!p.target_collapsed) low = std::min(low, p.target.value), high = std::max(high, p.target.value);
    }
    if (high == low) high = low + 1;
    x_ = {low, high + 0.02 * (high - low), 4, right_};
  }

  void panel(const ControlChart::Panel& p, double top) {
    svg_.text(0, top - 26, Anchor::start, "strong", fitted(p.title, svg_.width(), 1.2 * kLabelSize));
    svg_.text(0, top - 10, Anchor::start, "label", fitted(p.verdict, svg_.width(), kLabelSize));
    histogram(p, top);
    svg_.line(4, top + kPanel, right_, top + kPanel, "zero");
    target(p, top);
  }

  // Two shades: sets that hold block 0, on which much depends in most models, below the others.
  void histogram(const ControlChart::Panel& p, double top) {
    std::vector<int> with(static_cast<std::size_t>(bins_)), all(with);
    int lost = 0;
    for (const auto& d : p.draws) {
      if (d.collapsed) {
        ++lost;
        continue;
      }
      const double share = (d.harm - x_.from) / (x_.to - x_.from);
      const auto bin = static_cast<std::size_t>(std::clamp(static_cast<int>(share * bins_), 0, bins_ - 1));
      ++all[bin];
      with[bin] += d.with_block_0;
    }
    const int most = std::max(1, *std::max_element(all.begin(), all.end()));
    columns(with, std::vector<int>(with.size(), 0), most, top, "draws-0");
    columns(all, with, most, top, "draws");
    if (any_collapsed()) collapsed(lost, p.draws.size(), top);
  }

  void columns(const std::vector<int>& counts, const std::vector<int>& below, int most, double top,
               const char* style) {
    PathData data;
    const double width = (x_.end - x_.start) / bins_, unit = (kPanel - 10) / most, bottom = top + kPanel;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == below[i]) continue;
      const double x = x_.start + width * static_cast<double>(i);
      const double low = bottom - unit * below[i], high = bottom - unit * counts[i];
      data.move(x + 0.5, low).to(x + 0.5, high).to(x + width - 0.5, high).to(x + width - 0.5, low).close();
    }
    if (!data.empty()) svg_.path(data.str(), style);
  }

  void collapsed(int lost, std::size_t draws, double top) {
    const double height = draws == 0 ? 0 : (kPanel - 10) * lost / static_cast<double>(draws);
    const double x = right_ + 14;
    svg_.rect(x, top + kPanel - height, svg_.width() - x, height, "gone");
    svg_.line(x, top + kPanel, svg_.width(), top + kPanel, "zero");
    svg_.text((x + svg_.width()) / 2, top + kPanel - height - 4, Anchor::middle, "label",
              std::to_string(lost));
  }

  void target(const ControlChart::Panel& p, double top) {
    const double x = p.target_collapsed ? (right_ + 14 + svg_.width()) / 2 : x_(p.target.value);
    if (!p.target_collapsed && p.target.has_interval()) {
      const double from = std::max(x_(p.target.low), x_.start), to = std::min(x_(p.target.high), x_.end);
      svg_.rect(from, top, to - from, kPanel, "target-band");
    }
    svg_.line(x, top, x, top + kPanel, "target");
    if (p.target_collapsed) return;
    const std::string text = short_amount(p.target);
    const bool left = x + 6 + text_width(text, kLabelSize) > right_;
    svg_.text(x + (left ? -6 : 6), top + 10, left ? Anchor::end : Anchor::start, "label target-text halo",
              text);
  }

  void axis(double y) {
    const auto values = ticks(x_.from, x_.to, static_cast<int>((right_ - 4) / 70));
    const double step = values.size() > 1 ? values[1] - values[0] : 1;
    for (const double value : values) {
      const double half = text_width(tick_label(value, step), kLabelSize) / 2;
      svg_.text(std::max(half, x_(value)), y + 15, Anchor::middle, "muted", tick_label(value, step));
    }
    if (any_collapsed()) svg_.text(svg_.width(), y + 15, Anchor::end, "muted", "collapsed");
    svg_.text(right_, y + 32, Anchor::end, "muted", chart_.unit);
  }

  const ControlChart& chart_;
  int bins_;
  double right_;
  Svg svg_;
  Scale x_;
};

}  // namespace

Svg draw(const ControlChart& chart, double width) { return Drawing(chart, width).run(); }

}  // namespace plait::ablate::report
