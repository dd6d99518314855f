#include "mixrec/data/simulate/simulated_report.h"

#include "mixrec/core/metrics.h"

#include <algorithm>
#include <cmath>

namespace mixrec::simulated {
namespace {

// "name": 1, "name": 2, …
template <class Values>
void write_numbers(TextFile& file, const Values& values) {
  const char* separator = "";
  for (const auto& [name, value] : values)
    file << separator << '"' << name << "\": " << value, separator = ", ";
}

void write_part(TextFile& file, std::string_view name, const SimulatedPart& part) {
  file << "  \"" << name << "\": {\n    \"rows\": " << part.rows << ",\n    ";
  write_numbers(file, std::array<std::pair<std::string_view, double>, 3>{{{"click_rate", part.click_rate},
                                                                          {"floor_auc", part.floor_auc()},
                                                                          {"bayes_auc", part.bayes_auc()}}});
  file << ",\n    \"bounds\": [";
  const char* separator = "\n";
  for (const SimulatedBound& bound : part.bounds) {
    file << separator << "      {\"term\": \"" << bound.term << "\", ";
    write_numbers(file, std::array<std::pair<std::string_view, double>, 2>{
                            {{"auc", bound.auc}, {"expected_auc", bound.expected_auc}}});
    file << '}';
    separator = ",\n";
  }
  file << "\n    ]\n  }";
}

template <class Names>
void write_names(TextFile& file, const Names& names, std::string_view before) {
  const char* separator = "";
  for (const auto& name : names) file << separator << '"' << before << name << '"', separator = ", ";
}

}  // namespace

void AucHistogram::add(double score, double positive, double negative) {
  const double bin = std::clamp((score + 32) * (kBins / 64.0), 0.0, kBins - 1.0);
  positive_[static_cast<size_t>(bin)] += positive;
  negative_[static_cast<size_t>(bin)] += negative;
}

double AucHistogram::auc() const {
  RankSum ranks;
  for (size_t bin = 0; bin < kBins; ++bin) ranks.add(positive_[bin], negative_[bin]);
  const double auc = ranks.auc();
  return std::isnan(auc) ? 0.5 : auc;
}

void BoundsOfPart::add(const Terms& terms, double probability, bool clicked) {
  ++rows_, clicks_ += clicked;
  for (size_t k = 0; k < kTerms.size(); ++k) {
    const double score = world_.logit(terms, k + 1);
    drawn_[k].add(score, clicked, !clicked);
    expected_[k].add(score, probability, 1 - probability);
  }
}

SimulatedPart BoundsOfPart::result() const {
  SimulatedPart part;
  part.rows = rows_;
  part.click_rate = rows_ > 0 ? static_cast<double>(clicks_) / rows_ : 0;
  for (size_t k = 0; k < kTerms.size(); ++k) {
    part.bounds.push_back({std::string(kTerms[k]), drawn_[k].auc(), expected_[k].auc()});
  }
  return part;
}

void write_bounds(TextFile& file, const SimulateOptions& options, const SimulateReport& report) {
  const std::array strengths{options.popularity, options.context, options.taste, options.match,
                             options.joint};
  std::array<std::pair<std::string_view, double>, kTerms.size()> named;
  for (size_t k = 0; k < kTerms.size(); ++k) named[k] = {kTerms[k], strengths[k]};
  file << "{\n  \"task\": \"click\",\n  \"seed\": " << options.seed << ",\n  \"strengths\": {";
  write_numbers(file, named);
  file << "},\n";
  write_part(file, "train", report.train);
  file << ",\n";
  write_part(file, "test", report.test);
  file << "\n}\n";
}

void write_schema(TextFile& file, const SimulateOptions& options) {
  const bool from_log = options.history == SimulatedHistory::log;
  file << "{\n  \"name\": \"simulated\",\n  \"width\": 8,\n"
       << "  \"log\": {\"files\": \"log.csv\", \"user\": \"user_id\", \"item\": \"item_id\", \"time\": "
          "\"time\",\n"
       << "          \"date\": \"date\", \"request\": \"request_id\"},\n"
       << "  \"tables\": {\"users\": {\"file\": \"users.csv\"}, \"items\": {\"file\": \"items.csv\"}},\n"
       << "  \"tasks\": {\"click\": \"click\"},\n  \"features\": {\n    \"user\": [";
  write_names(file, kUserFields, "users.");
  file << "],\n    \"item\": [\"item_id\", ";
  write_names(file, kItemAttributes, "items.");
  file << "],\n    \"context\": [{\"column\": \"hour\", \"scope\": \"request\"}, "
       << "{\"column\": \"channel\", \"scope\": \"request\"}, \"placement\"]\n  },\n"
       << "  \"histories\": {\"seen\": {\n    \"length\": " << options.history_length << ",\n    \"from\": [";
  if (from_log) {
    file << "{\"log\": true, \"signals\": {\"liked\": \"liked\"}}";
  } else {
    file << "{\"files\": \"history.csv\", \"items\": \"items\", \"times\": {\"column\": \"times\"},\n"
         << "              \"signals\": {\"liked\": {\"column\": \"liked\", \"list\": \" \"}}}";
  }
  file << "],\n    \"features\": [\"item_id\", ";
  if (options.joint > 0) {
    write_names(file, kItemAttributes, "");
  } else {
    write_names(file, std::array{kItemAttributes[0]}, "");
  }
  file << "]\n  }},\n  \"split\": {\"by\": \"date\", \"test_days\": " << options.test_days;
  if (options.days - options.test_days > 1) file << ", \"validation_days\": 1";
  file << "},\n  \"snapshot\": \"day\"\n}\n";
}

}  // namespace mixrec::simulated
