// Reading and writing a struct of options as a flat JSON object, without JSON in headers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace mixrec {

// Sets each visited field that the object names.  Errors name the dotted path: wrong type, unknown key.
class OptionReader {
 public:
  // `path` is where the object stands in its file, for messages; `text` is its JSON.
  OptionReader(std::string path, const std::string& text);
  ~OptionReader();

  void operator()(const char* name, int64_t& field);
  void operator()(const char* name, double& field);
  void operator()(const char* name, bool& field);
  void operator()(const char* name, std::string& field);

  // Throws when the object has a key that no field took; suggests the nearest field.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Collects every visited field.
class OptionWriter {
 public:
  OptionWriter();
  ~OptionWriter();

  void operator()(const char* name, const int64_t& field);
  void operator()(const char* name, const double& field);
  void operator()(const char* name, const bool& field);
  void operator()(const char* name, const std::string& field);

  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mixrec
