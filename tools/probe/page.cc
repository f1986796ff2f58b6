// The figures of a probe as one file: an SVG or a page.
#include "runtime/base/error.h"
#include "tools/plot/figure.h"
#include "tools/plot/style.h"
#include "tools/plot/text.h"
#include "tools/probe/probe.h"

namespace plait::probe {
namespace {

using namespace plot;

constexpr double kMargin = 24, kGap = 36;  // px

}  // namespace

std::string svg_of(const Findings& findings) {
  std::string body;
  double y = kMargin;
  for (std::size_t i = 0; i < findings.figures.size(); ++i) {
    const Svg figure = findings.figures[i].draw(cat("figure-", i + 1), kWide);
    body += cat("<g transform=\"translate(", coordinate(kMargin), " ", coordinate(y), ")\">", figure.str(),
                "</g>\n");
    y += figure.height() + kGap;
  }
  const std::string width = coordinate(kWide + 2 * kMargin), height = coordinate(y - kGap + kMargin);
  return cat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", width, " ", height, "\" width=\"",
             width, "\" height=\"", height, "\">\n<style>", style_sheet(),
             "svg { font-family: system-ui, \"Liberation Sans\", Arial, sans-serif; }\n</style>\n",
             "<rect style=\"fill: var(--paper)\" width=\"", width, "\" height=\"", height, "\"/>\n", body,
             "</svg>\n");
}

std::string page_of(const Entry& entry, const Findings& findings) {
  const std::string title = capitalised(spaced(entry.name));
  std::string page =
      cat("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          title, "</title>\n<style>", style_sheet(), "</style>\n</head>\n<body>\n<main>\n<h1>", title,
          "</h1>\n<p class=\"deck\">", escape_html(entry.help), "</p>\n");
  for (std::size_t i = 0; i < findings.figures.size(); ++i) {
    const Figure& figure = findings.figures[i];
    page += figure_at_both_widths(figure.draw, cat("figure-", i + 1), escape_html(figure.caption));
  }
  return page + cat("<h2>In numbers</h2>\n<div class=\"scroll\"><pre>", escape_html(findings.text),
                    "</pre></div>\n</main>\n</body>\n</html>\n");
}

}  // namespace plait::probe
