#include "mixrec/models/entry.h"

#include "mixrec/core/printable.h"

namespace mixrec {

void fail_unknown_entry(const std::string& kind, const std::string& name,
                        const std::vector<std::string>& known) {
  const std::string near = nearest_name(name, known);
  std::string all;
  for (const std::string& one : known) all += (all.empty() ? "" : ", ") + one;
  throw Error("no " + kind + " is named '" + printable(name) + "'" +
              (near.empty() ? "" : "; did you mean '" + near + "'?") + " There are: " + all);
}

}  // namespace mixrec
