#include "mixrec/models/options.h"

#include "mixrec/core/error.h"

#include <nlohmann/json.hpp>
#include <vector>

namespace mixrec {

using Json = nlohmann::ordered_json;

struct OptionReader::State {
  std::string path;
  Json object;
  std::vector<std::string> fields;

  const Json* find(const char* name) {
    fields.push_back(name);
    const auto at = object.find(name);
    return at == object.end() ? nullptr : &*at;
  }
  void require(bool right, const char* name, const char* type, const Json& value) {
    MR_CHECK(right, path, ".", name, " must be ", type, ", got ", value.dump());
  }
};

OptionReader::OptionReader(std::string path, const std::string& text) : state_(std::make_unique<State>()) {
  state_->path = std::move(path);
  state_->object = Json::parse(text.empty() ? "{}" : text, nullptr, false);
  MR_CHECK(state_->object.is_object(), state_->path, " must be a JSON object, got ", text);
}
OptionReader::~OptionReader() = default;

void OptionReader::operator()(const char* name, int64_t& field) {
  if (const Json* value = state_->find(name)) {
    state_->require(value->is_number_integer(), name, "a whole number", *value);
    field = value->get<int64_t>();
  }
}
void OptionReader::operator()(const char* name, double& field) {
  if (const Json* value = state_->find(name)) {
    state_->require(value->is_number(), name, "a number", *value);
    field = value->get<double>();
  }
}
void OptionReader::operator()(const char* name, bool& field) {
  if (const Json* value = state_->find(name)) {
    state_->require(value->is_boolean(), name, "true or false", *value);
    field = value->get<bool>();
  }
}
void OptionReader::operator()(const char* name, std::string& field) {
  if (const Json* value = state_->find(name)) {
    state_->require(value->is_string(), name, "a text", *value);
    field = value->get<std::string>();
  }
}

void OptionReader::finish() {
  for (const auto& [key, value] : state_->object.items()) {
    if (std::find(state_->fields.begin(), state_->fields.end(), key) != state_->fields.end()) continue;
    const std::string near = nearest_name(key, state_->fields);
    MR_FAIL("unknown option ", state_->path, ".", key, near.empty() ? "" : ", did you mean '" + near + "'?");
  }
}

struct OptionWriter::State {
  Json object = Json::object();
};

OptionWriter::OptionWriter() : state_(std::make_unique<State>()) {}
OptionWriter::~OptionWriter() = default;
void OptionWriter::operator()(const char* name, const int64_t& field) { state_->object[name] = field; }
void OptionWriter::operator()(const char* name, const double& field) { state_->object[name] = field; }
void OptionWriter::operator()(const char* name, const bool& field) { state_->object[name] = field; }
void OptionWriter::operator()(const char* name, const std::string& field) { state_->object[name] = field; }
std::string OptionWriter::text() const { return state_->object.dump(); }

}  // namespace mixrec
