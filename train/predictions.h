// predictions.csv: the probabilities of a part of a log, joined to the log's own cells.
//
//   row,user,item,time,request,click
//   log.csv:2,zoe,a,1651536000,17,0.25
//
//   row      file and line of the log, as an editor counts lines
//   user, item, time, request
//            the cells of the log's columns of that meaning, byte by byte; `time` is the cell of log.time, else that of
//            log.date; a log without one, or without log.request, has no such column
//   then one column per task: the probability, as the shortest text that reads back as the same f32
//
// One line per row, in the order of the log.  Rows that log.where or log.duplicates drop are absent.  Names and cells
// with a comma, a quote or a line break are quoted as RFC 4180 says.
#pragma once

#include "mixrec/train/evaluate.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace mixrec {

// `text` as a field of a CSV file.
std::string csv_field(std::string_view text);

struct PredictionOptions {
  EvaluateOptions evaluate = {};
  // Rows of the log whose probabilities are in memory at once; those of the others wait in a folder beside `out`.
  int64_t rows_at_once = int64_t{1} << 20;
};

// Writes `out`, whole or not at all, and returns its number of rows.  `folder` is the data folder: the log is read
// once more.  Throws when it is no longer what the data set was prepared from.
int64_t write_predictions(RankingModel& model, const Dataset& data, const std::string& folder, Split split,
                          const std::string& out, const PredictionOptions& options = {});

}  // namespace mixrec
