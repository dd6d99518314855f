// Runs every suite and ends with one plain line: "N passed, N failed, N skipped".
#define DOCTEST_CONFIG_IMPLEMENT
#include "mixrec/tests/skip.h"

#include <cstdio>
#include <doctest/doctest.h>
#include <mutex>
#include <set>
#include <string>

namespace mixrec::test {
namespace {

struct Skipped {
  std::mutex mutex;
  std::set<std::string> checks;
  bool here = false;  // in the test that runs
};

Skipped& skipped() {
  static Skipped it;
  return it;
}

// Only counts: doctest's console reporter stays on.  Every test is one of the three: a test that skipped and asserted
// nothing has not passed.
class Counter : public doctest::IReporter {
 public:
  inline static unsigned passed = 0, failed = 0, skipped = 0;

  explicit Counter(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override { test::skipped().here = false; }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    const bool nothing = stats.numAssertsCurrentTest == 0;
    ++(!stats.testCaseSuccess ? failed : test::skipped().here && nothing ? skipped : passed);
  }
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("counter", 1, Counter);

}  // namespace

void skip(const std::string& what) {
  const std::lock_guard lock(skipped().mutex);
  skipped().checks.insert(what);
  skipped().here = true;
}

}  // namespace mixrec::test

int main(int argc, char** argv) {
  using namespace mixrec::test;
  const int status = doctest::Context(argc, argv).run();
  for (const auto& check : skipped().checks) std::printf("skipped: %s\n", check.c_str());
  std::printf("%u passed, %u failed, %u skipped\n", Counter::passed, Counter::failed, Counter::skipped);
  return status;
}
