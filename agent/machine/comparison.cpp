// SPDX-License-Identifier: Apache-2.0
// compare_machines(): pure, one function a subject, in the order in which a person would put things right.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "agent/machine/cpu_features.hpp"
#include "agent/machine/description.hpp"
#include "agent/machine/json_access.hpp"
#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

using json::array;
using json::flag;
using json::member;
using json::number;
using json::shown;
using json::shown_text;
using json::text;
using json::Value;

using Reasons = std::vector<std::string>;

constexpr std::uint64_t kFormat = 1;
constexpr double kTscTolerance = 0.0005;     // a TSC clocksource runs at the rate the kernel measured at boot
constexpr double kLooseTscTolerance = 0.02;  // otherwise only delay loops and the scheduler's clock use it
constexpr std::uint64_t kMaxPfn = 1ull << 40;  // keeps sums of hostile ranges far from overflow
constexpr const char* kNewImage =
    "make the landing image again with `selfmigrate landing-image` in the source";

void compare_kernels(const Value& source, const Value& target, Reasons& reasons) {
    const Value& here = member(source, "kernel");
    const Value& there = member(target, "kernel");
    if (text(here, "release").empty()) {
        reasons.push_back("the guest's description names no kernel");
        return;
    }
    if (text(here, "release") != text(there, "release")) {
        reasons.push_back(fmt::format("the target's kernel is {}, the guest's is {}: {}",
                                      shown_text(there, "release"), shown_text(here, "release"), kNewImage));
        return;
    }
    if (text(here, "version") != text(there, "version")) {
        reasons.push_back(fmt::format("the target's kernel {} is another build ({}, the guest's is {}): {}",
                                      shown_text(here, "release"), shown_text(there, "version"),
                                      shown_text(here, "version"), kNewImage));
    } else if (text(here, "build_id") != text(there, "build_id")) {
        reasons.push_back(fmt::format("the target's kernel {} has build id {}, the guest's {}: {}",
                                      shown_text(here, "release"), shown_text(there, "build_id"),
                                      shown_text(here, "build_id"), kNewImage));
    }
}

void compare_modules(const Value& source, const Value& target, Reasons& reasons) {
    const Value& here = member(source, "module");
    const Value& there = member(target, "module");
    if (number(here, "abi") != number(there, "abi")) {
        reasons.push_back(fmt::format("the target's selfmigrate.ko has ABI {}, the guest's {}: {}",
                                      number(there, "abi"), number(here, "abi"), kNewImage));
    } else if (text(here, "source_id") != text(there, "source_id")) {
        reasons.push_back(
            fmt::format("the target's selfmigrate.ko is another build ({}, the guest's is {}): {}",
                        shown_text(there, "source_id"), shown_text(here, "source_id"), kNewImage));
    }
}

struct Range {
    std::uint64_t start;
    std::uint64_t end;
};

// Sorted, joined where they touch; empty when anything in it is not a range.
std::vector<Range> ranges_of(const Value& machine) {
    std::vector<Range> ranges;
    for (const Value& entry : array(member(machine, "memory"), "ranges")) {
        if (!entry.is_array() || entry.size() != 2 || ranges.size() == SMIG_MAX_RAM_RANGES) return {};
        const auto start = json::number_of(entry[0]);
        const auto count = json::number_of(entry[1]);
        if (!start || !count || *start > kMaxPfn || *count > kMaxPfn) return {};
        if (*count > 0) ranges.push_back({*start, *start + *count});
    }
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.start < b.start; });
    std::vector<Range> joined;
    for (const Range& range : ranges) {
        if (!joined.empty() && range.start <= joined.back().end) {
            joined.back().end = std::max(joined.back().end, range.end);
        } else {
            joined.push_back(range);
        }
    }
    return joined;
}

void compare_memory(const Value& source, const Value& target, Reasons& reasons) {
    const std::uint64_t here_levels = number(member(source, "memory"), "page_table_levels");
    const std::uint64_t there_levels = number(member(target, "memory"), "page_table_levels");
    if (here_levels != there_levels) {
        reasons.push_back(fmt::format("the guest uses {}-level page tables, the target {}-level ones{}",
                                      here_levels, there_levels,
                                      here_levels == 4 ? ": start the target's kernel with no5lvl" : ""));
    }
    const std::vector<Range> needed = ranges_of(source);
    const std::vector<Range> offered = ranges_of(target);
    if (needed.empty()) {
        reasons.push_back("the guest's description names no memory");
        return;
    }
    std::uint64_t missing = 0;
    std::string first;
    for (const Range& range : needed) {
        std::uint64_t covered = 0;
        for (const Range& other : offered) {
            const std::uint64_t start = std::max(range.start, other.start);
            const std::uint64_t end = std::min(range.end, other.end);
            if (start < end) covered += end - start;
        }
        const std::uint64_t lacking = range.end - range.start - covered;
        if (lacking != 0 && first.empty()) {
            first = fmt::format("{:#x}-{:#x}", range.start << 12, (range.end << 12) - 1);
        }
        missing += lacking;
    }
    if (missing != 0) {
        reasons.push_back(
            fmt::format("the target's memory does not cover the guest's: {} pages ({} MiB) are missing, "
                        "the first in {}; give it as much memory as the source has",
                        missing, (missing + 255) / 256, first));
    } else if (offered.back().end != needed.back().end) {
        // The module maps all frames of both, and firmware keeps its tables at the end.
        reasons.push_back(
            fmt::format("the target's memory ends at {:#x}, the guest's at {:#x}; give it as much memory as "
                        "the source has",
                        offered.back().end << 12, needed.back().end << 12));
    }
}

std::optional<CpuFeatures> cpu_of(const Value& machine) {
    const Value& entry = member(machine, "cpu");
    const Value& leaves = member(entry, "leaves");
    if (!leaves.is_object() || leaves.size() > 256) return std::nullopt;
    CpuFeatures cpu;
    cpu.vendor = shown_text(entry, "vendor");
    cpu.hypervisor = shown_text(entry, "hypervisor");
    cpu.xcr0 = number(entry, "xcr0");
    for (const auto& [name, registers] : leaves.items()) {
        const std::size_t dot = name.find('.');
        if (dot == std::string::npos || !registers.is_array() || registers.size() != 4) return std::nullopt;
        const auto leaf = sysfs::parse_number("0x" + name.substr(0, dot));
        const auto subleaf = sysfs::parse_number(name.substr(dot + 1));
        if (!leaf || !subleaf || *leaf > UINT32_MAX || *subleaf > UINT32_MAX) return std::nullopt;
        CpuFeatures::Registers values{};
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto value = json::number_of(registers[i]);
            if (!value || *value > UINT32_MAX) return std::nullopt;
            values.at(i) = static_cast<std::uint32_t>(*value);
        }
        cpu.leaves[{static_cast<std::uint32_t>(*leaf), static_cast<std::uint32_t>(*subleaf)}] = values;
    }
    return cpu;
}

void compare_processors(const Value& source, const Value& target, Reasons& reasons) {
    const std::uint64_t here_count = number(source, "vcpus");
    const std::uint64_t there_count = number(target, "vcpus");
    if (here_count != there_count) {
        reasons.push_back(fmt::format("the target has {} vCPUs, the guest {}: give it the same number",
                                      there_count, here_count));
    }
    const auto here = cpu_of(source);
    const auto there = cpu_of(target);
    if (!here || here->leaves.empty()) {
        reasons.push_back("the guest's description of its CPU cannot be read");
    } else if (!there || there->leaves.empty()) {
        reasons.push_back("the target's description of its CPU cannot be read");
    } else {
        const Reasons found = compare_cpus(*here, *there);
        reasons.insert(reasons.end(), found.begin(), found.end());
    }
}

void compare_clocks(const Value& source, const Value& target, Reasons& reasons) {
    const Value& here = member(source, "clock");
    const Value& there = member(target, "clock");
    const std::string used = text(here, "source");
    const bool by_tsc = used.starts_with("tsc");
    const auto here_khz = static_cast<double>(number(here, "tsc_khz"));
    const auto there_khz = static_cast<double>(number(there, "tsc_khz"));
    if (!by_tsc) {
        const Value& available = array(there, "available");
        if (std::find(available.begin(), available.end(), Value(used)) == available.end()) {
            reasons.push_back(
                fmt::format("the guest's clocksource {} is not there on the target", shown(used)));
        }
    }
    if ((by_tsc && here_khz == 0) || (here_khz != 0 && there_khz == 0)) {
        reasons.push_back("the TSC's rate is not known on both machines");
    } else if (here_khz != 0) {
        const double difference = std::abs(there_khz - here_khz) / here_khz;
        if (difference > (by_tsc ? kTscTolerance : kLooseTscTolerance)) {
            reasons.push_back(
                fmt::format("the target's TSC runs at {:.0f} kHz, the guest's at {:.0f} kHz ({:.3f} % "
                            "apart)",
                            there_khz, here_khz, difference * 100));
        }
    }
}

std::map<std::string, const Value*> by_key(const Value& list, const char* key) {
    std::map<std::string, const Value*> found;
    for (const Value& entry : list) found.emplace(text(entry, key), &entry);
    return found;
}

void compare_virtio(const Value& here, const Value& there, Reasons& reasons) {
    const std::string wanted = text(here, "virtio_features");
    const std::string offered = text(there, "virtio_features");
    if (offered.empty()) return;  // no driver in the landing environment: nothing was negotiated
    for (std::size_t i = 0; i < wanted.size() && i < 128; ++i) {
        if (wanted[i] != '1' || (i < offered.size() && offered[i] == '1')) continue;
        reasons.push_back(fmt::format("virtio device {} lacks feature bit {} on the target",
                                      shown_text(here, "address"), i));
    }
}

void compare_pci(const Value& source, const Value& target, Reasons& reasons) {
    const auto offered = by_key(array(target, "pci"), "address");
    for (const Value& here : array(source, "pci")) {
        const std::string name = fmt::format("PCI device {} ({}:{})", shown_text(here, "address"),
                                             shown_text(here, "vendor"), shown_text(here, "device"));
        const auto found = offered.find(text(here, "address"));
        if (found == offered.end()) {
            const std::string driver = shown_text(here, "driver");
            reasons.push_back(
                fmt::format("{}{} is missing on the target", name,
                            driver.empty() ? std::string() : fmt::format(", driver {},", driver)));
            continue;
        }
        const Value& there = *found->second;
        const auto same = [&](const char* key) { return text(here, key) == text(there, key); };
        if (!same("vendor") || !same("device") || !same("class")) {
            reasons.push_back(fmt::format("{} is another device on the target ({}:{})", name,
                                          shown_text(there, "vendor"), shown_text(there, "device")));
        } else if (!same("subsystem")) {
            reasons.push_back(fmt::format("{} has subsystem {} on the target, the guest's is {}", name,
                                          shown_text(there, "subsystem"), shown_text(here, "subsystem")));
        } else if (array(here, "bars") != array(there, "bars")) {
            reasons.push_back(fmt::format("{} has memory windows of other lengths on the target", name));
        } else {
            compare_virtio(here, there, reasons);
        }
    }
}

std::string disk_name(const Value& disk) {
    const std::string id = shown_text(disk, "id");
    return fmt::format("disk {} ({}at {})", shown_text(disk, "name"), id.empty() ? std::string() : id + " ",
                       shown_text(disk, "path"));
}

void compare_disks(const Value& source, const Value& target, Reasons& reasons) {
    const auto offered = by_key(array(target, "disks"), "path");
    for (const Value& here : array(source, "disks")) {
        const std::string name = disk_name(here);
        const auto found = offered.find(text(here, "path"));
        if (found == offered.end()) {
            reasons.push_back(fmt::format("{} is not there on the target: attach the same disk to it", name));
            continue;
        }
        const Value& there = *found->second;
        if (text(here, "id") != text(there, "id")) {
            const std::string id = shown_text(there, "id");
            reasons.push_back(
                fmt::format("{} is another disk on the target ({})", name, id.empty() ? "no serial" : id));
            continue;
        }
        if (number(here, "bytes") != number(there, "bytes")) {
            reasons.push_back(fmt::format("{} has {} bytes on the target, here {}", name,
                                          number(there, "bytes"), number(here, "bytes")));
        }
        if (number(here, "block_bytes") != number(there, "block_bytes")) {
            reasons.push_back(fmt::format("{} has blocks of {} bytes on the target, here {}", name,
                                          number(there, "block_bytes"), number(here, "block_bytes")));
        }
        if (!flag(here, "read_only") && flag(there, "read_only")) {
            reasons.push_back(fmt::format("{} is read-only on the target", name));
        }
    }
}

void compare_nics(const Value& source, const Value& target, Reasons& reasons) {
    const auto offered = by_key(array(target, "nics"), "path");
    for (const Value& here : array(source, "nics")) {
        if (offered.contains(text(here, "path"))) continue;
        reasons.push_back(
            fmt::format("the guest's network interface {} (at {}) has no counterpart on the target",
                        shown_text(here, "name"), shown_text(here, "path")));
    }
}

void note_obstacles(const Value& machine, const char* where, Reasons& reasons) {
    for (const Value& obstacle : array(machine, "cannot_suspend")) {
        if (obstacle.is_string()) reasons.push_back(where + shown(obstacle.get<std::string>()));
    }
}

}  // namespace

std::vector<std::string> compare_machines(std::string_view source_json, std::string_view target_json) {
    const auto source = json::parse_object(source_json);
    const auto target = json::parse_object(target_json);
    if (!source) return {"the guest's description of itself cannot be read"};
    if (!target) return {"the target's description of itself cannot be read"};
    if (number(*source, "format") != kFormat || number(*target, "format") != kFormat) {
        return {fmt::format("source and target run different versions of selfmigrate: {}", kNewImage)};
    }

    Reasons reasons;
    compare_kernels(*source, *target, reasons);
    compare_modules(*source, *target, reasons);
    if (text(*source, "firmware") != text(*target, "firmware")) {
        reasons.push_back(fmt::format("the target was started by {}, the guest by {}",
                                      shown_text(*target, "firmware"), shown_text(*source, "firmware")));
    }
    compare_memory(*source, *target, reasons);
    compare_processors(*source, *target, reasons);
    compare_clocks(*source, *target, reasons);
    compare_pci(*source, *target, reasons);
    compare_disks(*source, *target, reasons);
    compare_nics(*source, *target, reasons);
    note_obstacles(*source, "in the guest: ", reasons);
    note_obstacles(*target, "on the target: ", reasons);
    if (reasons.size() > kMaxReasons) {
        const std::size_t more = reasons.size() - kMaxReasons + 1;
        reasons.resize(kMaxReasons - 1);
        reasons.push_back(fmt::format("and {} more", more));
    }
    return reasons;
}

}  // namespace smig
