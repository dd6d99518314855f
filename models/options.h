// Options (core/options.h) as JSON: the one reader and writer of configuration sections and of models' options.
//
// A whole number may be written 100, 1e2 or 100.0.  Keys that no option has, keys that come twice, values of
// another type and values out of range are errors that name the dotted path, the value and what is taken.
#pragma once

#include "mixrec/core/options.h"

#include <string>

namespace mixrec {

// Where options are written, for messages: "c.json: train.epochs is 0, …".
struct OptionPlace {
  std::string source;     // a file, or what else holds them; "" = not said
  std::string path = {};  // of the object in it; "" = it is the whole
};

// Sets each option that the JSON object `text` ("" = {}) names and leaves the others.  Comments are allowed.
void read_options(const OptionPlace& place, const std::string& text, const OptionVisitor::Visit& visit);

// All options as JSON, in the order of the visit.  indent < 0: one line.
std::string write_options(const OptionVisitor::Visit& visit, int indent = -1);

// One line for each option: its path, its value, its help.
std::string describe_options(const std::string& path, const OptionVisitor::Visit& visit);

template <class Options>
void read_options(const OptionPlace& place, const std::string& text, Options& options) {
  read_options(place, text, OptionVisitor::Visit([&](OptionVisitor& v) { options.visit(v); }));
}

template <class Options>
std::string write_options(const Options& options, int indent = -1) {
  Options copy = options;
  return write_options(OptionVisitor::Visit([&](OptionVisitor& v) { copy.visit(v); }), indent);
}

template <class Options>
std::string describe_options(const std::string& path, const Options& options) {
  Options copy = options;
  return describe_options(path, OptionVisitor::Visit([&](OptionVisitor& v) { copy.visit(v); }));
}

}  // namespace mixrec
