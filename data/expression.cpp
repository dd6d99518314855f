#include "mixrec/data/expression.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>

namespace mixrec {

struct Expression::Node {
  enum class Kind { number, text, column, negate, invert, binary };
  Kind kind = Kind::number;
  double number = 0;
  std::string text;  // a literal, also of a number; an operator or a column's name
  size_t column = 0;
  int height = 0;  // of the tree below, which is walked by recursion
  std::unique_ptr<Node> left, right;

  // `missing` given: an empty cell where a number is needed sets it, and reads as 0.
  double value(const CsvReader& reader, bool* missing) const;
  double compare_text(const CsvReader& reader) const;
  // -1, 0 or 1; numbers `a` and `b` are the values of both sides.
  int compare(double a, double b, const CsvReader& reader) const;
  // How a side is written when it is a column or a literal; "" otherwise.
  std::string_view written(const CsvReader& reader) const;
  void check_exact(double value, const CsvReader& reader) const;
};

namespace {

using Node = Expression::Node;
using NodePtr = std::unique_ptr<Node>;

// Operators by how tightly they bind, loosest first.
const std::vector<std::vector<std::string>> kLevels = {
    {"||"}, {"&&"}, {"<=", ">=", "==", "!=", "<", ">"}, {"+", "-"}, {"*", "/"}};

constexpr size_t kComparisons = 2;  // of those levels

// What a stack of 1 MB holds many times over, and no rule of a person needs.
constexpr int kMostNested = 100, kMostHeight = 1000;

// Recursive descent over the text; `bind` turns a column's name into its index.
class Parser {
 public:
  Parser(std::string_view text, const std::function<size_t(const std::string&)>& bind)
      : text_(text), bind_(bind) {}

  NodePtr parse() {
    NodePtr root = level(0);
    skip_spaces();
    if (at_ < text_.size()) fail(unexpected());
    return root;
  }

 private:
  // Signs and parentheses inside each other.
  struct Nesting {
    explicit Nesting(Parser& parser) : parser(parser) {
      if (++parser.nested_ > kMostNested)
        parser.fail(concat_message("signs and parentheses are nested more than ", kMostNested, " deep"));
    }
    ~Nesting() { --parser.nested_; }
    Parser& parser;
  };

  // Operators of other languages get the word for them here.
  std::string unexpected() const {
    const std::string_view rest = text_.substr(at_);
    const char* const meant = rest.starts_with("and")   ? "; 'and' is written &&"
                              : rest.starts_with("or")  ? "; 'or' is written ||"
                              : rest.starts_with("not") ? "; 'not' is written !"
                              : rest.starts_with("=")   ? "; equality is written =="
                              : rest.starts_with("<>")  ? "; inequality is written !="
                                                        : "";
    return concat_message("unexpected '", printable(rest.substr(0, 1)), "'", meant);
  }

  [[noreturn]] void fail(const std::string& what) const {
    MR_FAIL("in the expression \"", printable(text_), "\", at character ", at_ + 1, ": ", what);
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  bool take(std::string_view word) {
    skip_spaces();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  NodePtr level(size_t depth) {
    if (depth == kLevels.size()) return unary();
    NodePtr left = level(depth + 1);
    bool chained = false;
    while (true) {
      const std::string* taken = nullptr;
      for (const auto& op : kLevels[depth])
        if (take(op)) {
          taken = &op;
          break;
        }
      if (!taken) return left;
      if (depth == kComparisons && chained)
        fail(concat_message("'", *taken, "' after another comparison: write a < b && b < c, or parentheses"));
      chained = true;
      auto node = std::make_unique<Node>();
      node->kind = Node::Kind::binary;
      node->text = *taken;
      node->left = std::move(left);
      node->right = level(depth + 1);
      node->height = 1 + std::max(node->left->height, node->right->height);
      // Checked while it grows: a tree that is too high could not even be destroyed.
      if (node->height > kMostHeight) fail(concat_message("more than ", kMostHeight, " operators in a row"));
      check_text_operands(*node);
      left = std::move(node);
    }
  }

  void check_text_operands(const Node& node) const {
    const bool left = node.left->kind == Node::Kind::text, right = node.right->kind == Node::Kind::text;
    if (!left && !right) return;
    const Node& other = left ? *node.right : *node.left;
    if ((node.text != "==" && node.text != "!=") || other.kind != Node::Kind::column)
      fail("text can only be compared with a column, by == or !=");
  }

  NodePtr unary() {
    const Nesting nesting(*this);
    auto node = std::make_unique<Node>();
    if (take("!")) {
      node->kind = Node::Kind::invert, node->left = unary();
    } else if (take("-")) {
      node->left = unary();
      // A negative literal compares as exactly as a positive one.
      if (node->left->kind == Node::Kind::number && !node->left->text.starts_with('-')) {
        node->left->number = -node->left->number;
        node->left->text = "-" + node->left->text;
        return std::move(node->left);
      }
      node->kind = Node::Kind::negate;
    } else {
      return primary();
    }
    node->height = 1 + node->left->height;
    return node;
  }

  NodePtr primary() {
    if (take("(")) {
      NodePtr inner = level(0);
      if (!take(")")) fail("a ) is missing");
      return inner;
    }
    auto node = std::make_unique<Node>();
    if (at_ >= text_.size()) fail("a value is missing");
    const char first = text_[at_];
    if (first == '\'' || first == '`') {
      const size_t end = text_.find(first, at_ + 1);
      if (end == std::string_view::npos) fail("a quote is not closed");
      node->text = text_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
      node->kind = first == '\'' ? Node::Kind::text : Node::Kind::column;
      if (first == '`') node->column = bind_(node->text);
      return node;
    }
    const size_t start = at_;
    const auto word = [&](auto accept) {
      while (at_ < text_.size() && accept(static_cast<unsigned char>(text_[at_]))) ++at_;
      return text_.substr(start, at_ - start);
    };
    if (std::isdigit(static_cast<unsigned char>(first)) || first == '.') {
      node->text = word([](int c) { return std::isalnum(c) || c == '.'; });
      if (!parse_number(node->text, node->number)) fail("not a number");
      return node;
    }
    node->text = word([](int c) { return std::isalnum(c) || c == '_' || c == '.' || c >= 128; });
    if (node->text.empty()) fail(unexpected());
    node->kind = Node::Kind::column;
    node->column = bind_(node->text);
    return node;
  }

  std::string_view text_;
  const std::function<size_t(const std::string&)>& bind_;
  size_t at_ = 0;
  int nested_ = 0;
};

}  // namespace

double Expression::Node::compare_text(const CsvReader& reader) const {
  const Node& literal = left->kind == Kind::text ? *left : *right;
  const Node& column_node = left->kind == Kind::text ? *right : *left;
  return (reader.cell(column_node.column) == literal.text) == (text == "==");
}

namespace {

constexpr double kLastExact = 9007199254740992;  // 2^53: beyond, f64 leaves whole numbers out

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Digits of a whole number, without sign and leading zeros; false for any other text.
bool take_whole(std::string_view text, bool& negative, std::string_view& digits) {
  negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return false;
  text.remove_prefix(std::min(text.find_first_not_of('0'), text.size()));
  digits = text;
  return true;
}

int sign(int value) { return (value > 0) - (value < 0); }

}  // namespace

std::string_view Expression::Node::written(const CsvReader& reader) const {
  return kind == Kind::column   ? trimmed(reader.cell(column))
         : kind == Kind::number ? std::string_view(text)
                                : "";
}

int Expression::Node::compare(double a, double b, const CsvReader& reader) const {
  const int rounded = (a > b) - (a < b);
  if (std::abs(a) < kLastExact && std::abs(b) < kLastExact) return rounded;
  bool negative_a = false, negative_b = false;
  std::string_view digits_a, digits_b;
  const bool whole_a = take_whole(left->written(reader), negative_a, digits_a),
             whole_b = take_whole(right->written(reader), negative_b, digits_b);
  if (whole_a && whole_b) {
    if (negative_a != negative_b) return negative_a ? -1 : 1;
    const int longer = (digits_a.size() > digits_b.size()) - (digits_a.size() < digits_b.size());
    const int larger = longer ? longer : sign(digits_a.compare(digits_b));
    return negative_a ? -larger : larger;
  }
  MR_CHECK(rounded != 0 || !(whole_a || whole_b), reader.place(),
           ": whole numbers beyond 2^53 compare exactly only with ",
           "whole numbers written in digits, or as text in 'quotes'");
  return rounded;
}

void Expression::Node::check_exact(double value, const CsvReader& reader) const {
  if (std::abs(value) < kLastExact) return;
  bool negative = false;
  std::string_view digits;
  MR_CHECK(!take_whole(written(reader), negative, digits), reader.place(), ": ", printable(written(reader)),
           " is beyond 2^53, where numbers are no longer exact: it can be compared, not computed with");
}

double Expression::Node::value(const CsvReader& reader, bool* missing) const {
  switch (kind) {
    case Kind::number:
      return number;
    case Kind::text:
      return 0;  // reached only as a whole expression, which the constructor refuses
    case Kind::column:
      if (missing && reader.cell(column).empty()) return *missing = true, 0;
      return reader.number(column);
    case Kind::negate:
      return -left->value(reader, missing);
    case Kind::invert:
      return left->value(reader, missing) == 0;
    case Kind::binary:
      break;
  }
  if (left->kind == Kind::text || right->kind == Kind::text) return compare_text(reader);
  const double a = left->value(reader, missing);
  if (text == "&&") return a != 0 && right->value(reader, missing) != 0;
  if (text == "||") return a != 0 || right->value(reader, missing) != 0;
  const double b = right->value(reader, missing);
  if (missing && *missing) return 0;
  if (text == "<") return compare(a, b, reader) < 0;
  if (text == "<=") return compare(a, b, reader) <= 0;
  if (text == ">") return compare(a, b, reader) > 0;
  if (text == ">=") return compare(a, b, reader) >= 0;
  if (text == "==") return compare(a, b, reader) == 0;
  if (text == "!=") return compare(a, b, reader) != 0;
  left->check_exact(a, reader), right->check_exact(b, reader);
  if (text == "+") return a + b;
  if (text == "-") return a - b;
  return text == "*" ? a * b : a / b;
}

Expression::Expression(std::string text, const CsvReader& reader, std::string_view asked)
    : text_(std::move(text)) {
  const std::string from =
      concat_message(asked, asked.empty() ? "" : ", ", "the expression \"", printable(text_), "\"");
  const auto known = [&](const std::string& name) {
    return std::find(reader.columns().begin(), reader.columns().end(), name) != reader.columns().end();
  };
  const std::function<size_t(const std::string&)> bind = [&](const std::string& name) {
    // "is-click" reads as "is" minus "click".
    for (const std::string& column : reader.columns())
      MR_CHECK(known(name) || column.size() <= name.size() || column.find(name) == std::string::npos ||
                   text_.find(column) == std::string::npos,
               "in ", from, ": there is no column '", printable(name),
               "'; a name with other characters than letters, ", "digits, _ and . goes in backticks: `",
               printable(column), "`");
    return reader.column(name, from);
  };
  root_ = Parser(text_, bind).parse();
  MR_CHECK(root_->kind != Node::Kind::text, "the expression \"", printable(text_), "\" is only a text");
}
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;
Expression::~Expression() = default;

double Expression::operator()(const CsvReader& reader) const {
  const double result = root_->value(reader, nullptr);
  MR_CHECK(std::isfinite(result), reader.place(), ": \"", text_, "\" is not a finite number");
  return result;
}

std::optional<double> Expression::value_or_missing(const CsvReader& reader) const {
  bool missing = false;
  const double result = root_->value(reader, &missing);
  if (missing) return std::nullopt;
  MR_CHECK(std::isfinite(result), reader.place(), ": \"", text_, "\" is not a finite number");
  return result;
}

std::vector<std::string> expression_columns(const std::string& text) {
  std::vector<std::string> names;
  const std::function<size_t(const std::string&)> bind = [&](const std::string& name) {
    names.push_back(name);
    return size_t{0};
  };
  Parser(text, bind).parse();
  return names;
}

}  // namespace mixrec
