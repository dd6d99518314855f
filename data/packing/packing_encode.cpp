// The last step: raw numbers become rows of tables and standardised numbers.
//
// Written here, for feature F:
//   feature.F            row of its table (u32), row of its list (lists) or standardised number (f32):
//                        by user or item when it describes one, else by request or row
//   feature.F.offsets    lists: elements of list l are feature.F.elements[offsets[l] .. offsets[l + 1]]
//   encoders/            vocabularies, edges, moments, ...: data/encoders/encoders.h; not with given encoders
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

// A table's final rows: values of the training part first, so that a model that saw only that part knows
// exactly the rows below `rows_training`.
struct Vocabulary {
  std::vector<uint32_t> row;     // by number in the dictionary
  std::vector<uint32_t> number;  // by row - 1; not of given ones
  int64_t rows = 1, rows_training = 0;
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
  vocabulary.rows_training =
      admit([&](const Counts& c) { return static_cast<int64_t>(c.train) >= min_count; });
  vocabulary.rows =
      admit([&](const Counts& c) { return static_cast<int64_t>(c.train + c.validation) >= min_count; });
  return vocabulary;
}

// Lines: text_of(0), text_of(1), ...; line breaks and backslashes inside are escaped.
template <class TextOf>
void write_texts(const std::string& path, uint32_t count, const TextOf& text_of) {
  FileWriter out(path);
  for (uint32_t i = 0; i < count; ++i) {
    const std::string line = escaped_line(text_of(i));
    out.write(line.data(), line.size());
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
  explicit Encoder(Packing& packing) : packing_(packing), lists_(packing.columns.size()) {
    for (const Column& column : packing.columns)
      packing.encoders.features.emplace_back().name = column.rule->spec.name;
  }

  void run() {
    packing_.user_rows.resize(packing_.users.size());
    packing_.item_rows.resize(packing_.items.size());
    packing_.item_events.resize(packing_.items.size());
    if (!packing_.given) std::filesystem::create_directory(packing_.out_path("encoders"));
    for (size_t f = 0; f < packing_.columns.size(); ++f) complete(f);
    packing_.given ? take_vocabularies() : fit_vocabularies();
    packing_.manifest.feature_rows.assign(packing_.columns.size(), 0);
    // Rates first: they group by dictionary numbers, which lists give up for rows of their table.
    for (const bool rates : {true, false})
      for (size_t f = 0; f < packing_.columns.size(); ++f) {
        if (packing_.columns[f].rule->rate.has_value() != rates) continue;
        packing_.tick("encoding '" + packing_.columns[f].rule->spec.name + "'",
                      static_cast<double>(f) / static_cast<double>(packing_.columns.size()));
        rates ? write_rate(f) : write(f);
      }
    write_entities(packing_.users, "users.txt");
    write_entities(packing_.items, "items.txt");
    keep_encoders();
  }

 private:
  // Numbers of feature f: the given ones, or those that `count` makes.
  template <class Count>
  const std::vector<double>& numbers(size_t f, const Count& count) {
    std::vector<double>& kept = packing_.encoders.features[f].numbers;
    kept =
        packing_.given ? packing_.given->find_feature(packing_.columns[f].rule->spec.name)->numbers : count();
    return kept;
  }

  void keep_item_values(size_t f) {
    packing_.given ? take_item_values(packing_, f) : write_item_values(packing_, f);
  }

  void keep_encoders() {
    Encoders& encoders = packing_.encoders;
    if (packing_.given) {
      encoders = *packing_.given;
      return;
    }
    encoders.signal_rows = packing_.manifest.signal_rows;
    encoders.validation = packing_.validation, encoders.test = packing_.test;
    write_encoders(encoders, packing_.out_path("encoders"));
  }

  // Share of a feature's values in the training rows that have no row of their own.
  double unknown_share(size_t f) const {
    const Column& column = packing_.columns[f];
    if (!column.values) return 0;
    const auto& row = vocabularies_.at(column.values).row;
    double all = 0, unknown = 0;
    for_each_count(f, [&](uint32_t value, const Counts& counts) {
      const auto rows = static_cast<double>(counts.train);
      all += rows, unknown += row[value] == kUnknownRow ? rows : 0;
    });
    return all > 0 ? unknown / all : 0;
  }

  // Every value that a feature has, by its number in the dictionary, with its rows; once per cell that holds it.
  template <class Take>
  void for_each_count(size_t f, const Take& take) const {
    const Column& column = packing_.columns[f];
    const auto& cells = is_side(column) ? entity_rows(column) : column.counts;
    for (uint32_t c = 0; c < cells.size(); ++c)
      for_each_number(f, is_side(column) ? column.side[c] : c,
                      [&](uint32_t value) { take(value, cells[c]); });
  }
  template <class Take>
  void for_each_number(size_t f, uint32_t raw, const Take& take) const {
    if (!packing_.columns[f].is_list()) return take(raw);
    const Lists& lists = lists_[f];
    for (uint64_t i = lists.offsets[raw]; i < lists.offsets[raw + 1]; ++i) take(lists.elements[i]);
  }

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
      if (column.is_number()) {
        if (!column.of_entity) column.side_numbers.resize(entities.size(), column.missing_number());
        for (uint32_t e = 0; column.of_entity && e < entities.size(); ++e)
          column.side_numbers.push_back(column.number_of_id(entities.text(e)));
        if (column.from_log) keep_item_values(f);
        return;
      }
      if (!column.of_entity) column.side.resize(entities.size(), column.missing_id());
      for (uint32_t e = 0; column.of_entity && e < entities.size(); ++e)
        column.side.push_back(column.values == &entities ? e : column.id_of(std::string(entities.text(e))));
      if (column.from_log) keep_item_values(f);
    }
    if (!column.is_list()) return;
    Lists& lists = lists_[f];
    for (uint32_t c = 0; c < column.cells->size(); ++c) {
      for_each_element(column.cells->text(c), column.rule->list_separator, [&](std::string_view element) {
        if (element.empty()) return;
        lists.elements.push_back(column.values ? column.values->add(element)
                                               : hash_row(element, column.rule->buckets));
      });
      lists.offsets.push_back(lists.elements.size());
    }
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
      for_each_count(f, [&](uint32_t value, const Counts& more) { add(total, value, more); });
      const bool with_events = column.place == Place::item && in_histories.count(column.rule->spec.name) > 0;
      for (uint32_t e = 0; with_events && e < column.side.size(); ++e)
        for_each_number(f, column.side[e],
                        [&](uint32_t value) { add(total, value, packing_.item_events[e]); });
    }
    for (auto& [dictionary, total] : counts)
      vocabularies_[dictionary] = vocabulary_of(total, dictionary->size(), min_counts[dictionary]);
    for (size_t f = 0; f < packing_.columns.size(); ++f)
      packing_.encoders.features[f].unknown = unknown_share(f);
  }

  // Rows of the given encoders; the values that these do not know are unknown.
  void take_vocabularies() {
    for (const Column& column : packing_.columns) {
      if (!column.values || vocabularies_.contains(column.values)) continue;
      const Encoders::Table& table = *packing_.given->find_table(column.rule->spec.table_name());
      const Dictionary known = packing_.given->vocabulary(table);
      Vocabulary& vocabulary = vocabularies_[column.values];
      vocabulary.rows = table.rows, vocabulary.rows_training = table.rows_training;
      for (uint32_t n = 0; n < column.values->size(); ++n) {
        const uint32_t number = known.find(column.values->text(n));
        vocabulary.row.push_back(number == Dictionary::kNone ? static_cast<uint32_t>(kUnknownRow)
                                                             : number + 1);
      }
    }
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

  // Writes all cells of a feature, `encode` applied to each raw id or number.
  template <class Encode>
  void write_raw(size_t f, const Encode& encode) {
    write_cells<uint32_t>(f, packing_.columns[f].side, encode);
  }
  template <class Encode>
  void write_numbers(size_t f, const Encode& encode) {
    write_cells<double>(f, packing_.columns[f].side_numbers, encode);
  }
  template <class Raw, class Encode>
  void write_cells(size_t f, const std::vector<Raw>& side, const Encode& encode) {
    FileWriter out(file(f));
    if (is_side(packing_.columns[f])) {
      for (const Raw raw : side) out.append(encode(raw));
    } else {
      const std::string path = packing_.out_path(concat_message("column.", f));
      const MappedArray<Raw> raw(path);
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
    for (size_t e = 0; is_side(column) && e < column.side_numbers.size(); ++e)
      column.moments.add(transformed(column.side_numbers[e], log1p),
                         static_cast<double>(entity_rows(column)[e].train));
    const auto& kept = numbers(f, [&] {
      return std::vector<double>{column.moments.mean(), column.moments.deviation()};
    });
    const double mean = kept[0], deviation = kept[1];
    write_numbers(f, [&](double number) {
      const float value = standardised(number, log1p, mean, deviation);
      MR_CHECK(std::isfinite(value), "feature '", column.rule->spec.name, "': ", number,
               " is too far from the training rows' mean ", mean, " in units of their deviation ", deviation);
      return value;
    });
  }

  void write_buckets(size_t f) {
    const Column& column = packing_.columns[f];
    const bool fixed = column.rule->encoding == Encoding::buckets;
    const auto& edges = numbers(f, [&] {
      return fixed ? column.rule->edges : quantile_edges(training_values(f), column.rule->buckets);
    });
    declare(f, kFirstBucketRow + static_cast<int64_t>(edges.size()) + 1);
    write_numbers(f, [&](double number) { return bucket_row(number, edges); });
  }

  // Values of the training rows with their counts, by value.
  std::vector<std::pair<double, uint64_t>> training_values(size_t f) {
    const Column& column = packing_.columns[f];
    std::vector<std::pair<double, uint64_t>> values;
    if (is_side(column)) {
      for (size_t e = 0; e < column.side_numbers.size(); ++e)
        if (!std::isnan(column.side_numbers[e]) && entity_rows(column)[e].train > 0)
          values.emplace_back(column.side_numbers[e], entity_rows(column)[e].train);
    } else {
      const std::string path = packing_.out_path(concat_message("sample.", f));
      const MappedArray<double> sample(path);
      for (size_t i = 0; i < sample.size(); ++i) values.emplace_back(sample[i], 1);
      std::filesystem::remove(path);
    }
    return values;
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
      const auto e_yes = static_cast<double>(rates[e].yes), e_all = static_cast<double>(rates[e].all);
      yes += e_yes, all += e_all;
      for_each_value(e, [&](uint32_t value) {
        if (by_value.size() <= value) by_value.resize(value + 1);
        by_value[value].first += e_yes, by_value[value].second += e_all;
      });
    }
    MR_CHECK(all > 0 || packing_.given, "feature '", rule.spec.name, "': the history '", rule.rate->history,
             "' has no event with the signal '", rule.rate->signal,
             "' before the log; a rate needs a source with files");
    const double prior = packing_.given ? given_prior(f) : std::clamp(yes / all, 0.5 / all, 1 - 0.5 / all);
    const auto logit = [&](double value_yes, double value_all) {
      const double share = (value_yes + rule.rate->k * prior) / (value_all + rule.rate->k);
      return std::log(share / (1 - share));
    };
    std::vector<double> values(rates.size());
    MomentSum moments;
    for (uint32_t e = 0; e < rates.size(); ++e) {
      double total = 0, elements = 0;
      for_each_value(e, [&](uint32_t value) {
        total += logit(by_value[value].first, by_value[value].second), elements += 1;
      });
      values[e] = elements > 0 ? total / elements : logit(0, 0);
      moments.add(values[e], static_cast<double>(entity_rows(column)[e].train));
    }
    const auto& kept = numbers(f, [&] {
      return std::vector<double>{moments.mean(), moments.deviation(), logit(0, 0), prior};
    });
    std::vector<float> cells;
    for (const double value : values) cells.push_back(standardised(value, false, kept[0], kept[1]));
    write_array(file(f), cells);
  }

  // The share of true signals over all events that the given encoders were counted from.
  double given_prior(size_t f) const {
    const auto& kept = packing_.given->find_feature(packing_.columns[f].rule->spec.name)->numbers;
    return kept.size() > 3 ? kept[3] : 1 / (1 + std::exp(-kept[2]));
  }

  void declare(size_t f, int64_t rows) {
    const std::string name = packing_.columns[f].rule->spec.table_name();
    packing_.manifest.feature_rows[f] = rows;
    packing_.manifest.tables.push_back({name, rows, rows});
    packing_.encoders.tables.push_back({name, rows, rows, -1});
  }

  void declare_vocabulary(size_t f) {
    const Column& column = packing_.columns[f];
    const Vocabulary& vocabulary = vocabularies_[column.values];
    const int64_t rows = vocabulary.rows;
    const std::string name = column.rule->spec.table_name();
    auto& tables = packing_.manifest.tables;
    packing_.manifest.feature_rows[f] = rows;
    if (std::any_of(tables.begin(), tables.end(), [&](const auto& table) { return table.name == name; }))
      return;
    const auto file_number = static_cast<int64_t>(tables.size());
    if (!packing_.given)
      write_texts(packing_.out_path(concat_message("encoders/vocabulary.", file_number, ".txt")),
                  static_cast<uint32_t>(vocabulary.number.size()),
                  [&](uint32_t row) { return column.values->text(vocabulary.number[row]); });
    tables.push_back({name, rows, vocabulary.rows_training});
    packing_.encoders.tables.push_back({name, rows, vocabulary.rows_training, file_number});
  }

  void write_entities(const Dictionary& entities, const std::string& name) {
    write_texts(packing_.out_path(name), entities.size(), [&](uint32_t e) { return entities.text(e); });
  }

  Packing& packing_;
  std::vector<Lists> lists_;
  std::map<Dictionary*, Vocabulary> vocabularies_;
};

}  // namespace

void encode(Packing& packing) {
  Encoder(packing).run();
  warn(packing);
}

}  // namespace mixrec::packing
