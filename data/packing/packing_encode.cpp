// The last step: raw numbers become rows of tables and standardised numbers.
//
// Written here, for feature F:
//   feature.F            row of its table (u32), row of its list (lists) or standardised number (f32):
//                        by user or item when it describes one, else by request or row
//   feature.F.offsets    lists: elements of list l are feature.F.elements[offsets[l] .. offsets[l + 1]]
//   feature.F.numbers    f64: bucket edges, or mean and deviation; rates: and the raw rate of an unknown value
//   vocabulary.T.txt     texts of table T's rows 1, 2, ..., one a line
//   users.txt  items.txt texts of users and items, in the order of what is stored by them
#include "mixrec/core/error.h"
#include "mixrec/data/packing/packing.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

namespace mixrec::packing {

namespace {

struct Moments {
  double mean = 0, deviation = 1;
};

Moments moments_of(double sum, double squares, double count) {
  if (count == 0) return {};
  const double mean = sum / count, variance = squares / count - mean * mean;
  return {mean, variance > 1e-12 * (1 + mean * mean) ? std::sqrt(variance) : 1};
}

// A table's final rows: values of the training part first, so that a model that saw only that part knows
// exactly the rows below `rows_training`.
struct Vocabulary {
  std::vector<uint32_t> row;     // by number in the dictionary
  std::vector<uint32_t> number;  // by row - 1
  int64_t rows_training = 0;
};

Vocabulary vocabulary_of(const std::vector<Counts>& counts, uint32_t size, int64_t min_count) {
  Vocabulary vocabulary;
  vocabulary.row.assign(size, static_cast<uint32_t>(kUnknownRow));
  const auto admit = [&](const auto& enough) {
    for (uint32_t n = 0; n < counts.size(); ++n) {
      if (vocabulary.row[n] != kUnknownRow || !enough(counts[n])) continue;
      vocabulary.number.push_back(n);
      vocabulary.row[n] = static_cast<uint32_t>(vocabulary.number.size());
    }
    return static_cast<int64_t>(vocabulary.number.size()) + 1;
  };
  vocabulary.rows_training = admit([&](const Counts& c) { return c.train >= min_count; });
  admit([&](const Counts& c) { return int64_t{c.train} + c.validation >= min_count; });
  return vocabulary;
}

// Lines: text_of(0), text_of(1), ...; line breaks and backslashes inside are escaped.
template <class TextOf>
void write_texts(const std::string& path, uint32_t count, const TextOf& text_of) {
  FileWriter out(path);
  for (uint32_t i = 0; i < count; ++i) {
    for (const char c : text_of(i)) {
      if (c == '\n' || c == '\\') out.append('\\');
      out.append(c == '\n' ? 'n' : c);
    }
    out.append('\n');
  }
  out.close(true);
}

void add(std::vector<Counts>& counts, uint32_t at, const Counts& more) {
  if (counts.size() <= at) counts.resize(at + 1);
  counts[at].train += more.train;
  counts[at].validation += more.validation;
}

// Lists of one feature: elements by cell.
struct Lists {
  std::vector<uint64_t> offsets{0};
  std::vector<uint32_t> elements;  // numbers in the dictionary, or hash buckets
};

class Encoder {
 public:
  explicit Encoder(Packing& packing) : packing_(packing), lists_(packing.columns.size()) {}

  void run() {
    packing_.user_rows.resize(packing_.users.size());
    packing_.item_rows.resize(packing_.items.size());
    packing_.item_events.resize(packing_.items.size());
    for (size_t f = 0; f < packing_.columns.size(); ++f) complete(f);
    fit_vocabularies();
    packing_.manifest.feature_rows.assign(packing_.columns.size(), 0);
    // Rates first: they group by dictionary numbers, which lists give up for rows of their table.
    for (size_t f = 0; f < packing_.columns.size(); ++f)
      if (packing_.columns[f].rule->rate) write_rate(f);
    for (size_t f = 0; f < packing_.columns.size(); ++f)
      if (!packing_.columns[f].rule->rate) write(f);
    write_entities(packing_.users, "users.txt");
    write_entities(packing_.items, "items.txt");
  }

 private:
  bool is_read(const Column& column) const { return !column.rule->rate && !column.rule->matches; }
  bool is_side(const Column& column) const { return column.place <= Place::item; }
  const std::vector<Counts>& entity_rows(const Column& column) const {
    return column.place == Place::user ? packing_.user_rows : packing_.item_rows;
  }
  std::string file(size_t f, const std::string& suffix = "") const {
    return packing_.out_path(concat_message("feature.", f, suffix));
  }

  // Raw numbers of entities that no table lists, and the elements of lists.
  void complete(size_t f) {
    Column& column = packing_.columns[f];
    if (!is_read(column)) return;
    if (is_side(column)) {
      const Dictionary& entities = column.place == Place::user ? packing_.users : packing_.items;
      if (!column.of_entity) {
        const uint32_t entity_count = entities.size();
        if (column.side.size() < entity_count) column.side.resize(entity_count, column.raw_missing());
      }
      for (uint32_t e = 0; column.of_entity && e < entities.size(); ++e)
        column.side.push_back(entity_raw(column, e));
    }
    if (!column.is_list()) return;
    Lists& lists = lists_[f];
    for (uint32_t c = 0; c < column.cells->size(); ++c) {
      for_each_element(column.cells->text(c), column.rule->list_separator, [&](std::string_view element) {
        lists.elements.push_back(column.values ? column.values->add(element)
                                               : hash_row(element, column.rule->buckets));
      });
      lists.offsets.push_back(lists.elements.size());
    }
  }

  uint32_t entity_raw(Column& column, uint32_t entity) {
    const Dictionary& entities = column.place == Place::user ? packing_.users : packing_.items;
    const std::string text(entities.text(entity));
    if (!column.is_number()) return column.values == &entities ? entity : column.raw_text(text);
    double value = 0;
    MR_CHECK(parse_number(text, value), "feature '", column.rule->spec.name, "': '", text,
             "' is not a number");
    return as_raw(static_cast<float>(value));
  }

  void fit_vocabularies() {
    std::set<std::string> in_histories;
    for (const auto& history : packing_.schema.histories)
      in_histories.insert(history.features.begin(), history.features.end());
    std::map<Dictionary*, std::vector<Counts>> counts;
    std::map<Dictionary*, int64_t> min_counts;
    for (size_t f = 0; f < packing_.columns.size(); ++f) {
      Column& column = packing_.columns[f];
      if (!column.values) continue;
      const int64_t min_count = min_counts.emplace(column.values, column.rule->min_count).first->second;
      MR_CHECK(min_count == column.rule->min_count, "features of the table '", column.rule->spec.table_name(),
               "' have min_count ", min_count, " and ", column.rule->min_count);
      auto& total = counts[column.values];
      const auto count = [&](uint32_t raw, const Counts& more) {
        if (!column.is_list()) return add(total, raw, more);
        const Lists& lists = lists_[f];
        for (uint64_t i = lists.offsets[raw]; i < lists.offsets[raw + 1]; ++i)
          add(total, lists.elements[i], more);
      };
      if (is_side(column)) {
        const bool with_events =
            column.place == Place::item && in_histories.count(column.rule->spec.name) > 0;
        for (uint32_t e = 0; e < column.side.size(); ++e) {
          count(column.side[e], entity_rows(column)[e]);
          if (with_events) count(column.side[e], packing_.item_events[e]);
        }
      } else {
        for (uint32_t raw = 0; raw < column.counts.size(); ++raw) count(raw, column.counts[raw]);
      }
    }
    for (auto& [dictionary, total] : counts)
      vocabularies_[dictionary] = vocabulary_of(total, dictionary->size(), min_counts[dictionary]);
  }

  void write(size_t f) {
    Column& column = packing_.columns[f];
    const FeatureRule& rule = *column.rule;
    if (rule.matches) return declare(f, rule.matches->cap + 2);
    if (rule.encoding == Encoding::numeric) return write_numeric(f);
    if (column.is_number()) return write_buckets(f);
    if (column.is_list()) {
      write_lists(f);
      return write_raw(f, [](uint32_t raw) { return raw; });
    }
    if (!rule.part.empty()) {
      declare(f, rule.part == "hour" ? 25 : 8);
    } else if (rule.encoding == Encoding::hash) {
      declare(f, 1 + rule.buckets);
    } else {
      declare_vocabulary(f);
      const auto& row = vocabularies_[column.values].row;
      return write_raw(f, [&](uint32_t raw) { return row[raw]; });
    }
    write_raw(f, [](uint32_t raw) { return raw; });
  }

  // Writes all cells of a feature, `encode` applied to each raw number.
  template <class Encode>
  void write_raw(size_t f, const Encode& encode) {
    const Column& column = packing_.columns[f];
    FileWriter out(file(f));
    if (is_side(column)) {
      for (const uint32_t raw : column.side) out.append(encode(raw));
    } else {
      const std::string path = packing_.out_path(concat_message("column.", f));
      const MappedArray<uint32_t> raw(path);
      for (size_t i = 0; i < raw.size(); ++i) out.append(encode(raw[i]));
      std::filesystem::remove(path);
    }
    out.close(true);
  }

  void write_lists(size_t f) {
    const Column& column = packing_.columns[f];
    Lists& lists = lists_[f];
    if (column.values) {
      declare_vocabulary(f);
      const auto& row = vocabularies_[column.values].row;
      for (auto& element : lists.elements) element = row[element];
    } else {
      declare(f, 1 + column.rule->buckets);
    }
    write_array(file(f, ".offsets"), lists.offsets);
    write_array(file(f, ".elements"), lists.elements);
  }

  void write_numeric(size_t f) {
    Column& column = packing_.columns[f];
    const bool log1p = column.rule->log1p;
    for (uint32_t e = 0; is_side(column) && e < column.side.size(); ++e) {
      const double value = transformed(as_float(column.side[e]), log1p),
                   weight = entity_rows(column)[e].train;
      if (std::isnan(value)) continue;
      column.sum += weight * value, column.squares += weight * value * value, column.seen += weight;
    }
    const Moments moments = moments_of(column.sum, column.squares, column.seen);
    write_array(file(f, ".numbers"), std::vector<double>{moments.mean, moments.deviation});
    write_raw(
        f, [&](uint32_t raw) { return standardised(as_float(raw), log1p, moments.mean, moments.deviation); });
  }

  void write_buckets(size_t f) {
    const Column& column = packing_.columns[f];
    const std::vector<double> edges =
        column.rule->encoding == Encoding::buckets ? column.rule->edges : quantile_edges(f);
    declare(f, kFirstBucketRow + static_cast<int64_t>(edges.size()) + 1);
    write_array(file(f, ".numbers"), edges);
    write_raw(f, [&](uint32_t raw) { return bucket_row(as_float(raw), edges); });
  }

  // Edges that cut the training rows into equal shares; equal values never part, so there may be fewer.
  std::vector<double> quantile_edges(size_t f) {
    const Column& column = packing_.columns[f];
    std::vector<std::pair<float, uint32_t>> values;  // value, training rows
    if (is_side(column)) {
      for (uint32_t e = 0; e < column.side.size(); ++e) {
        const float value = as_float(column.side[e]);
        if (!std::isnan(value) && entity_rows(column)[e].train > 0)
          values.emplace_back(value, entity_rows(column)[e].train);
      }
    } else {
      const std::string path = packing_.out_path(concat_message("sample.", f));
      const MappedArray<float> sample(path);
      for (size_t i = 0; i < sample.size(); ++i) values.emplace_back(sample[i], 1);
      std::filesystem::remove(path);
    }
    std::sort(values.begin(), values.end());
    uint64_t total = 0, below = 0;
    for (const auto& [_, weight] : values) total += weight;
    std::vector<double> edges;
    int64_t next = 1;
    for (const auto& [value, weight] : values) {
      below += weight;
      bool reached = false;
      for (; next < column.rule->buckets &&
             below * static_cast<uint64_t>(column.rule->buckets) > static_cast<uint64_t>(next) * total;
           ++next)
        reached = true;
      if (reached && value > values.front().first && (edges.empty() || value > edges.back()))
        edges.push_back(value);
    }
    return edges;
  }

  // Smoothed logit of the share of true signals, by the entity's value of the key feature.
  void write_rate(size_t f) {
    const Column& column = packing_.columns[f];
    const FeatureRule& rule = *column.rule;
    const auto& histories = packing_.schema.histories;
    const auto h =
        static_cast<size_t>(std::find_if(histories.begin(), histories.end(),
                                         [&](const auto& one) { return one.name == rule.rate->history; }) -
                            histories.begin());
    const auto s = static_cast<size_t>(
        std::find(histories[h].signals.begin(), histories[h].signals.end(), rule.rate->signal) -
        histories[h].signals.begin());
    auto rates = (column.place == Place::user ? packing_.user_rates : packing_.item_rates)[h][s];
    const Dictionary& entities = column.place == Place::user ? packing_.users : packing_.items;
    rates.resize(entities.size());
    const auto key_of =
        std::find_if(packing_.columns.begin(), packing_.columns.end(), [&](const Column& one) {
          return one.rule->spec.name == rule.rate->key && one.place == column.place;
        });
    MR_CHECK(key_of != packing_.columns.end() && is_read(*key_of) && !key_of->is_number(), "feature '",
             rule.spec.name, "': its rate needs a categorical key beside it, and '", rule.rate->key,
             "' is none");
    const size_t k = static_cast<size_t>(key_of - packing_.columns.begin());
    const auto for_each_value = [&](uint32_t entity, const auto& take) {
      const uint32_t raw = key_of->side[entity];
      if (!key_of->is_list()) return take(raw);
      for (uint64_t i = lists_[k].offsets[raw]; i < lists_[k].offsets[raw + 1]; ++i)
        take(lists_[k].elements[i]);
    };
    std::vector<std::pair<double, double>> by_value;  // true, all
    double yes = 0, all = 0;
    for (uint32_t e = 0; e < rates.size(); ++e) {
      yes += rates[e].yes, all += rates[e].all;
      for_each_value(e, [&](uint32_t value) {
        if (by_value.size() <= value) by_value.resize(value + 1);
        by_value[value].first += rates[e].yes, by_value[value].second += rates[e].all;
      });
    }
    MR_CHECK(all > 0, "feature '", rule.spec.name, "': the history '", rule.rate->history,
             "' has no event with the signal '", rule.rate->signal,
             "' before the log; a rate needs a source with files");
    const double prior = std::clamp(yes / all, 0.5 / all, 1 - 0.5 / all);
    const auto logit = [&](double value_yes, double value_all) {
      const double share = (value_yes + rule.rate->k * prior) / (value_all + rule.rate->k);
      return std::log(share / (1 - share));
    };
    std::vector<double> values(rates.size());
    double sum = 0, squares = 0, count = 0;
    for (uint32_t e = 0; e < rates.size(); ++e) {
      double total = 0, elements = 0;
      for_each_value(e, [&](uint32_t value) {
        total += logit(by_value[value].first, by_value[value].second), elements += 1;
      });
      values[e] = elements > 0 ? total / elements : logit(0, 0);
      const double weight = entity_rows(column)[e].train;
      sum += weight * values[e], squares += weight * values[e] * values[e], count += weight;
    }
    const Moments moments = moments_of(sum, squares, count);
    std::vector<float> cells;
    for (const double value : values)
      cells.push_back(standardised(value, false, moments.mean, moments.deviation));
    write_array(file(f, ".numbers"), std::vector<double>{moments.mean, moments.deviation, logit(0, 0)});
    write_array(file(f), cells);
  }

  void declare(size_t f, int64_t rows) {
    packing_.manifest.feature_rows[f] = rows;
    packing_.manifest.tables.push_back({packing_.columns[f].rule->spec.table_name(), rows, rows});
  }

  void declare_vocabulary(size_t f) {
    const Column& column = packing_.columns[f];
    const Vocabulary& vocabulary = vocabularies_[column.values];
    const int64_t rows = 1 + static_cast<int64_t>(vocabulary.number.size());
    const std::string name = column.rule->spec.table_name();
    auto& tables = packing_.manifest.tables;
    packing_.manifest.feature_rows[f] = rows;
    if (std::any_of(tables.begin(), tables.end(), [&](const auto& table) { return table.name == name; }))
      return;
    write_texts(packing_.out_path(concat_message("vocabulary.", tables.size(), ".txt")),
                static_cast<uint32_t>(vocabulary.number.size()),
                [&](uint32_t row) { return column.values->text(vocabulary.number[row]); });
    tables.push_back({name, rows, vocabulary.rows_training});
  }

  void write_entities(const Dictionary& entities, const std::string& name) {
    write_texts(packing_.out_path(name), entities.size(), [&](uint32_t e) { return entities.text(e); });
  }

  Packing& packing_;
  std::vector<Lists> lists_;
  std::map<Dictionary*, Vocabulary> vocabularies_;
};

}  // namespace

void encode(Packing& packing) { Encoder(packing).run(); }

}  // namespace mixrec::packing
