// From raw values to what a model reads, one request at a time and without the data set.
//
//   write_features(data, "run/encoders");
//   FeatureEncoder encoder("run/encoders", TrainedOn::whole_period);
//   RequestBatch batch = encoder.encode({.user = "17", .time = 1651536000, .history = {"5", "9"},
//                                        .candidates = {"12", {"13", {{"price", 9.5}}}}});
//
// Equal values give the ids and numbers that the packed data set has for them, as the model saw it: values that only
// rows after its training hold are unknown to it.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/data/dataset.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace mixrec {

// A value as in the data set's files: a text, a number, or the texts of a list; "" is a missing cell.  A whole number
// stands for its digits where a text is needed, a text of digits for its number.
using Value = std::variant<std::string, int64_t, double, std::vector<std::string>>;
using Values = std::map<std::string, Value>;  // by feature name

// An item by its id: its other features are those the data set's tables have for it, unless `values` say otherwise.
// Without an id, or with one that is not in the tables, features that `values` leave out are missing cells.
struct Candidate {
  std::string item;
  Values values;

  Candidate() = default;
  Candidate(const char* item) : item(item) {}
  Candidate(std::string item, Values values = {}) : item(std::move(item)), values(std::move(values)) {}
};

// `values` hold item features, and signals by their names.
struct Event {
  std::string item;
  std::optional<Value> time;  // as in the log; without it the gap is unknown
  Values values;

  Event() = default;
  Event(const char* item) : item(item) {}
  Event(std::string item, std::optional<Value> time = {}, Values values = {})
      : item(std::move(item)), time(std::move(time)), values(std::move(values)) {}
};

struct ScoreRequest {
  std::string user = {};  // id; "" or one that is in no table: features that are left out are missing cells
  std::optional<Value> time = {};  // of the request, as in the log: gaps, hours and weekdays
  Values values = {};  // user and context features; also a candidate's context where all have the same
  std::vector<Event> history = {};                           // oldest first; of the only history
  std::map<std::string, std::vector<Event>> histories = {};  // where a data set has several, by name
  std::vector<Candidate> candidates = {};
};

// What an encoder did not know of a request, or left out of it.
struct EncodeNotes {
  // By feature: values of the request, its candidates and events that were given and have no row of their own.
  std::map<std::string, int64_t> unknown;
  // Those among them that belong to the user: of the request and of events.
  std::map<std::string, int64_t> unknown_of_user;
  // By history: events that do not lie before the request's day, or before its time (Schema::snapshot).  Training never
  // shows a model such events, so they are left out.
  std::map<std::string, int64_t> later_events;
};

// Writes all that FeatureEncoder and data.encoders() need into `folder`, whole or not at all (data/feature_export.h).
// All of it comes from the packed form that `data` has open.  `labels` say whose the folder is.
void write_features(const Dataset& data, const std::string& folder,
                    const std::map<std::string, std::string>& labels = {});

class FeatureEncoder {
 public:
  // `trained_on` says which rows the model knows: values that only later ones hold are unknown to it.  Throws, naming
  // the file, when one is missing, damaged or was edited.
  FeatureEncoder(const std::string& folder, TrainedOn trained_on);

  const FeatureSet& spec() const;
  const std::string& user_column() const;  // the log's names of the ids
  const std::string& item_column() const;
  // Whether features of candidates depend on the request's histories.
  bool counts_matches() const;

  // A batch of one request.  Throws, naming the candidate or event, the feature and the value, on an unknown
  // feature, a value of a wrong type, times that fall, and when there is no candidate.  Adds to `notes`.  Thread-safe.
  RequestBatch encode(const ScoreRequest& request, EncodeNotes* notes = nullptr) const;

  // The same without user features and, unless they are counted, histories: those columns are undefined.
  RequestBatch encode_candidates(const ScoreRequest& request, EncodeNotes* notes = nullptr) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace mixrec
