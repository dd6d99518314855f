// Text of users as messages and JSON show it: whatever the bytes are, the outcome is UTF-8 and short.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mixrec {

// Characters of a value that a message shows, and of a whole message.
inline constexpr size_t kShownBytes = 200, kMessageBytes = 4000;

// `text` on one line: bytes that are not UTF-8 and control characters are written as \xHH, \n, \r or \t.  Above
// `most` bytes the middle is left out and the size is said: "aaaa… (5000000 bytes) …aaaa".
std::string printable(std::string_view text, size_t most = kShownBytes);

// The same of a whole message, of kMessageBytes at most, which may have several lines.
std::string printable_message(std::string_view text);

// Whether the bytes are valid UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

}  // namespace mixrec
