#include "mixrec/core/printable.h"

#include <cstdint>

namespace mixrec {

namespace {

// Bytes of the UTF-8 character at the start of `text`; 0 when there is none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  if (byte(0) < 0x80) return 1;
  const size_t bytes = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || text.size() < bytes) return 0;
  for (size_t i = 1; i < bytes; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  // Overlong forms, surrogates and what lies beyond U+10FFFF.
  const bool wrong = (byte(0) == 0xE0 && byte(1) < 0xA0) || (byte(0) == 0xED && byte(1) > 0x9F) ||
                     (byte(0) == 0xF0 && byte(1) < 0x90) || (byte(0) == 0xF4 && byte(1) > 0x8F);
  return wrong ? 0 : bytes;
}

std::string escaped(std::string_view text, bool keep_breaks) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  while (!text.empty()) {
    const auto first = static_cast<uint8_t>(text.front());
    // A message is one line, and its reader's terminal obeys nobody's cells.
    const bool control = (first < 0x20 || first == 0x7F) && !(keep_breaks && first == '\n');
    const size_t bytes = control ? 0 : character_bytes(text);
    if (bytes > 0) {
      out.append(text.substr(0, bytes));
    } else if (first == '\n' || first == '\t' || first == '\r') {
      out.append(1, '\\').append(1, first == '\n' ? 'n' : first == '\t' ? 't' : 'r');
    } else {
      out.append("\\x").append(1, kDigits[first >> 4]).append(1, kDigits[first & 15]);
    }
    text.remove_prefix(bytes > 0 ? bytes : 1);
  }
  return out;
}

bool continues(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

std::string shortened(std::string_view text, size_t most, bool keep_breaks) {
  if (text.size() <= most) return escaped(text, keep_breaks);
  // The start says what it is, the end often why; no character is cut in two.
  size_t head = most * 2 / 3, tail = text.size() - most / 3;
  for (int i = 0; i < 3 && head > 0 && continues(text[head]); ++i) --head;
  for (int i = 0; i < 3 && tail < text.size() && continues(text[tail]); ++i) ++tail;
  return escaped(text.substr(0, head), keep_breaks)
      .append("… (")
      .append(std::to_string(text.size()))
      .append(" bytes) …")
      .append(escaped(text.substr(tail), keep_breaks));
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string printable(std::string_view text, size_t most) { return shortened(text, most, false); }
std::string printable_message(std::string_view text) { return shortened(text, kMessageBytes, true); }

}  // namespace mixrec
