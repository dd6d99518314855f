#include "mixrec/train/tensorboard.h"

#include "mixrec/core/error.h"

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <unistd.h>

namespace mixrec {

namespace {

std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}

// The format rotates and shifts its checksums, since a CRC over data that holds CRCs is weak.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

template <class T>
std::string little_endian(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// Protobuf fields: a tag of field number and wire type, then the value.
std::string varint_field(int number, int64_t value) {
  return varint(number << 3 | 0) + varint(static_cast<uint64_t>(value));
}
std::string double_field(int number, double value) { return varint(number << 3 | 1) + little_endian(value); }
std::string float_field(int number, float value) { return varint(number << 3 | 5) + little_endian(value); }
std::string bytes_field(int number, std::string_view value) {
  return varint(number << 3 | 2) + varint(value.size()) + std::string(value);
}

// Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary, 7 session_log.
std::string event_head(int64_t step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return double_field(1, now.count()) + varint_field(2, step);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = crc_table();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<uint8_t>(byte)) & 0xff];
  return ~crc;
}

EventWriter::EventWriter(const std::string& folder, int64_t first_step) {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  path_ = concat_message(folder, "/events.out.tfevents.", seconds, ".", host, ".", ::getpid());
  file_ = std::fopen(path_.c_str(), "ab");
  MR_CHECK(file_, "cannot write ", path_, ": ", std::strerror(errno));
  record(event_head(0) + bytes_field(3, "brain.Event:2"));
  // SessionLog{1: status = START}: events of earlier files from this step on are void.
  if (first_step > 0) record(event_head(first_step) + bytes_field(7, varint_field(1, 1)));
}

EventWriter::~EventWriter() { std::fclose(file_); }

void EventWriter::scalars(int64_t step, std::span<const std::pair<std::string, double>> values) {
  std::string summary;
  for (const auto& [tag, value] : values)
    summary += bytes_field(1, bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
  record(event_head(step) + bytes_field(5, summary));
}

void EventWriter::text(int64_t step, const std::string& tag, const std::string& text) {
  // Summary.Value: 1 tag, 8 tensor, 9 metadata.  TensorProto: 1 dtype (7 = string), 2 shape, 8 string_val; an empty shape
  // is a scalar's.  SummaryMetadata: 1 plugin_data {1 plugin_name}.
  constexpr int kString = 7;
  const std::string tensor = varint_field(1, kString) + bytes_field(2, "") + bytes_field(8, text);
  const std::string metadata = bytes_field(1, bytes_field(1, "text"));
  record(event_head(step) + bytes_field(5, bytes_field(1, bytes_field(1, tag) + bytes_field(8, tensor) +
                                                              bytes_field(9, metadata))));
}

void EventWriter::record(std::string_view event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  std::string bytes = length + little_endian(masked_crc(length));
  bytes += event;
  bytes += little_endian(masked_crc(event));
  // Curves are a convenience: a full disk must not end a training run here (the checkpoint will say so).
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) == bytes.size()) std::fflush(file_);
}

}  // namespace mixrec
