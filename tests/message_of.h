// The sentence of the error that a call throws; "" when it throws none.
#pragma once

#include <exception>
#include <string>

namespace mixrec::test {

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace mixrec::test
