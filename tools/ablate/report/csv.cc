#include "tools/ablate/report/csv.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

#include "runtime/base/error.h"

namespace plait::ablate::report {
namespace {

// Walks over the text once; a quoted field may run over several lines.
class Scanner {
 public:
  Scanner(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  bool done() const { return at_ == text_.size(); }
  int line() const { return line_; }

  std::vector<std::string> row() {
    std::vector<std::string> fields;
    do fields.push_back(field());
    while (take(','));
    if (!done() && !line_end())
      fail("'", path_, "' line ", line_, ": a quoted field is followed by text before the next comma");
    return fields;
  }

 private:
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool line_end() {
    const std::size_t start = at_;
    take('\r');
    if (take('\n')) {
      ++line_;
      return true;
    }
    at_ = start;
    return false;
  }

  std::string field() { return take('"') ? quoted() : plain(); }

  std::string plain() {
    const std::size_t start = at_;
    while (!done() && text_[at_] != ',' && text_[at_] != '\n' && text_[at_] != '\r') {
      if (text_[at_] == '"') fail("'", path_, "' line ", line_, ": a quote stands inside an unquoted field");
      ++at_;
    }
    if (!done() && text_[at_] == '\r' && text_.substr(at_, 2) != "\r\n")
      fail("'", path_, "' line ", line_, ": a carriage return stands without a line feed");
    return std::string(text_.substr(start, at_ - start));
  }

  std::string quoted() {
    const int opened = line_;
    std::string field;
    while (!done()) {
      const char c = text_[at_++];
      if (c == '"' && !take('"')) return field;
      line_ += c == '\n';
      field += c;
    }
    fail("'", path_, "' line ", opened, ": a quoted field is not closed");
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

CsvTable::CsvTable(std::string_view text, std::string path) : path_(std::move(path)) {
  Scanner scanner(text, path_);
  if (scanner.done()) fail("'", path_, "' is empty: a header line is missing");
  columns_ = scanner.row();
  std::set<std::string> seen;
  for (const std::string& column : columns_)
    if (!seen.insert(column).second) fail("'", path_, "' line 1: column '", column, "' stands there twice");
  while (!scanner.done()) {
    const int line = scanner.line();
    rows_.push_back({line, scanner.row()});
    if (rows_.back().fields.size() != columns_.size())
      fail("'", path_, "' line ", line, " has ", rows_.back().fields.size(), " fields, the header has ",
           columns_.size());
  }
}

int CsvTable::find(const std::string& column) const {
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  return found == columns_.end() ? -1 : static_cast<int>(found - columns_.begin());
}

bool CsvTable::has(const std::string& column) const { return find(column) >= 0; }

void CsvTable::require(const std::vector<std::string>& columns) const {
  std::string missing;
  for (const std::string& column : columns)
    if (!has(column)) missing += (missing.empty() ? "'" : ", '") + column + "'";
  if (!missing.empty()) fail("'", path_, "' lacks ", missing, " among its columns");
}

std::string_view CsvTable::text(std::size_t row, const std::string& column) const {
  const int c = find(column);
  return c < 0 ? std::string_view() : std::string_view(rows_[row].fields[static_cast<std::size_t>(c)]);
}

double CsvTable::number(std::size_t row, const std::string& column) const {
  const std::string_view field = text(row, column);
  if (field.empty()) return std::numeric_limits<double>::quiet_NaN();
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) refuse(row, column, "is no number");
  return value;
}

long long CsvTable::integer(std::size_t row, const std::string& column, long long absent) const {
  const std::string_view field = text(row, column);
  if (field.empty()) return absent;
  long long value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) refuse(row, column, "is no whole number");
  return value;
}

bool CsvTable::flag(std::size_t row, const std::string& column) const {
  const std::string_view field = text(row, column);
  if (field == "true" || field == "1") return true;
  if (field.empty() || field == "false" || field == "0") return false;
  refuse(row, column, "is neither true nor false");
}

void CsvTable::refuse(std::size_t row, const std::string& column, const std::string& why) const {
  fail("'", path_, "' line ", rows_[row].line, ": column '", column, "' holds '", text(row, column),
       "', which ", why);
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace plait::ablate::report
