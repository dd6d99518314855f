#include "mixrec/core/files/safetensors.h"

#include "mixrec/core/error.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/temporary_folder.h"

#include <csignal>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <sys/resource.h>

using namespace mixrec;
using mixrec::test::message_of;
using test::read_file;
using test::TemporaryFolder;
using test::write_file;

namespace {

// A file from its parts, written by hand.
std::string file_of(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string error_of(const std::string& path, const std::string& content) {
  write_file(path, content);
  try {
    SafetensorsFile file(path);
    (void)file;
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

// Makes every file longer than `bytes` fail as a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    previous_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit limit{bytes, previous_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, previous_handler_);
  }

 private:
  rlimit previous_{};
  void (*previous_handler_)(int);
};

}  // namespace

TEST_SUITE("safetensors") {
  TEST_CASE("what was written is read back, and the bytes are the format's") {
    const TemporaryFolder folder;
    const std::string path = folder / "a.safetensors";
    const float weight[] = {1, 2, 3, 4, 5, 6};
    const int64_t step = 42;
    const uint8_t flags[] = {1, 0, 1};
    const std::vector<TensorToWrite> tensors = {
        {{"weight", "F32", {2, 3}}, weight}, {{"flags", "U8", {3}}, flags}, {{"step", "I64", {}}, &step}};
    const std::vector<TensorToWrite> with_empty = [&] {
      auto list = tensors;
      list.push_back({{"empty", "F64", {0, 7}}, nullptr});
      return list;
    }();
    write_safetensors(path, with_empty, {{"model", "mixformer"}});

    const SafetensorsFile file(path);
    CHECK(file.metadata() == std::map<std::string, std::string>{{"model", "mixformer"}});
    CHECK(file.tensors().size() == 4);
    REQUIRE(file.find("weight"));
    CHECK(file.find("weight")->shape == std::vector<int64_t>{2, 3});
    float back[6];
    file.read({"weight", "F32", {2, 3}}, back);
    CHECK(std::memcmp(back, weight, sizeof weight) == 0);
    int64_t step_back = 0;
    file.read({"step", "I64", {}}, &step_back);
    CHECK(step_back == 42);
    file.read({"empty", "F64", {0, 7}}, nullptr);

    const std::string bytes = read_file(path);
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    CHECK(header % 8 == 0);
    CHECK(bytes.size() == 8 + header + 24 + 3 + 8);
    CHECK(bytes.substr(8).starts_with(R"({"__metadata__":{"mixrec.header":")"));
    CHECK(bytes.find(R"("model":"mixformer"},"weight":{"dtype":"F32","shape":[2,3])") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
  }

  TEST_CASE("one changed byte anywhere is found, and a file without digests is read") {
    const TemporaryFolder folder;
    const std::string path = folder / "a.safetensors";
    const float weight[] = {1, 2, 3, 4, 5, 6};
    const double score[] = {0.75};
    const std::vector<TensorToWrite> tensors = {{{"weight", "F32", {2, 3}}, weight},
                                                {{"score", "F64", {1}}, score}};
    write_safetensors(path, tensors, {{"step", "100"}, {"phase", "1"}});
    const std::string whole = read_file(path);
    const auto error = [&](const std::string& bytes) {
      write_file(path, bytes);
      return message_of([&] { SafetensorsFile(path).check_values(); });
    };
    CHECK(error(whole) == "");
    for (size_t i = 0; i < whole.size(); ++i)
      for (const int bit : {0, 3, 7}) {
        std::string bytes = whole;
        bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
        const std::string message = error(bytes);
        CAPTURE(i);
        CAPTURE(message);
        CHECK(message.find("a.safetensors") != std::string::npos);
      }
    // The last byte belongs to the second tensor.
    std::string bytes = whole;
    bytes.back() ^= 1;
    CHECK(error(bytes).find("the values of score are not those that were written") != std::string::npos);
    write_file(path, bytes);
    double back = 0;
    CHECK_THROWS_WITH_AS(SafetensorsFile(path).read({"score", "F64", {1}}, &back),
                         doctest::Contains("the values of score"), Error);

    const std::string header = R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})";
    CHECK(error(file_of(header, "xy")) == "");
  }

  TEST_CASE("reading asks for the right tensor") {
    const TemporaryFolder folder;
    const std::string path = folder / "a.safetensors";
    const float weight[] = {1, 2};
    write_safetensors(path, std::vector<TensorToWrite>{{{"blocks.0.weight", "F32", {2}}, weight}});
    const SafetensorsFile file(path);
    float back[2];
    CHECK_THROWS_WITH_AS(file.read({"blocks.0.wieght", "F32", {2}}, back),
                         doctest::Contains("has no tensor blocks.0.wieght; did you mean blocks.0.weight?"),
                         Error);
    CHECK_THROWS_WITH_AS(file.read({"blocks.0.weight", "F32", {1, 2}}, back),
                         doctest::Contains("tensor blocks.0.weight is F32 [2], expected F32 [1, 2]"), Error);
    CHECK_THROWS_WITH_AS(file.read({"blocks.0.weight", "BF16", {2}}, back),
                         doctest::Contains("expected BF16 [2]"), Error);
  }

  TEST_CASE("every damage to a file is an error that names file and tensor") {
    const TemporaryFolder folder;
    const std::string path = folder / "bad.safetensors";
    const auto error = [&](const std::string& header, size_t data) {
      return error_of(path, file_of(header, std::string(data, 'x')));
    };
    const auto contains = [&](const std::string& message, const std::string& part) {
      CAPTURE(message);
      CAPTURE(part);
      CHECK(message.find(path) != std::string::npos);
      CHECK(message.find(part) != std::string::npos);
    };
    const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    CHECK(error("{" + a + "}", 8) == "accepted");
    CHECK(error("{}", 0) == "accepted");
    contains(error_of(path, ""), "truncated");
    contains(error_of(path, "abc"), "truncated");
    contains(error_of(path, "this is certainly not a checkpoint"), "not a safetensors file");
    contains(error_of(path, file_of("{" + a + "}", "").substr(0, 20)), "truncated: the header has");
    contains(error("{" + a + "}", 7), "truncated: tensor a ends at byte 8 of the data, the file has 7");
    contains(error("{" + a + "}", 9), "1 bytes after its last tensor");
    contains(error("{" + a, 8), "not valid JSON");
    contains(error("[1]", 0), "not a JSON object");
    contains(error("{" + a + "," + a + "}", 8), "'a' stands twice");
    contains(error("{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12),
             "tensor b overlaps a");
    contains(error("{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16),
             "4 unused bytes before tensor b");
    contains(error(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
             "tensor a, F32 [3], needs 12 bytes, its data_offsets are [0,8]");
    contains(error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "tensor a");
    contains(error(R"({"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}})", 8), "tensor a has dtype F16");
    contains(error(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "tensor a: shape");
    contains(error(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0),
             "tensor a");
    contains(error(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "tensor a needs exactly");
    contains(error(R"({"a":7})", 8), "tensor a needs exactly");
    contains(error(R"({"__metadata__":{"step":3}})", 0), "__metadata__.step is not a string");
    CHECK_THROWS_WITH_AS(SafetensorsFile(folder / "absent"), doctest::Contains("No such file"), Error);
    CHECK_THROWS_WITH_AS(SafetensorsFile(folder.path()), doctest::Contains("not a regular file"), Error);
  }

  TEST_CASE("every proper prefix of a file is refused") {
    const TemporaryFolder folder;
    const float weight[] = {1, 2, 3};
    write_safetensors(folder / "a", std::vector<TensorToWrite>{{{"weight", "F32", {3}}, weight}});
    const std::string whole = read_file(folder / "a");
    for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
      CAPTURE(bytes);
      CHECK(error_of(folder / "b", whole.substr(0, bytes)) != "accepted");
    }
    CHECK(error_of(folder / "b", whole) == "accepted");
  }

  TEST_CASE("a full disk while saving keeps the old file and leaves no temporary") {
    const TemporaryFolder folder;
    const std::string path = folder / "a.safetensors";
    const std::vector<float> small(4, 1.0f), big(100'000, 2.0f);
    write_safetensors(path, std::vector<TensorToWrite>{{{"w", "F32", {4}}, small.data()}});
    const std::string before = read_file(path);
    {
      const FileSizeLimit limit(64 << 10);
      CHECK_THROWS_WITH_AS(
          write_safetensors(path, std::vector<TensorToWrite>{{{"w", "F32", {100'000}}, big.data()}}),
          doctest::Contains(("cannot write " + path).c_str()), Error);
    }
    CHECK(read_file(path) == before);
    CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
    CHECK_THROWS_WITH_AS(write_safetensors(folder / "no/such/a", {}), doctest::Contains("No such file"),
                         Error);
  }

  TEST_CASE("two tensors of one name are not written") {
    const TemporaryFolder folder;
    const float value = 1;
    const std::vector<TensorToWrite> twice(2, {{"w", "F32", {}}, &value});
    CHECK_THROWS_WITH_AS(write_safetensors(folder / "a", twice), doctest::Contains("are named w"), Error);
    CHECK(std::filesystem::is_empty(folder.path()));
  }
}
