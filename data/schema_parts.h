// How a schema is read; data/schema_json.cpp puts it together.
#pragma once

#include "mixrec/data/json_reader.h"
#include "mixrec/data/schema.h"

namespace mixrec::detail {

SplitRule read_split(JsonObject in);

// Expressions read the log alone: throws, saying so, where one names a column of a joined table.
void check_expressions(const Schema& schema, const std::string& called);

}  // namespace mixrec::detail
