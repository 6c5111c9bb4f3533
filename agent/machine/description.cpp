// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/description.hpp"

#include <cpuid.h>
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "agent/machine/block_devices.hpp"
#include "agent/machine/bus_path.hpp"
#include "agent/machine/cpu_features.hpp"
#include "agent/machine/sysfs.hpp"
#include "agent/machine/tsc.hpp"

namespace smig {

namespace {

using nlohmann::json;

constexpr unsigned kBarCount = 6;

template <std::size_t N>
std::string text_of(const char (&field)[N]) {
    return std::string(field, ::strnlen(field, N));
}

// Without the 0x that sysfs writes.
std::string hex_word(const std::string& path) {
    std::string text = sysfs::read_text(path, 32);
    return text.starts_with("0x") ? text.substr(2) : text;
}

std::string kernel_build_id() {
    const std::string notes = sysfs::read_bytes("/sys/kernel/notes", 4096);
    std::size_t at = 0;
    while (at + sizeof(Elf64_Nhdr) <= notes.size()) {
        Elf64_Nhdr header;
        std::memcpy(&header, notes.data() + at, sizeof(header));
        const auto padded = [](std::size_t length) { return (length + 3) & ~std::size_t{3}; };
        const std::size_t name = at + sizeof(header);
        const std::size_t body = name + padded(header.n_namesz);
        if (body + header.n_descsz > notes.size()) break;
        if (header.n_type == NT_GNU_BUILD_ID && notes.compare(name, 4, std::string("GNU\0", 4)) == 0) {
            std::string id;
            for (std::size_t i = 0; i < header.n_descsz; ++i) {
                id += fmt::format("{:02x}", static_cast<unsigned char>(notes[body + i]));
            }
            return id;
        }
        at = body + padded(header.n_descsz);
    }
    return {};
}

json describe_clock(const smig_info& info) {
    const std::string used = text_of(info.clocksource);
    // A kernel that does not run by the TSC never corrects its first figure.
    const std::uint64_t tsc_khz = used.starts_with("tsc") ? info.tsc_khz : measure_tsc_khz();
    const std::string available = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    return {{"source", used},
            {"tsc_khz", tsc_khz},
            {"available", sysfs::split_words(sysfs::read_text(available))}};
}

json describe_cpu() {
    const CpuFeatures cpu = read_cpu_features();
    json leaves = json::object();
    for (const auto& [key, registers] : cpu.leaves) {
        leaves[fmt::format("{:x}.{}", key.first, key.second)] = registers;
    }
    return {{"vendor", cpu.vendor},
            {"hypervisor", cpu.hypervisor},
            {"xcr0", cpu.xcr0},
            {"leaves", std::move(leaves)}};
}

// Lengths of the device's windows: "start end flags" a line.
json bar_lengths(const std::string& device) {
    json lengths = json::array();
    for (const std::string& line : sysfs::split_lines(sysfs::read_text(device + "/resource"))) {
        const std::vector<std::string> words = sysfs::split_words(line);
        if (words.size() != 3 || lengths.size() == kBarCount) break;
        const std::uint64_t start = sysfs::parse_number(words[0]).value_or(0);
        const std::uint64_t end = sysfs::parse_number(words[1]).value_or(0);
        lengths.push_back(end == 0 ? 0 : end - start + 1);
    }
    return lengths;
}

// What driver and device agreed on, bit 0 first; empty without a virtio driver.
std::string virtio_features(const std::string& pci_device) {
    for (const std::string& entry : sysfs::list(pci_device)) {
        if (!entry.starts_with("virtio")) continue;
        const std::string device = fmt::format("{}/{}", pci_device, entry);
        if (sysfs::exists(device + "/driver")) return sysfs::read_text(device + "/features", 256);
    }
    return {};
}

json describe_pci() {
    json devices = json::array();
    for (const std::string& address : sysfs::list("/sys/bus/pci/devices")) {
        const std::string device = "/sys/bus/pci/devices/" + address;
        json entry = {{"address", address},
                      {"vendor", hex_word(device + "/vendor")},
                      {"device", hex_word(device + "/device")},
                      {"class", hex_word(device + "/class")},
                      {"subsystem", fmt::format("{}:{}", hex_word(device + "/subsystem_vendor"),
                                                hex_word(device + "/subsystem_device"))},
                      {"driver", sysfs::link_name(device + "/driver")},
                      {"bars", bar_lengths(device)}};
        const std::string features = virtio_features(device);
        if (!features.empty()) entry["virtio_features"] = features;
        devices.push_back(std::move(entry));
    }
    return devices;
}

json describe_disks() {
    json disks = json::array();
    for (const Disk& disk : list_disks()) {
        json mounts = json::array();
        for (const DiskMount& mount : disk.mounts) {
            mounts.push_back({{"point", mount.point},
                              {"filesystem", mount.filesystem},
                              {"device", mount.device},
                              {"start", mount.start},
                              {"direct", mount.direct},
                              {"writable", mount.writable}});
        }
        disks.push_back({{"name", disk.name},
                         {"path", disk.path},
                         {"id", disk.id},
                         {"bytes", disk.bytes},
                         {"block_bytes", disk.block_bytes},
                         {"read_only", disk.read_only},
                         {"swap", disk.swap},
                         {"mounts", std::move(mounts)}});
    }
    return disks;
}

json describe_nics() {
    json nics = json::array();
    for (const std::string& name : sysfs::list("/sys/class/net")) {
        const std::string path = bus_path_of_link("/sys/class/net/" + name);
        if (path.empty()) continue;
        nics.push_back({{"name", name},
                        {"path", path},
                        {"mac", sysfs::read_text("/sys/class/net/" + name + "/address", 64)}});
    }
    return nics;
}

void find_unsuspendable_drivers(json& found) {
    // virtio_mem answers its freeze callback with an error, virtiofs likewise; a device handed to vfio
    // belongs to somebody whom no callback reaches.
    constexpr std::array kRefusing{"virtio_mem", "virtiofs"};
    for (const std::string& name : sysfs::list("/sys/bus/virtio/devices")) {
        const std::string driver = sysfs::link_name("/sys/bus/virtio/devices/" + name + "/driver");
        if (std::find(kRefusing.begin(), kRefusing.end(), driver) == kRefusing.end()) continue;
        found.push_back(fmt::format("device {} (driver {}) cannot suspend", name, driver));
    }
    for (const std::string& address : sysfs::list("/sys/bus/pci/drivers/vfio-pci")) {
        if (address.find(':') == std::string::npos || address.find('.') == std::string::npos) continue;
        found.push_back(fmt::format("PCI device {} is handed to vfio-pci and cannot suspend", address));
    }
}

void find_host_filesystems(json& found) {
    for (const Mount& mount : list_mounts()) {
        if (mount.filesystem != "virtiofs" && mount.filesystem != "9p") continue;
        found.push_back(fmt::format("{} is mounted on {}: its state lies with the host; unmount it",
                                    mount.filesystem, mount.point));
    }
}

void find_encrypted_memory(json& found) {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    constexpr unsigned kTdxLeaf = 0x21;  // answers "IntelTDX    " in EBX, EDX, ECX
    constexpr unsigned kInte = 0x65746e49;
    constexpr unsigned kLtdx = 0x5844546c;
    if (__get_cpuid_count(kTdxLeaf, 0, &a, &b, &c, &d) != 0 && b == kInte && d == kLtdx) {
        found.push_back("this is a TDX guest: its memory cannot leave the machine");
    }
    if (sysfs::exists("/dev/sev-guest")) {
        found.push_back("this is an SEV guest: its memory cannot leave the machine");
    }
}

json describe_obstacles() {
    json found = json::array();
    find_unsuspendable_drivers(found);
    find_host_filesystems(found);
    find_encrypted_memory(found);
    return found;
}

}  // namespace

Result<std::string> describe_machine(const smig_info& info) {
    if (!sysfs::exists("/sys/kernel") || !sysfs::exists("/proc/self/mountinfo")) {
        return Error{Remedy::refused, "cannot describe this machine: /proc or /sys is not mounted"};
    }
    json ranges = json::array();
    for (std::uint32_t i = 0; i < info.nr_ranges && i < SMIG_MAX_RAM_RANGES; ++i) {
        ranges.push_back({info.ranges[i].start, info.ranges[i].count});
    }
    const json machine = {
        {"format", 1},
        {"kernel",
         {{"release", text_of(info.release)},
          {"version", text_of(info.version)},
          {"build_id", kernel_build_id()}}},
        {"module", {{"abi", info.abi_version}, {"source_id", text_of(info.source_id)}}},
        {"memory",
         {{"page_table_levels", info.page_table_levels},
          {"pages", info.ram_pages},
          {"ranges", std::move(ranges)}}},
        {"firmware", sysfs::exists("/sys/firmware/efi") ? "EFI" : "BIOS"},
        {"vcpus", info.vcpus},
        {"cpu", describe_cpu()},
        {"clock", describe_clock(info)},
        {"pci", describe_pci()},
        {"disks", describe_disks()},
        {"nics", describe_nics()},
        {"cannot_suspend", describe_obstacles()},
    };
    // Names from the machine may hold any bytes; what is no UTF-8 is replaced, on both sides alike.
    return machine.dump(-1, ' ', true, json::error_handler_t::replace);
}

}  // namespace smig
