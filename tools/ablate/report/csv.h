// Strict reading of CSV files (RFC 4180) with a header: what is no such file is refused by line and column.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace plait::ablate::report {

// Lines end in LF or CRLF; a field that holds a comma, a quote or a line end is quoted, its quotes doubled.
// Every row has as many fields as the header. Throws Error otherwise. `path` names the file in messages.
class CsvTable {
 public:
  CsvTable(std::string_view text, std::string path);

  const std::string& path() const { return path_; }
  std::size_t size() const { return rows_.size(); }
  bool has(const std::string& column) const;
  // Throws Error naming all columns that are absent.
  void require(const std::vector<std::string>& columns) const;

  // Fields of a row. A column that the file lacks reads as an empty field.
  std::string_view text(std::size_t row, const std::string& column) const;
  double number(std::size_t row, const std::string& column) const;  // NaN where empty or "nan"
  long long integer(std::size_t row, const std::string& column, long long absent) const;
  bool flag(std::size_t row, const std::string& column) const;  // true, false, 1, 0; empty is false

  // Throws Error: file, line of the row, column, value, and what is wrong.
  [[noreturn]] void refuse(std::size_t row, const std::string& column, const std::string& why) const;

 private:
  struct Row {
    int line = 0;
    std::vector<std::string> fields;
  };
  int find(const std::string& column) const;  // -1 where absent

  std::string path_;
  std::vector<std::string> columns_;
  std::vector<Row> rows_;
};

// A field as CSV wants it written: quoted where need be.
std::string csv_field(std::string_view text);

}  // namespace plait::ablate::report
