#include "mixrec/train/serve/score_lines.h"

#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/data/json_reader.h"
#include "mixrec/train/report.h"

#include <algorithm>
#include <charconv>
#include <istream>
#include <map>

namespace mixrec {

namespace {

// Lines that are answered together: enough to keep threads busy, few enough to answer soon.
constexpr size_t kLinesPerThread = 16;
constexpr int64_t kWorkPerLine = int64_t{1} << 20;

std::string id_of(const JsonValue& value) {
  return value.is_whole() ? std::to_string(value.whole()) : value.text();
}

Value value_of(const JsonValue& value) {
  if (value.is_null()) return std::string();
  if (value.is_text()) return value.text();
  if (value.is_whole()) return value.whole();
  if (!value.is_list()) return value.number();
  std::vector<std::string> texts;
  for (const JsonValue& element : value.list()) texts.push_back(id_of(element));
  return texts;
}

// An item by its id alone, or an object with the id under "item" or its column's name, and values.
template <class Item>
Item item_of(const JsonValue& value, const std::string& id_column, const auto& take) {
  Item item;
  if (!value.is_object()) return item.item = id_of(value), item;
  JsonObject object = value.object();
  bool named = false;
  for (const std::string& key : object.keys()) {
    const JsonValue member = object.value(key);
    if (key == "item" || key == id_column) {
      MR_CHECK(!named, value.place(), ": names its item twice, as 'item' and as '", id_column, "'");
      named = true;
      item.item = id_of(member);
    } else if (!take(item, key, member)) {
      item.values[key] = value_of(member);
    }
  }
  return item;
}

std::vector<Event> events_of(const JsonValue& value, const std::string& id_column) {
  std::vector<Event> events;
  for (const JsonValue& event : value.list())
    events.push_back(
        item_of<Event>(event, id_column, [](Event& to, const std::string& key, const JsonValue& member) {
          if (key != "time") return false;
          if (member.is_null()) return true;
          to.time = value_of(member);
          return true;
        }));
  return events;
}

std::string counts_json(const std::map<std::string, int64_t>& counts) {
  JsonLine line;
  for (const auto& [name, count] : counts) line.add(name, count);
  return line.text();
}

std::string number_text(float value) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
}

}  // namespace

LineRequest parse_score_line(const std::string& text, int64_t line, const FeatureEncoder& encoder) {
  JsonObject object = JsonValue::parse(text, concat_message("line ", line)).object();
  LineRequest parsed;
  ScoreRequest& request = parsed.request;
  // As everywhere, null is a value that is missing.
  const auto given = [&](const char* key) { return object.has(key) && !object.value(key).is_null(); };
  if (given("user")) request.user = id_of(object.value("user"));
  if (given("time")) request.time = value_of(object.value("time"));
  if (given("key")) parsed.key = object.text("key");
  if (given("values")) {
    JsonObject values = object.object("values");
    for (const std::string& name : values.keys()) request.values[name] = value_of(values.value(name));
  }
  if (given("history")) {
    const JsonValue history = object.value("history");
    if (history.is_object()) {
      JsonObject named = history.object();
      for (const std::string& name : named.keys()) {
        std::vector<Event>& events = request.histories[name];
        if (const JsonValue of_name = named.value(name); !of_name.is_null())
          events = events_of(of_name, encoder.item_column());
      }
    } else {
      request.history = events_of(history, encoder.item_column());
    }
  }
  for (const JsonValue& candidate : object.value("candidates").list())
    request.candidates.push_back(item_of<Candidate>(candidate, encoder.item_column(),
                                                    [](auto&, const auto&, const auto&) { return false; }));
  object.finish();
  return parsed;
}

std::string answer_score_line(const Scorer& scorer, const std::string& text, int64_t line) {
  JsonLine answer;
  answer.add("line", line);
  try {
    const LineRequest parsed = parse_score_line(text, line, scorer.encoder());
    EncodeNotes notes;
    const Scores scores = scorer.score(parsed.request, parsed.key, &notes);
    JsonLine probabilities;
    for (size_t t = 0; t < scores.tasks(); ++t) {
      std::string list = "[";
      for (size_t c = 0; c < scores.candidates(); ++c)
        list.append(c > 0 ? "," : "").append(number_text(scores(c, t)));
      probabilities.add_json(scorer.tasks()[t].name, list.append("]"));
    }
    answer.add_json("probabilities", probabilities.text());
    if (!notes.unknown.empty()) answer.add_json("unknown", counts_json(notes.unknown));
    if (!notes.later_events.empty()) answer.add_json("later_events", counts_json(notes.later_events));
  } catch (const std::exception& error) {
    answer.add("error", std::string(error.what()));
  }
  return answer.text();
}

int64_t score_lines(const Scorer& scorer, std::istream& in,
                    const std::function<void(const std::string&)>& write) {
  int64_t count = 0;
  struct Line {
    std::string text, answer;
    int64_t number;
  };
  std::vector<Line> lines;
  const auto answer = [&] {
    parallel_for(static_cast<int64_t>(lines.size()), kWorkPerLine, [&](int64_t begin, int64_t end) {
      for (auto l = static_cast<size_t>(begin); l < static_cast<size_t>(end); ++l)
        lines[l].answer = answer_score_line(scorer, lines[l].text, lines[l].number);
    });
    std::string all;
    for (const Line& line : lines) all.append(line.answer).append(1, '\n');
    write(all);
    lines.clear();
  };
  const size_t most = kLinesPerThread * static_cast<size_t>(num_threads());
  std::string text;
  for (int64_t number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    lines.push_back({std::move(text), "", number});
    ++count;
    // What has not arrived is not waited for.
    if (lines.size() == most || in.rdbuf()->in_avail() <= 0) answer();
  }
  if (!lines.empty()) answer();
  MR_CHECK(!in.bad(), "the requests cannot be read to their end");
  return count;
}

}  // namespace mixrec
