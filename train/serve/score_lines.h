// Requests and answers as lines of JSON.
//
//   {"user": "17", "time": 1651536000, "values": {"tab": 1},
//    "history": ["5", {"item": "9", "time": 1651530000, "liked": 1}],
//    "candidates": ["12", {"item": "13", "price": 9.5}], "key": "17@1651530000"}
//
// Texts, numbers and lists of texts stand for values as in the data set's files; null is a missing cell.  `history`
// is an object of lists, by name, where the model has several.  `key` names the state of the user (Scorer::score).
// The answer has the probabilities of each task, candidate by candidate:
//
//   {"line":1,"probabilities":{"click":[0.25,0.5]}}
//   {"line":2,"error":"line 2.candidates[1]: …"}
//
// and, where there are any, by feature how many of its values the model does not know, and by history how many of its
// events were left out since they do not lie before the request's day or time (data/feature_encoder.h, EncodeNotes):
//
//   {"line":3,"probabilities":{"click":[0.25]},"unknown":{"item":2},"later_events":{"seen":1}}
//
// Every answer is valid JSON in UTF-8, whatever the bytes of its line are, and no line has a bearing on another's.
#pragma once

#include "mixrec/train/serve/scorer.h"

#include <functional>
#include <iosfwd>
#include <string>

namespace mixrec {

struct LineRequest {
  ScoreRequest request;
  std::string key;
};

// Throws, with the place in the line, on anything that is not as above.
LineRequest parse_score_line(const std::string& text, int64_t line, const FeatureEncoder& encoder);

// The answer to one line; never throws for what the line says.
std::string answer_score_line(const Scorer& scorer, const std::string& text, int64_t line);

// Answers all lines of `in`, in their order; empty lines are passed over.  Lines that have arrived together are
// answered by several threads; a single one at once, so that a program may wait for each answer.
// Returns the number of lines.
int64_t score_lines(const Scorer& scorer, std::istream& in,
                    const std::function<void(const std::string&)>& write);

}  // namespace mixrec
