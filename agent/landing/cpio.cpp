// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/cpio.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "agent/base/fd.hpp"

namespace smig {

namespace {

constexpr std::size_t kAlignment = 4;
constexpr std::size_t kCopyBytes = 64u << 10;
constexpr std::uint64_t kMaxFile = UINT32_MAX;  // the header's length field
constexpr const char* kTrailer = "TRAILER!!!";

}  // namespace

void CpioWriter::fail(Error error) {
    if (state_) state_ = std::move(error);
}

void CpioWriter::write(std::string_view bytes) {
    while (state_ && !bytes.empty()) {
        const ssize_t put = ::write(fd_, bytes.data(), bytes.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(errno_error(Remedy::refused, "cannot write the image"));
        bytes.remove_prefix(static_cast<std::size_t>(put));
        written_ += static_cast<std::uint64_t>(put);
    }
}

void CpioWriter::pad() {
    constexpr std::array<char, kAlignment> kZeros{};
    write({kZeros.data(), (kAlignment - written_ % kAlignment) % kAlignment});
}

void CpioWriter::write_header(const std::string& path, const Entry& entry) {
    // Magic, inode, mode, uid, gid, links, mtime, length, device of the file, device it stands for, name's
    // length, checksum.
    write(fmt::format("070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}",
                      inode_++, entry.mode, 0, 0, entry.links, 0, entry.length, 0, 0, entry.device_major,
                      entry.device_minor, path.size() + 1, 0));
    write({path.c_str(), path.size() + 1});
    pad();
}

void CpioWriter::add_parents(const std::string& path) {
    for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
        add_directory(path.substr(0, slash));
    }
}

bool CpioWriter::begin_entry(const std::string& path, const Entry& entry) {
    if (!state_) return false;
    if (path.empty() || path.front() == '/' || entry.length > kMaxFile) {
        fail({Remedy::fatal, fmt::format("\"{}\" does not fit into an image", path)});
        return false;
    }
    add_parents(path);
    if (!paths_.insert(path).second) {
        fail({Remedy::fatal, fmt::format("\"{}\" is twice in the image", path)});
        return false;
    }
    write_header(path, entry);
    return state_.ok();
}

void CpioWriter::add_directory(const std::string& path) {
    if (has(path)) return;
    begin_entry(path, {.mode = S_IFDIR | 0755, .links = 2});
}

void CpioWriter::add_file(const std::string& path, std::uint32_t permissions, std::string_view contents) {
    if (!begin_entry(path, {.mode = S_IFREG | permissions, .length = contents.size()})) return;
    write(contents);
    pad();
}

void CpioWriter::add_file_from(const std::string& path, std::uint32_t permissions,
                               const std::string& source) {
    if (!state_) return;
    const Fd file(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status{};
    if (!file || ::fstat(file.get(), &status) != 0)
        return fail(errno_error(Remedy::refused, "cannot read " + source));
    if (!S_ISREG(status.st_mode)) return fail({Remedy::refused, source + " is not a file"});
    std::uint64_t left = static_cast<std::uint64_t>(status.st_size);
    if (!begin_entry(path, {.mode = S_IFREG | permissions, .length = left})) return;
    std::string chunk(kCopyBytes, '\0');
    while (state_ && left > 0) {
        const ssize_t got = ::read(file.get(), chunk.data(), std::min<std::uint64_t>(chunk.size(), left));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(errno_error(Remedy::refused, "cannot read " + source));
        if (got == 0) return fail({Remedy::retry, source + " became shorter while it was read"});
        write({chunk.data(), static_cast<std::size_t>(got)});
        left -= static_cast<std::uint64_t>(got);
    }
    pad();
}

void CpioWriter::add_character_device(const std::string& path, std::uint32_t permissions, std::uint32_t major,
                                      std::uint32_t minor) {
    begin_entry(path, {.mode = S_IFCHR | permissions, .device_major = major, .device_minor = minor});
}

Result<void> CpioWriter::finish() {
    if (state_) write_header(kTrailer, {});
    return state_;
}

}  // namespace smig
