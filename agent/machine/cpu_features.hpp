// SPDX-License-Identifier: Apache-2.0
// What this CPU offers, and whether another one offers at least that.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace smig {

struct CpuFeatures {
    using LeafKey = std::pair<std::uint32_t, std::uint32_t>;  // leaf, subleaf
    using Registers = std::array<std::uint32_t, 4>;           // eax, ebx, ecx, edx
    std::string vendor;
    std::string hypervisor;               // signature of leaf 0x40000000, empty without one
    std::uint64_t xcr0 = 0;               // what the kernel has enabled
    std::map<LeafKey, Registers> leaves;  // only leaves that compare_cpus() looks at
};

CpuFeatures read_cpu_features();

// Reasons why a kernel that has adapted itself to `source` cannot go on on `target`, by the features' names
// in /proc/cpuinfo.
std::vector<std::string> compare_cpus(const CpuFeatures& source, const CpuFeatures& target);

}  // namespace smig
