// Scalars in TensorBoard's event format: `tensorboard --logdir RUN` draws them.
//
// A file is a row of records, each: u64 length, masked CRC-32C of the length, payload, masked CRC-32C of the
// payload. A payload is one protobuf message Event, encoded here by hand.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace mixrec {

class EventWriter {
 public:
  // Opens a new events.out.tfevents.* file in `folder`.  After a resume, TensorBoard drops what earlier files
  // hold beyond `first_step`.
  explicit EventWriter(const std::string& folder, int64_t first_step = 0);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  const std::string& path() const { return path_; }

  // One event with any number of scalars: ("train/loss", 0.61).
  void scalars(int64_t step, std::span<const std::pair<std::string, double>> values);
  // One event with a text, which TensorBoard shows under TEXT.
  void text(int64_t step, const std::string& tag, const std::string& text);

 private:
  void record(std::string_view event);

  std::string path_;
  std::FILE* file_ = nullptr;
};

// CRC-32C (Castagnoli), as in RFC 3720.
uint32_t crc32c(std::string_view bytes);

}  // namespace mixrec
