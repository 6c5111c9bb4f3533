// SPDX-License-Identifier: Apache-2.0
// Small reads from sysfs and procfs.  What is absent reads as empty: absence is a fact about a machine, not
// an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smig::sysfs {

inline constexpr std::size_t kMaxFile = 1u << 20;

// The file's contents without trailing white space and NULs; empty when it cannot be read.  At most `limit`
// bytes.
std::string read_text(const std::string& path, std::size_t limit = kMaxFile);
// The same as it stands there.
std::string read_bytes(const std::string& path, std::size_t limit = kMaxFile);
bool exists(const std::string& path);
// Names in a directory, sorted, without "." and ".."; empty when there is none.
std::vector<std::string> list(const std::string& path);
// Where a link leads, resolved; empty when it does not exist.
std::string resolve(const std::string& path);
// The last component of where a link leads ("virtio_net" for .../driver).
std::string link_name(const std::string& path);

std::vector<std::string> split_lines(std::string_view text);
std::vector<std::string> split_words(std::string_view text);
// Decimal, or hexadecimal with 0x; none when anything else stands there.
std::optional<std::uint64_t> parse_number(std::string_view text);

}  // namespace smig::sysfs
