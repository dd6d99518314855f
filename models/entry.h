// Things that a configuration names: what they are called, how they are built, which options they have.
#pragma once

#include "mixrec/core/error.h"
#include "mixrec/core/rng.h"
#include "mixrec/models/options.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace mixrec {

// Something that stands behind the interface `Of` and is built from `Given`.
template <class Of, class Given>
struct Entry {
  std::string name;
  std::string help;  // one line
  // `options` is a JSON object; unknown keys are errors that begin with `place`.
  std::function<std::unique_ptr<Of>(const OptionPlace& place, Given given, const std::string& options,
                                    Rng& rng)>
      build;
  std::string default_options;                                   // JSON
  std::function<std::string(const std::string&)> describe = {};  // a line per option, behind that path
};

template <class Of, class Holder, class M, class Options, class Given>
Entry<Of, Given> make_entry(std::string name, std::string help) {
  const auto build = [](const OptionPlace& place, Given given, const std::string& text,
                        Rng& rng) -> std::unique_ptr<Of> {
    Options options;
    read_options(place, text, options);
    return std::make_unique<Holder>(M(given, options, rng));
  };
  const auto describe = [](const std::string& path) { return describe_options(path, Options{}); };
  return {std::move(name), std::move(help), build, write_options(Options{}), describe};
}

[[noreturn]] void fail_unknown_entry(const std::string& kind, const std::string& name,
                                     const std::vector<std::string>& known);

// The entry of that name in the lists; throws with a suggestion when there is none.  `kind` is what they are:
// "sequence module".
template <class E>
const E& find_entry(const std::string& kind, const std::string& name,
                    std::initializer_list<const std::vector<E>*> lists) {
  std::vector<std::string> names;
  for (const std::vector<E>* list : lists) {
    for (const E& entry : *list) {
      if (entry.name == name) return entry;
      names.push_back(entry.name);
    }
  }
  fail_unknown_entry(kind, name, names);
}

}  // namespace mixrec
