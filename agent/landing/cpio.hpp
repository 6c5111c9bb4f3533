// SPDX-License-Identifier: Apache-2.0
// A newc cpio archive, as the kernel unpacks an initramfs from.
//
// Deterministic: the same entries give the same bytes (times and owners are 0, inodes are counted).  The
// first error sticks: what is added afterwards does nothing, and finish() tells it.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "agent/base/result.hpp"

namespace smig {

class CpioWriter {
public:
    // Writes to `fd` from where it stands; does not own it.
    explicit CpioWriter(int fd) : fd_(fd) {}

    // Paths are relative to the root of the archive, without a leading slash.  Missing parent directories are
    // added.
    void add_directory(const std::string& path);
    void add_file(const std::string& path, std::uint32_t permissions, std::string_view contents);
    // The file `source` of this machine, streamed.
    void add_file_from(const std::string& path, std::uint32_t permissions, const std::string& source);
    void add_character_device(const std::string& path, std::uint32_t permissions, std::uint32_t major,
                              std::uint32_t minor);

    [[nodiscard]] bool has(const std::string& path) const { return paths_.contains(path); }
    // Ends the archive.  What went wrong first, if anything did.
    Result<void> finish();
    [[nodiscard]] std::uint64_t bytes_written() const { return written_; }

private:
    struct Entry {
        std::uint32_t mode = 0;
        std::uint32_t links = 1;
        std::uint64_t length = 0;
        std::uint32_t device_major = 0;
        std::uint32_t device_minor = 0;
    };
    bool begin_entry(const std::string& path, const Entry& entry);
    void add_parents(const std::string& path);
    void write_header(const std::string& path, const Entry& entry);
    void write(std::string_view bytes);
    void pad();
    void fail(Error error);

    int fd_;
    std::uint64_t written_ = 0;
    std::uint32_t inode_ = 0;
    std::set<std::string> paths_;
    Result<void> state_;
};

}  // namespace smig
