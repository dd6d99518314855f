// What is said about a simulated log beside its rows: the AUC that can be reached, and the schema to read it
// with.
#pragma once

#include "mixrec/data/simulate/simulated_world.h"
#include "mixrec/data/text_output.h"

namespace mixrec::simulated {

// AUC of scores between -32 and 32, in 2^16 bins whose members count as ties.
class AucHistogram {
 public:
  void add(double score, double positive, double negative);
  // 1/2 where a class is missing.
  double auc() const;

 private:
  static constexpr size_t kBins = 1 << 16;
  std::vector<double> positive_ = std::vector<double>(kBins), negative_ = std::vector<double>(kBins);
};

// What a score can reach that sees the first terms only: the sum of these terms ranks best, because the
// others are independent of it.
class BoundsOfPart {
 public:
  explicit BoundsOfPart(const World& world) : world_(world) {}

  void add(const Terms& terms, double probability, bool clicked);
  SimulatedPart result() const;

 private:
  const World& world_;
  int64_t rows_ = 0, clicks_ = 0;
  std::array<AucHistogram, kTerms.size()> drawn_, expected_;
};

// bounds.json: the options that decide the truth, and per part the bounds.
void write_bounds(TextFile& file, const SimulateOptions& options, const SimulateReport& report);

// schema.json.  Events carry the attributes that a planted effect looks at.
void write_schema(TextFile& file, const SimulateOptions& options);

}  // namespace mixrec::simulated
