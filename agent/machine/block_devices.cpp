// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/block_devices.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <set>

#include "agent/machine/bus_path.hpp"
#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

constexpr std::uint64_t kSectorBytes = 512;  // of sysfs, whatever the disk's own blocks are
constexpr int kMaxStacking = 16;             // dm on md on ...

std::uint64_t read_number(const std::string& path) {
    return sysfs::parse_number(sysfs::read_text(path, 64)).value_or(0);
}

// mountinfo writes white space and backslashes as \ooo.
std::string unescape(std::string_view text) {
    std::string out;
    const auto octal = [](char c) { return c >= '0' && c <= '7'; };
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
            octal(text[i + 3])) {
            out += static_cast<char>(((text[i + 1] - '0') << 6) | ((text[i + 2] - '0') << 3) |
                                     (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

std::string number_of_node(const std::string& node) {
    struct stat status{};
    if (::stat(node.c_str(), &status) != 0 || !S_ISBLK(status.st_mode)) return {};
    return fmt::format("{}:{}", major(status.st_rdev), minor(status.st_rdev));
}

// A block device and the disks it rests on, through partitions, dm and md.
struct Footing {
    std::string device;
    std::set<std::string> disks;
    std::uint64_t start = 0;
    bool direct = true;
};

void find_footing(const std::string& sysfs_path, Footing& footing, int depth) {
    if (depth > kMaxStacking) return;
    const std::string name = sysfs_path.substr(sysfs_path.rfind('/') + 1);
    if (sysfs::exists(sysfs_path + "/partition")) {
        footing.start += read_number(sysfs_path + "/start") * kSectorBytes;
        find_footing(sysfs_path.substr(0, sysfs_path.rfind('/')), footing, depth + 1);
        return;
    }
    const std::vector<std::string> below = sysfs::list(sysfs_path + "/slaves");
    if (below.empty()) {
        footing.disks.insert(name);
        return;
    }
    footing.direct = false;
    const std::string slaves = sysfs_path + "/slaves/";
    for (const std::string& slave : below) find_footing(sysfs::resolve(slaves + slave), footing, depth + 1);
}

Footing footing_of(const std::string& device_number) {
    Footing footing;
    if (device_number.empty()) return footing;
    const std::string path = sysfs::resolve("/sys/dev/block/" + device_number);
    if (path.empty()) return footing;
    footing.device = path.substr(path.rfind('/') + 1);
    find_footing(path, footing, 0);
    return footing;
}

std::string identity_of(const std::string& block) {
    for (const char* file : {"/wwid", "/device/wwid"}) {
        const std::string wwid = sysfs::read_text(block + file, 512);
        if (!wwid.empty()) return "wwid:" + wwid;
    }
    for (const char* file : {"/serial", "/device/serial"}) {
        const std::string serial = sysfs::read_text(block + file, 512);
        if (!serial.empty()) return "serial:" + serial;
    }
    return {};
}

// With native multipath an NVMe namespace hangs on a virtual subsystem; its place is that of its first
// controller.
std::string place_of(const std::string& block) {
    std::string path = bus_path_of_link(block);
    if (!path.empty()) return path;
    const std::string subsystem = sysfs::resolve(block + "/..") + "/";
    if (subsystem.find("/nvme-subsystem/") == std::string::npos) return {};
    for (const std::string& entry : sysfs::list(subsystem)) {
        if (entry.starts_with("nvme") && entry.find('n', 4) == std::string::npos) {
            path = bus_path_of_link(subsystem + entry);
            if (!path.empty()) return path + "/n" + sysfs::read_text(block + "/nsid", 32);
        }
    }
    return {};
}

void note_mounts(std::vector<Disk>& disks) {
    for (const Mount& mount : list_mounts()) {
        // btrfs and others have a device number of their own; their source names a block device.
        Footing footing = footing_of(mount.device_number);
        const bool plain = !footing.disks.empty();
        if (!plain && mount.source.starts_with("/dev/")) footing = footing_of(number_of_node(mount.source));
        for (Disk& disk : disks) {
            if (!footing.disks.contains(disk.name)) continue;
            disk.mounts.push_back({mount.point, mount.filesystem, footing.device, footing.start,
                                   plain && footing.direct, mount.writable});
        }
    }
}

void note_swaps(std::vector<Disk>& disks) {
    for (const std::string& line : sysfs::split_lines(sysfs::read_text("/proc/swaps"))) {
        const std::vector<std::string> words = sysfs::split_words(line);
        if (words.size() < 2 || words[1] != "partition") continue;
        const Footing footing = footing_of(number_of_node(unescape(words[0])));
        for (Disk& disk : disks) disk.swap = disk.swap || footing.disks.contains(disk.name);
    }
}

}  // namespace

std::string device_node(const std::string& name) {
    std::string node = "/dev/" + name;
    std::replace(node.begin() + 5, node.end(), '!', '/');
    return node;
}

std::vector<Mount> list_mounts() {
    std::vector<Mount> mounts;
    for (const std::string& line : sysfs::split_lines(sysfs::read_text("/proc/self/mountinfo"))) {
        // id parent major:minor root point options [optional...] - filesystem source options
        const std::vector<std::string> words = sysfs::split_words(line);
        const auto dash = std::find(words.begin(), words.end(), "-");
        if (words.size() < 6 || words.end() - dash < 4) continue;
        const auto read_only = [](const std::string& options) {
            return options == "ro" || options.starts_with("ro,");
        };
        mounts.push_back({unescape(words[4]), dash[1], unescape(dash[2]), words[2],
                          !read_only(words[5]) && !read_only(dash[3])});
    }
    return mounts;
}

std::vector<Disk> list_disks() {
    std::vector<Disk> disks;
    for (const std::string& name : sysfs::list("/sys/block")) {
        const std::string block = "/sys/block/" + name;
        const std::string path = place_of(block);
        if (path.empty() || read_number(block + "/hidden") != 0) continue;
        Disk disk;
        disk.name = name;
        disk.path = path;
        disk.id = identity_of(block);
        disk.bytes = read_number(block + "/size") * kSectorBytes;
        disk.block_bytes = read_number(block + "/queue/logical_block_size");
        disk.read_only = read_number(block + "/ro") != 0;
        disks.push_back(std::move(disk));
    }
    note_mounts(disks);
    note_swaps(disks);
    std::erase_if(disks, [](const Disk& disk) {
        const bool has_medium = disk.bytes != 0;
        const bool removable = read_number("/sys/block/" + disk.name + "/removable") != 0;
        return disk.mounts.empty() && !disk.swap && (!has_medium || removable);
    });
    return disks;
}

}  // namespace smig
