// The mapped arrays behind a Dataset, as `prepare` writes them (data/packing/packing_group.cpp,
// data/packing/packing_encode.cpp).
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/data/packing/packed_files.h"

#include <string>
#include <vector>

namespace mixrec {

enum class Keyed : uint8_t { user, item, request, row, none };  // what the cells of a feature are numbered by

struct PackedFeature {
  Keyed by = Keyed::row;
  MappedArray<uint32_t> ids;  // rows of the table, or of lists
  MappedArray<float> values;
  MappedArray<uint64_t> list_offsets;
  MappedArray<uint32_t> list_elements;
  uint32_t known = 0;  // rows that a model trained on the training part knows; higher ones read as unknown
};

struct PackedHistory {
  MappedArray<uint32_t> item;
  MappedArray<int64_t> time;
  MappedArray<uint8_t> split;
  std::vector<MappedArray<uint8_t>> signals;
  MappedArray<uint64_t> first, end;  // by user; by request
  std::vector<size_t> features;      // of events: numbers of features
};

struct PackedData {
  Schema schema;
  Manifest manifest;
  FeatureSet spec;
  PackedForm form;
  std::string folder;         // of the packed form
  std::string data_folder;    // of the files
  std::vector<size_t> tasks;  // numbers in the schema of spec.tasks

  MappedArray<uint32_t> row_item, row_request;
  MappedArray<int64_t> row_number;
  std::vector<MappedArray<float>> labels, weights;  // parallel to spec.tasks
  MappedArray<uint32_t> request_user;
  MappedArray<uint64_t> request_rows;
  MappedArray<int64_t> request_time;
  MappedArray<uint8_t> request_split;
  MappedArray<uint8_t> users, items;  // texts of their ids, one a line
  std::vector<PackedFeature> features;
  std::vector<PackedHistory> histories;

  bool has(Split wanted, Split actual) const {
    return wanted == actual || wanted == Split::all ||
           (wanted == Split::refit && actual <= Split::validation);
  }
  // Whether an event of a row of part `split` may enter histories.
  bool admits(uint8_t split, TrainedOn trained_on) const {
    return !schema.freeze || split <= (trained_on == TrainedOn::training_part ? 0 : 1);
  }
};

}  // namespace mixrec
