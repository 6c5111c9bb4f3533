// SPDX-License-Identifier: Apache-2.0
// The real disks of this machine and what the system does with them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace smig {

struct DiskMount {
    std::string point;
    std::string filesystem;
    std::string device;       // as the kernel names it: "vda1", "dm-0"
    std::uint64_t start = 0;  // bytes from the start of the disk; only meaningful if `direct`
    bool direct = false;      // the filesystem lies on the disk or a partition of it, with nothing in between
    bool writable = false;
};

struct Disk {
    std::string name;
    std::string path;  // bus_path.hpp
    std::string id;    // "wwid:..." or "serial:...", empty if the disk has neither
    std::uint64_t bytes = 0;
    std::uint64_t block_bytes = 0;
    bool read_only = false;
    bool swap = false;
    std::vector<DiskMount> mounts;
};

// Disks with a device behind them, by name: no loop, ram, zram, dm, md; no drive with a removable medium
// unless mounted.
std::vector<Disk> list_disks();

// The disk's node below /dev ("cciss!c0d0" is /dev/cciss/c0d0).
std::string device_node(const std::string& name);

struct Mount {
    std::string point;
    std::string filesystem;
    std::string source;
    std::string device_number;  // "254:1"
    bool writable = false;
};
std::vector<Mount> list_mounts();

}  // namespace smig
