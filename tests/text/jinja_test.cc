// The template interpreter against Jinja's own results (make_chat_goldens.py, fuzz_jinja.py) and against
// hostile templates.
#include "runtime/text/jinja.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace plait::jinja {
namespace {

std::string render(const std::string& source, const OrderedJson& variables = OrderedJson::object()) {
  return Template(source, "t").render(variables, 0);
}

std::string sentence(const std::string& source, const OrderedJson& variables = OrderedJson::object()) {
  try {
    return "no error, but: " + render(source, variables);
  } catch (const Error& error) {
    return error.what();
  }
}

// A case without `expected` is one where Jinja raises.
void check(const OrderedJson& one) {
  const auto source = one["template"].get<std::string>();
  std::string text, error;
  try {
    text = render(source, one["variables"]);
  } catch (const Error& caught) {
    error = caught.what();
  }
  const std::string shown = source + "\nwith " + one["variables"].dump();
  if (!one.contains("expected")) {
    EXPECT_NE(error, "") << shown << "\nrendered: " << text;
  } else {
    EXPECT_EQ(error, "") << shown << "\nexpected: " << one["expected"];
    EXPECT_EQ(text, error.empty() ? one["expected"].get<std::string>() : "") << shown;
  }
}

// jinja_cases.json, or the file fuzz_jinja.py names.
TEST(Jinja, RendersAsJinja) {
  const char* named = std::getenv("PLAIT_JINJA_CASES");
  const std::string path = named ? named : PLAIT_SOURCE_DIR "/tests/text/jinja_cases.json";
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << path;
  const OrderedJson cases = OrderedJson::parse(file);
  ASSERT_FALSE(cases.empty());
  for (const OrderedJson& one : cases) check(one);
}

TEST(Jinja, NamesLineAndConstruct) {
  EXPECT_EQ(sentence("a\n{% include 'x' %}"), "t: line 2: the statement 'include' is not interpreted");
  EXPECT_EQ(sentence("\n\n{{ [1]|groupby('x') }}"), "t: line 3: the filter 'groupby' is not interpreted");
  EXPECT_EQ(sentence("{{ 1|nonsense }}"), "t: line 1: there is no filter 'nonsense'");
  EXPECT_EQ(sentence("{{ 1 is odder }}"), "t: line 1: there is no test 'odder'");
  EXPECT_EQ(sentence("{{ 'a{}'.format(1) }}"), "t: line 1: the method 'format' of str is not interpreted");
  EXPECT_EQ(sentence("{{ x.y }}"), "t: line 1: 'x' is undefined");
  EXPECT_EQ(sentence("{% for a in b recursive %}{% endfor %}"),
            "t: line 1: a recursive loop is not interpreted");
  EXPECT_EQ(sentence("{{ 1"), "t: line 1: the tag that begins here has no end");
  EXPECT_EQ(sentence("{% if x %}"), "t: line 1: the template ends where 'endif' is due");
  EXPECT_EQ(sentence("{{ 9223372036854775807 + 1 }}"),
            "t: line 1: an integer leaves 64 bits, which plait does not interpret");
  EXPECT_EQ(sentence("{{ x|map('upper') }}", {{"x", {"a"}}}),
            "t: line 1: what the filter 'map' yields is printed without the filter 'list'");
}

TEST(Jinja, WhatATemplateRaisesIsItsOwnSentence) {
  try {
    render("{{ raise_exception('roles must alternate') }}");
    FAIL() << "nothing is raised";
  } catch (const Raised& error) {
    EXPECT_STREQ(error.what(), "roles must alternate");
  }
}

TEST(Jinja, ShowsTheTime) {
  setenv("TZ", "UTC", 1);
  tzset();
  EXPECT_EQ(
      Template("{{ strftime_now('%d %b %Y, %H:%M%Z') }}", "t").render(OrderedJson::object(), 86400 * 365),
      "01 Jan 1971, 00:00");
}

TEST(Jinja, HostileTemplatesEnd) {
  const auto ends_with = [](const std::string& source, const std::string& part) {
    const std::string error = sentence(source);
    EXPECT_NE(error.find(part), std::string::npos) << source.substr(0, 200) << "\n" << error.substr(0, 200);
  };
  ends_with("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "steps");
  ends_with("{{ 'x' * 10000000000 }}", "bytes");
  ends_with("{{ [1] * 10000000000 }}", "bytes");
  ends_with("{{ ('x' * 100000000)|replace('x', 'y' * 1000) }}", "bytes");
  ends_with("{{ 'x'|center(99999999999) }}", "bytes");
  ends_with("{{ 'x'|indent(99999999999) }}", "bytes");
  ends_with("{% set n = namespace(x='x') %}{% for a in range(100) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "bytes");
  ends_with("{% set n = namespace(x=[]) %}{% for a in range(1000) %}{% set n.x = [n.x] %}{% endfor %}",
            "nested");
  ends_with(
      "{% set n = namespace(x=[1]) %}{% for a in range(1000) %}{% set n.x = n.x|map('abs') %}{% endfor %}",
      "nested");
  // Shared parts: a tree of 2^150 leaves.
  const std::string tree =
      "{% set n = namespace(x=1) %}{% for a in range(150) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
  ends_with(tree + "{{ n.x }}", "steps");
  ends_with(tree + "{{ n.x|tojson }}", "steps");
  ends_with(tree + "{{ n.x == n.x }}", "steps");
  ends_with("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "levels deep");
  ends_with("{{ " + std::string(100000, '(') + "1" + std::string(100000, ')') + " }}", "deep");
  ends_with("{{ " + std::string(100000, '-') + "1 }}", "deep");
  ends_with(
      "{{ 1" +
          [] {
            std::string s;
            for (int i = 0; i < 100000; ++i) s += "+1";
            return s;
          }() +
          " }}",
      "levels");
  ends_with(
      [] {
        std::string s;
        for (int i = 0; i < 100000; ++i) s += "{% if 1 %}";
        return s;
      }(),
      "deep");
  ends_with("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "levels deep");
  // Chains that are not walked, only destroyed.
  EXPECT_EQ(render("{% set n = namespace() %}{% for a in range(100000) %}{% set n.x = namespace(x=n.x) %}{% "
                   "endfor %}"),
            "");
  EXPECT_EQ(render("{% set n = namespace(x=1) %}{% for a in range(20000) %}"
                   "{% for b in [n]|map(attribute='x') %}{% set n.x = [loop] %}{% endfor %}{% endfor %}"),
            "");
}

}  // namespace
}  // namespace plait::jinja
