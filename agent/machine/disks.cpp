// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/disks.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>

#include "agent/machine/block_devices.hpp"
#include "agent/machine/json_access.hpp"
#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

using json::array;
using json::flag;
using json::number;
using json::shown;
using json::shown_text;
using json::text;
using json::Value;

constexpr std::size_t kProbeBytes = 4096;           // one fresh block; also what O_DIRECT can always read
constexpr std::size_t kBeginningBytes = 64u << 10;  // partition table, boot code, most superblocks
constexpr std::size_t kReadLimit = 1u << 20;        // all probes of one check together
constexpr std::size_t kMaxProbes = 64;
constexpr std::size_t kMaxProbesOfDisk = 2;
constexpr std::array<std::string_view, 4> kTellingFilesystems{"ext2", "ext3", "ext4", "xfs"};

struct FreeDeleter {
    void operator()(void* memory) const { std::free(memory); }
};
using AlignedBuffer = std::unique_ptr<unsigned char, FreeDeleter>;

AlignedBuffer aligned_buffer(std::size_t bytes) {
    return AlignedBuffer(static_cast<unsigned char*>(std::aligned_alloc(kProbeBytes, bytes)));
}

std::string hash_of(const unsigned char* bytes, std::size_t length) {
    return fmt::format("{:016x}", XXH64(bytes, length, 0));
}

// Contents of a disk read past the page cache, hashed.
Result<std::string> read_hash(const std::string& disk, std::uint64_t offset, std::size_t length) {
    const std::string node = device_node(disk);
    const Fd file(::open(node.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    if (!file)
        return errno_error(Remedy::refused,
                           fmt::format("cannot read disk {} ({})", shown(disk), shown(node)));
    const AlignedBuffer buffer = aligned_buffer(length);
    if (!buffer) return Error{Remedy::fatal, "no memory for a disk probe"};
    std::size_t done = 0;
    while (done < length) {
        const ssize_t got =
            ::pread(file.get(), buffer.get() + done, length - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return errno_error(Remedy::refused,
                               fmt::format("cannot read disk {} at {}", shown(disk), offset));
        if (got == 0)
            return Error{Remedy::refused,
                         fmt::format("disk {} ends before {}", shown(disk), offset + length)};
        done += static_cast<std::size_t>(got);
    }
    return hash_of(buffer.get(), length);
}

struct Probe {
    std::string disk;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::string hash;
};

// A file with no name, on the filesystem of `device_number`; none if the directory belongs to another one
// (something is mounted over it) or the filesystem cannot.
std::optional<Fd> unnamed_file(const std::string& directory, const std::string& device) {
    Fd file(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    struct stat status{};
    if (!file || ::fstat(file.get(), &status) != 0) return std::nullopt;
    const std::string name =
        sysfs::link_name(fmt::format("/sys/dev/block/{}:{}", major(status.st_dev), minor(status.st_dev)));
    if (name != device) return std::nullopt;
    return file;
}

// Byte offset within the filesystem's device of the file's first block; none while the filesystem does not
// say exactly.
std::optional<std::uint64_t> place_of_file(int file) {
    alignas(fiemap) std::array<unsigned char, sizeof(fiemap) + sizeof(fiemap_extent)> memory{};
    auto* const map = reinterpret_cast<fiemap*>(memory.data());
    map->fm_length = kProbeBytes;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = 1;
    if (::ioctl(file, FS_IOC_FIEMAP, map) != 0 || map->fm_mapped_extents != 1) return std::nullopt;
    const fiemap_extent& extent = map->fm_extents[0];
    constexpr std::uint32_t kInexact = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC |
                                       FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_ENCRYPTED |
                                       FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_INLINE |
                                       FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_UNWRITTEN;
    if ((extent.fe_flags & kInexact) != 0 || extent.fe_logical != 0 || extent.fe_length < kProbeBytes)
        return std::nullopt;
    return extent.fe_physical;
}

// Writes and flushes a random block; none when this mount cannot prove where it lies.
std::optional<Probe> flush_fresh_block(const std::string& disk, const Value& mount, std::vector<Fd>& files) {
    if (!flag(mount, "direct") || !flag(mount, "writable")) return std::nullopt;
    const std::string filesystem = text(mount, "filesystem");
    if (std::find(kTellingFilesystems.begin(), kTellingFilesystems.end(), filesystem) ==
        kTellingFilesystems.end()) {
        return std::nullopt;
    }
    std::optional<Fd> file = unnamed_file(text(mount, "point"), text(mount, "device"));
    if (!file) return std::nullopt;
    std::array<unsigned char, kProbeBytes> contents;
    for (std::size_t done = 0; done < contents.size();) {
        const ssize_t got = ::getrandom(contents.data() + done, contents.size() - done, 0);
        if (got <= 0) return std::nullopt;
        done += static_cast<std::size_t>(got);
    }
    if (::pwrite(file->get(), contents.data(), contents.size(), 0) != static_cast<ssize_t>(contents.size()) ||
        ::fsync(file->get()) != 0) {
        return std::nullopt;
    }
    const std::optional<std::uint64_t> place = place_of_file(file->get());
    if (!place) return std::nullopt;
    Probe probe{disk, number(mount, "start") + *place, kProbeBytes,
                hash_of(contents.data(), contents.size())};
    // The source itself must find it there: a filesystem's idea of "physical" is its own.
    const Result<std::string> seen = read_hash(disk, probe.offset, kProbeBytes);
    if (!seen || seen.value() != probe.hash) return std::nullopt;
    files.push_back(std::move(*file));
    return probe;
}

// What does not change while the guest runs: the partition table, or more where nothing is written.  Length
// 0: nothing is certain to stay, and the disk's own name must do.
Result<Probe> hash_beginning(const Value& disk) {
    bool written = flag(disk, "swap");
    bool beginning_written = false;
    for (const Value& mount : array(disk, "mounts")) {
        if (!flag(mount, "writable")) continue;
        written = true;
        beginning_written = beginning_written || number(mount, "start") == 0;
    }
    if (written && text(disk, "id").empty()) {
        return Error{Remedy::refused,
                     "it has no serial number, and no filesystem on it tells where a fresh file lies"};
    }
    const std::uint64_t length =
        written ? kProbeBytes : std::min<std::uint64_t>(kBeginningBytes, number(disk, "bytes"));
    Probe probe{text(disk, "name"), 0, beginning_written ? 0 : length & ~(kProbeBytes - 1), {}};
    if (probe.length == 0) return probe;
    Result<std::string> hash = read_hash(probe.disk, 0, probe.length);
    if (!hash) return hash.error();
    probe.hash = std::move(hash).value();
    return probe;
}

const Disk* disk_at(const std::vector<Disk>& disks, const std::string& path) {
    const auto found =
        std::find_if(disks.begin(), disks.end(), [&](const Disk& disk) { return disk.path == path; });
    return found == disks.end() ? nullptr : &*found;
}

}  // namespace

Result<DiskProbes> flush_disk_probes(std::string_view description_json) {
    auto description = json::parse_object(description_json);
    if (!description) return Error{Remedy::fatal, "the description of this machine cannot be read"};
    std::vector<Fd> files;
    Value probes = Value::array();
    for (const Value& disk : array(*description, "disks")) {
        const std::string name = text(disk, "name");
        std::vector<Probe> found;
        for (const Value& mount : array(disk, "mounts")) {
            if (found.size() == kMaxProbesOfDisk) break;
            if (auto probe = flush_fresh_block(name, mount, files)) found.push_back(std::move(*probe));
        }
        if (found.empty()) {
            Result<Probe> beginning = hash_beginning(disk);
            if (!beginning)
                return beginning.error().within(
                    fmt::format("disk {} cannot be told from a copy", shown(name)));
            found.push_back(std::move(beginning).value());
        }
        for (const Probe& probe : found) {
            if (probe.length == 0) continue;
            probes.push_back(
                {{"disk", name}, {"offset", probe.offset}, {"length", probe.length}, {"xxh64", probe.hash}});
        }
    }
    (*description)["probes"] = std::move(probes);
    return DiskProbes(description->dump(-1, ' ', true, Value::error_handler_t::replace), std::move(files));
}

Result<std::vector<std::string>> check_disks(std::string_view source_json) {
    const auto source = json::parse_object(source_json);
    if (!source) return Error{Remedy::protocol, "the guest's description of itself cannot be read"};
    const std::vector<Disk> here = list_disks();
    const Value& probes = array(*source, "probes");
    std::vector<std::string> reasons;
    if (probes.size() > kMaxProbes)
        return std::vector<std::string>{"the guest asks for too many disk probes"};

    std::uint64_t total = 0;
    for (const Value& wanted : array(*source, "disks")) {
        const std::string name = text(wanted, "name");
        const Disk* disk = disk_at(here, text(wanted, "path"));
        const std::string shown_name = fmt::format("disk {}", shown(name));
        if (disk == nullptr) {
            reasons.push_back(fmt::format("{} is not there on the target (looked at {})", shown_name,
                                          shown_text(wanted, "path")));
            continue;
        }
        if (disk->id != text(wanted, "id")) {
            reasons.push_back(fmt::format("{} is another disk on the target: it calls itself {} there",
                                          shown_name,
                                          disk->id.empty() ? std::string("nothing") : shown(disk->id)));
            continue;
        }
        for (const Value& probe : probes) {
            if (text(probe, "disk") != name) continue;
            const std::uint64_t offset = number(probe, "offset");
            const std::uint64_t length = number(probe, "length");
            total += std::min<std::uint64_t>(length, kReadLimit);
            if (length == 0 || length > kBeginningBytes || length % kProbeBytes != 0 || offset % 512 != 0 ||
                offset > disk->bytes || length > disk->bytes - offset || total > kReadLimit) {
                reasons.push_back(
                    fmt::format("{}: the guest's probe at {} cannot be read on the target's disk of {} bytes",
                                shown_name, offset, disk->bytes));
                break;
            }
            const Result<std::string> hash = read_hash(disk->name, offset, static_cast<std::size_t>(length));
            if (!hash) {
                reasons.push_back(shown_name + ": on the target: " + hash.error().text);
                break;
            }
            if (hash.value() != text(probe, "xxh64")) {
                reasons.push_back(
                    fmt::format("{} is another disk on the target: what the guest has written to it at {} is "
                                "not there (attach the same disk, with a coherent host cache)",
                                shown_name, offset));
                break;
            }
        }
        if (reasons.size() >= kMaxProbes) break;
    }
    return reasons;
}

}  // namespace smig
